import copy
import shutil

import pytest
import torch
import transformers
from conftest import FAMILIES, save_encoder
from safetensors.torch import load_file, save_file

from textlora.errors import SettingsError
from textlora.model import encoder
from textlora.model.adapter_plan import plan_adapter
from textlora.model.adapters import (
    attach_adapter,
    find_wrapped_modules,
    merge_adapter,
    set_dropout,
)
from textlora.model.encoder_files import EncoderFiles
from textlora.model.number_format import cast_frozen
from textlora.model.shapes import find_new_parameters, read_shapes
from textlora.settings import AdapterSettings, DropoutSettings, ModelSettings, load_recipe

LABELS = ("a", "b", "c", "d")
NO_DROPOUT = DropoutSettings(start=0.0, end=0.0)
# Rounding of float32 sums in another order; logits are about 1.
FLOAT32_TOLERANCE = 1e-5


def files_of(folder) -> EncoderFiles:
    return EncoderFiles(str(folder), folder, "", str(folder))


@pytest.fixture(scope="module", params=FAMILIES)
def family_folder(request, tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp(request.param), request.param)


def load_and_attach(folder, dropout=NO_DROPOUT, **settings):
    adapter = AdapterSettings(**settings)
    loaded = encoder.load_encoder(files_of(folder), LABELS)
    plan = plan_adapter(read_shapes(loaded.model), loaded.new_parameters, adapter)
    return attach_adapter(loaded.model, plan, adapter, dropout), plan


def some_input(length=9):
    ids = torch.randint(5, 40, (3, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("terms", [("query", "value"), ("query", "key", "output", "ffn")])
def test_the_plan_equals_the_real_model_in_every_family(family_folder, terms):
    targets = {"all": terms}
    config = encoder.load_config(files_of(family_folder), LABELS)
    shapes = read_shapes(encoder.build_skeleton(config))
    new = find_new_parameters(shapes, family_folder)
    planned = plan_adapter(shapes, new, AdapterSettings(rank=3, targets=targets))
    model, plan = load_and_attach(family_folder, rank=3, targets=targets)
    assert planned == plan
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    assert (planned.trainable, planned.total) == (trainable, total)
    assert planned.num_layers == 2


def test_every_new_layer_is_trained_in_every_family(family_folder):
    loaded = encoder.load_encoder(files_of(family_folder), LABELS)
    plan = plan_adapter(read_shapes(loaded.model), loaded.new_parameters, AdapterSettings())
    assert loaded.new_parameters
    for name in loaded.new_parameters:
        assert any(name.startswith(f"{module.name}.") for module in plan.modules), name


def test_an_absent_pooler_is_found_trained_and_counted(tmp_path):
    folder = save_encoder(tmp_path / "encoder", "bert")
    config = transformers.BertConfig.from_pretrained(folder)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    model, plan = load_and_attach(folder)
    names = [module.name for module in plan.modules]
    assert names == ["bert.pooler", "classifier"]
    assert find_wrapped_modules(model) == names


def test_a_fresh_adapter_changes_nothing(family_folder):
    loaded = encoder.load_encoder(files_of(family_folder), LABELS)
    plain = loaded.model.eval()
    before = plain(**some_input()).logits
    adapter = AdapterSettings()
    plan = plan_adapter(read_shapes(plain), loaded.new_parameters, adapter)
    after = attach_adapter(plain, plan, adapter, NO_DROPOUT).eval()(**some_input()).logits
    assert torch.equal(before, after)


def test_merged_equals_unmerged(family_folder):
    model, _ = load_and_attach(family_folder, rank=4, targets={"all": ("query", "ffn")})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    unmerged = model.eval()(**some_input()).logits
    merged = merge_adapter(copy.deepcopy(model)).eval()
    assert not any("lora" in name for name, _ in merged.named_modules())
    assert torch.allclose(merged(**some_input()).logits, unmerged, atol=FLOAT32_TOLERANCE)


def test_only_adapters_and_new_layers_get_gradients(family_folder):
    model, _ = load_and_attach(family_folder)
    model(**some_input()).logits.sum().backward()
    for name, parameter in model.named_parameters():
        trained = "lora_" in name or "modules_to_save" in name
        assert (parameter.grad is not None) == trained, name


@pytest.mark.parametrize("name", ["FacebookAI/roberta-base", "microsoft/mpnet-base"])
def test_the_reference_recipe_trains_814852_parameters(name, no_sockets):
    recipe = load_recipe("reference")
    config = encoder.read_model_config(ModelSettings(name=name), LABELS)
    shapes = read_shapes(encoder.build_skeleton(config))
    plan = plan_adapter(shapes, find_new_parameters(shapes, None), recipe.adapter)
    assert plan.trainable == 814_852
    assert (plan.adapter_parameters, plan.head_parameters) == (221_184, 593_668)
    if "roberta" in name:
        assert plan.total == 125_463_560
        assert f"{plan.trainable_share:.4%}" == "0.6495%"
        assert [m.name for m in plan.matrices] == [
            f"roberta.encoder.layer.{layer}.attention.self.{matrix}"
            for layer, matrix in [(0, "query"), (0, "key"), (5, "query"), (10, "query")]
        ]
    assert not no_sockets


@pytest.mark.parametrize(
    ("selector", "layers"),
    [("all", [0, 1]), ("last 1", [1]), ("0", [0]), ("0-1", [0, 1]), ("0,1", [0, 1])],
)
def test_layers_can_be_named_in_every_way(tiny_bert, selector, layers):
    _, plan = load_and_attach(tiny_bert, targets={selector: ("key",)})
    assert [matrix.layer for matrix in plan.matrices] == layers
    assert all(matrix.terms == ("key",) for matrix in plan.matrices)


@pytest.mark.parametrize(
    ("targets", "parts"),
    [
        ({"5": ("query",)}, ["layer 5", "2 layers, 0 to 1"]),
        ({"last 3": ("query",)}, ["does not exist", "2 layers"]),
        ({"last 0": ("query",)}, ["does not exist", "2 layers"]),
        ({"first": ("query",)}, ["'first'", "last 4"]),
        ({"1-0": ("query",)}, ["'1-0' end before they begin"]),
        ({"0,1-0": ("query",)}, ["'0,1-0' end before they begin"]),
        ({"0-999999999": ("query",)}, ["layer 999999999 does not exist"]),
        ({"9" * 5000: ("query",)}, ["not understood"]),
    ],
)
def test_a_target_that_does_not_exist_is_an_error_that_lists_what_exists(tiny_bert, targets, parts):
    with pytest.raises(SettingsError) as caught:
        load_and_attach(tiny_bert, targets=targets)
    for part in parts:
        assert part in str(caught.value)


def test_reference_targets_are_suggested_at_the_same_depth_of_a_shallow_model(tiny_bert):
    recipe = load_recipe("reference")
    with pytest.raises(SettingsError) as caught:
        load_and_attach(tiny_bert, targets=recipe.adapter.targets)
    flag = str(caught.value).split("--set ")[1].strip("'")
    fitted = load_recipe("reference", [flag])
    _, plan = load_and_attach(tiny_bert, targets=fitted.adapter.targets)
    assert [(m.layer, m.terms[0]) for m in plan.matrices] == [
        (0, "query"),
        (0, "key"),
        (1, "query"),
    ]


def test_a_model_with_unknown_names_is_refused():
    with pytest.raises(SettingsError, match="names that textlora does not know"):
        plan_adapter(read_shapes(torch.nn.Linear(3, 3)), [], AdapterSettings())


@pytest.mark.parametrize("scope", ["adapter", "all"])
def test_dropout_scope_decides_which_modules_change(tiny_bert, scope):
    model, _ = load_and_attach(tiny_bert, dropout=DropoutSettings(start=0.0, end=0.2))
    set_dropout(model, 0.37, scope)
    found = {n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    adapters = [p for name, p in found.items() if "lora_dropout" in name]
    assert adapters == [0.37] * 4  # query and value of two layers, though the schedule starts at 0
    others = {p for name, p in found.items() if "lora_dropout" not in name}
    assert others == ({0.37} if scope == "all" else {0.0})


def test_the_head_stays_float32_in_a_bfloat16_model(family_folder):
    model, plan = load_and_attach(family_folder)
    exact = model.eval()(**some_input()).logits
    cast_frozen(model, [module.name for module in plan.modules], torch.bfloat16)
    rounded = model(**some_input()).logits
    assert rounded.dtype == torch.float32
    # bfloat16 keeps 8 bits: a few hundredths after two layers.
    assert torch.allclose(rounded, exact, atol=0.1)
    for name, parameter in model.named_parameters():
        expected = torch.float32 if "modules_to_save" in name else torch.bfloat16
        if "original_module" not in name:
            assert parameter.dtype == expected, name


@pytest.mark.parametrize("lost", ["encoder.layer.1.", "encoder.layer.1.output.LayerNorm.bias"])
def test_what_the_checkpoint_lacks_in_an_adapted_layer_is_trained_whole(tiny_bert, tmp_path, lost):
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    stored = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in stored.items() if not name.startswith(lost)}
    assert len(kept) < len(stored)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    model, plan = load_and_attach(folder, targets={"all": ("query", "value")})
    shapes = read_shapes(encoder.build_skeleton(encoder.load_config(files_of(folder), LABELS)))
    settings = AdapterSettings(targets={"all": ("query", "value")})
    assert plan_adapter(shapes, find_new_parameters(shapes, folder), settings) == plan
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert any(f"{lost.removesuffix('bias')}modules_to_save" in n or lost in n for n in trained)
    assert plan.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    layers = {matrix.layer for matrix in plan.matrices}
    assert layers == ({0} if lost.endswith("1.") else {0, 1})
    if lost.endswith("1."):
        with pytest.raises(SettingsError, match="lacks every layer named"):
            load_and_attach(folder, targets={"1": ("query",)})
