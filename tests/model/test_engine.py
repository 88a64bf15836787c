import numpy as np
import pytest
import torch
import transformers
from conftest import FAMILIES, SIZES, save_encoder, save_tokenizer
from peft import LoraConfig, get_peft_model
from torch import nn

from textlora.model import encoder
from textlora.model.adapter_plan import plan_adapter
from textlora.model.adapters import (
    attach_adapter,
    merge_adapter,
    set_dropout,
)
from textlora.model.batching import TokenizedTexts, make_batch
from textlora.model.encoder_files import EncoderFiles
from textlora.model.engine import Engine
from textlora.model.number_format import cast_frozen
from textlora.model.shapes import read_shapes
from textlora.settings import AdapterSettings, DropoutSettings

PACKED = {"bert", "roberta", "electra", "mpnet"}
LENGTHS = (62, 62, 9, 9, 9, 1, 5, 5)
# Float32 sums in another order; logits are about 1.
TOLERANCE = 1e-5


def make_texts(lengths=LENGTHS, vocabulary=40) -> TokenizedTexts:
    random = np.random.default_rng(0)
    rows = [random.integers(5, vocabulary, length).astype(np.int32) for length in lengths]
    offsets = np.cumsum([0, *lengths])
    return TokenizedTexts(np.concatenate(rows), offsets, np.zeros(len(rows), np.bool_))


def make_model(folder, *, dropout=0.0, terms=("query", "key", "value", "output", "ffn"), **changes):
    """A model whose adapters do something: PEFT starts them at zero."""
    settings = AdapterSettings(rank=3, targets=changes.get("targets", {"all": terms}))
    files = EncoderFiles(str(folder), folder, "", str(folder))
    torch.manual_seed(0)
    loaded = encoder.load_encoder(files, ("a", "b", "c"), changes.get("backbone", 0.0))
    plan = plan_adapter(read_shapes(loaded.model), loaded.new_parameters, settings)
    rates = DropoutSettings(start=dropout, end=dropout)
    model = attach_adapter(loaded.model, plan, settings, rates)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def compute_plainly(model, batch) -> torch.Tensor:
    """Logits by the model's own forward method, padded, without any of our kernels."""
    token_ids, mask = batch.pad(model.config.pad_token_id or 0)
    attention = model.config._attn_implementation
    model.get_base_model().set_attn_implementation("eager")
    try:
        return model(input_ids=token_ids, attention_mask=mask).logits
    finally:
        model.get_base_model().set_attn_implementation(attention)


def compute_gradients(model, logits) -> dict[str, torch.Tensor]:
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad((logits * weights).sum(), list(trained.values()))
    return dict(zip(trained, found, strict=True))


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp(request.param) / request.param, request.param)


def test_outputs_and_gradients_are_those_of_the_padded_model(folder):
    model = make_model(folder).train()
    engine = Engine(model, model.config.pad_token_id or 0)
    assert engine.is_packed == (folder.name in PACKED)
    batch = make_batch(make_texts(), np.arange(len(LENGTHS)))
    expected, found = compute_plainly(model, batch), engine(batch)
    assert torch.allclose(found, expected, atol=TOLERANCE)
    gradients = compute_gradients(model, found)
    for name, gradient in compute_gradients(model, expected).items():
        scale = float(gradient.abs().max()) + 1e-6
        assert torch.allclose(gradients[name], gradient, atol=TOLERANCE * max(1.0, scale)), name


@pytest.mark.parametrize("family", sorted(PACKED))
@pytest.mark.parametrize("lengths", [(1,), (512,), (512, 511, 1), (7,) * 5])
def test_the_longest_and_the_shortest_texts(tmp_path, family, lengths):
    """512 tokens need the last position: RoBERTa and MPNet count from behind the padding id."""
    config_class, sizes = FAMILIES[family]
    positions = 512 if family in ("bert", "electra") else 514
    config = config_class(**{**sizes, **SIZES, "vocab_size": 64, "initializer_range": 0.1,
                             "max_position_embeddings": positions})  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, config.pad_token_id or 0)
    model = make_model(tmp_path).eval()
    batch = make_batch(make_texts(lengths), np.arange(len(lengths)))
    with torch.no_grad():
        found = Engine(model, model.config.pad_token_id or 0)(batch)
        assert torch.allclose(found, compute_plainly(model, batch), atol=TOLERANCE)


@pytest.mark.parametrize("targets", [{"0": ("query", "key"), "1": ("query",)}, {"1": ("value",)},
                                     {"0": ("ffn_out",)}])  # fmt: skip
def test_any_choice_of_matrices_has_the_right_gradients(tiny_bert, targets):
    model = make_model(tiny_bert, targets=targets).train()
    batch = make_batch(make_texts(), np.arange(len(LENGTHS)))
    found = compute_gradients(model, Engine(model, 0)(batch))
    for name, gradient in compute_gradients(model, compute_plainly(model, batch)).items():
        assert torch.allclose(found[name], gradient, atol=TOLERANCE), name


def test_bfloat16_is_as_near_to_float32_as_the_padded_model(folder):
    exact = make_model(folder).eval()
    batch = make_batch(make_texts(), np.arange(len(LENGTHS)))
    expected = compute_plainly(exact, batch)
    model = make_model(folder).eval()
    cast_frozen(model, ["classifier"], torch.bfloat16)
    found = Engine(model, model.config.pad_token_id or 0)(batch).float()
    theirs = (compute_plainly(model, batch).float() - expected).abs().max()
    assert (found - expected).abs().max() < 2 * theirs + 0.02


def test_merged_weights_run_through_the_same_engine(folder):
    model = make_model(folder).eval()
    batch = make_batch(make_texts(), np.arange(len(LENGTHS)))
    expected = compute_plainly(model, batch)
    engine = Engine(merge_adapter(model), model.config.pad_token_id or 0)
    assert engine.is_packed == (folder.name in PACKED)
    assert torch.allclose(engine(batch), expected, atol=TOLERANCE)


def test_the_engine_sees_weights_that_change_later(tiny_bert):
    model = make_model(tiny_bert).eval()
    engine = Engine(model, 0)
    batch = make_batch(make_texts(), np.arange(len(LENGTHS)))
    before = engine(batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter * 0.5)
    assert not torch.allclose(engine(batch), before, atol=0.01)
    assert torch.allclose(engine(batch), compute_plainly(model, batch), atol=TOLERANCE)


@pytest.mark.parametrize("family", sorted(PACKED))
def test_every_dropout_of_the_model_is_applied(tmp_path, family):
    model = make_model(save_encoder(tmp_path / family, family), dropout=0.1, backbone=0.1).train()
    engine = Engine(model, model.config.pad_token_id or 0)
    batch = make_batch(make_texts(), np.arange(len(LENGTHS)))
    modules = {n: m for n, m in model.named_modules() if isinstance(m, nn.Dropout)}
    set_dropout(model, 0.0, "all")
    calm = engine(batch)
    assert torch.equal(engine(batch), calm)
    for name, module in modules.items():
        if "original_module" in name:
            continue  # the head that PEFT's copy stands in for
        module.p = 0.4
        assert not torch.equal(engine(batch), calm), name
        module.p = 0.0
    set_dropout(model, 0.4, "all")
    model.eval()
    assert torch.equal(engine(batch), calm)


def test_what_is_not_plain_lora_runs_through_its_own_forward(tiny_bert):
    config = {"r": 2, "target_modules": ["query"], "task_type": "SEQ_CLS", "use_dora": True}
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    model = get_peft_model(base, LoraConfig(**config)).eval()
    engine = Engine(model, 0)
    batch = make_batch(make_texts(), np.arange(len(LENGTHS)))
    assert not engine.is_packed
    assert torch.allclose(engine(batch), compute_plainly(model, batch), atol=TOLERANCE)


def test_a_trained_layer_runs_through_its_own_forward(tiny_bert):
    """A layer that the checkpoint lacks is trained whole, behind a wrapper of PEFT."""
    files = EncoderFiles(str(tiny_bert), tiny_bert, "", str(tiny_bert))
    loaded = encoder.load_encoder(files, ("a", "b"))
    new = (*loaded.new_parameters, "bert.encoder.layer.1.output.LayerNorm.bias")
    settings = AdapterSettings(rank=2)
    plan = plan_adapter(read_shapes(loaded.model), new, settings)
    model = attach_adapter(loaded.model, plan, settings, DropoutSettings())
    assert not Engine(model, 0).is_packed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_answers_of_the_cpu(folder):
    model = make_model(folder).train()
    batch = make_batch(make_texts(), np.arange(len(LENGTHS)))
    expected = compute_gradients(model, compute_plainly(model, batch))
    model.to("cuda")
    engine = Engine(model, model.config.pad_token_id or 0)
    logits = engine(batch.to(engine.device)).cpu()
    found = compute_gradients(model, logits)
    for name, gradient in expected.items():
        assert torch.allclose(found[name].cpu(), gradient, atol=1e-3), name
