"""Which matrices get a low-rank adapter, what that costs exactly, and attaching it with PEFT.

One table, `_SUFFIXES`, maps the field's terms (query, key, ...) to the names of the model families.
Everything is read off the modules of a model, which may lie on the meta device (no weights).
"""

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn

from textlora.errors import SettingsError
from textlora.model.targets import expand_targets
from textlora.settings import AdapterSettings, DropoutSettings, Matrix

# Module names below a layer: BERT, RoBERTa, ELECTRA; MPNet; DistilBERT; DeBERTa-v2; ModernBERT.
_SUFFIXES: dict[Matrix, tuple[str, ...]] = {
    "query": (
        "attention.self.query", "attention.attn.q", "attention.q_lin",
        "attention.self.query_proj", "attn.Wqkv",
    ),
    "key": (
        "attention.self.key", "attention.attn.k", "attention.k_lin",
        "attention.self.key_proj", "attn.Wqkv",
    ),
    "value": (
        "attention.self.value", "attention.attn.v", "attention.v_lin",
        "attention.self.value_proj", "attn.Wqkv",
    ),
    "output": ("attention.output.dense", "attention.attn.o", "attention.out_lin", "attn.Wo"),
    "ffn_in": ("intermediate.dense", "ffn.lin1", "mlp.Wi"),
    "ffn_out": ("output.dense", "ffn.lin2", "mlp.Wo"),
}  # fmt: skip
_LAYER = re.compile(r"^(?P<stem>.*\blayers?)\.(?P<index>\d+)\.(?P<suffix>.+)$")


@dataclass(frozen=True)
class PlannedMatrix:
    """One adapted linear layer: A (rank, in_features) and B (out_features, rank)."""

    name: str
    layer: int
    terms: tuple[Matrix, ...]  # query, key, value where one matrix holds all three
    in_features: int
    out_features: int
    rank: int
    magnitudes: int = 0  # of DoRA, one an output

    @property
    def num_parameters(self) -> int:
        """Parameters of A and B, and of DoRA's magnitudes."""
        return self.rank * (self.in_features + self.out_features) + self.magnitudes


@dataclass(frozen=True)
class TrainedModule:
    """A module that is trained whole: the head, or a layer that the checkpoint lacks."""

    name: str
    num_parameters: int


@dataclass(frozen=True)
class AdapterPlan:
    """What will be trained, counted exactly.

    `total` counts as PEFT does: all weights of the model, the adapter, and the trained copies of
    whole modules (PEFT keeps the originals beside them).
    """

    matrices: tuple[PlannedMatrix, ...]
    modules: tuple[TrainedModule, ...]
    num_layers: int
    total: int

    @property
    def adapter_parameters(self) -> int:
        """Parameters of all low-rank matrices."""
        return sum(matrix.num_parameters for matrix in self.matrices)

    @property
    def head_parameters(self) -> int:
        """Parameters of all modules trained whole."""
        return sum(module.num_parameters for module in self.modules)

    @property
    def trainable(self) -> int:
        """All trained parameters."""
        return self.adapter_parameters + self.head_parameters

    @property
    def trainable_share(self) -> float:
        """Trained share of `total`, 0..1."""
        return self.trainable / self.total


def plan_adapter(
    model: nn.Module, new_parameters: Iterable[str], settings: AdapterSettings
) -> AdapterPlan:
    """Decide which modules of `model` are adapted or trained, without changing it.

    `new_parameters` are those that the encoder's checkpoint lacks: they start at random, so they
    are trained and saved whole, wherever they sit.

    Raises:  SettingsError for a layer or matrix that the model does not have; it lists what exists.
    """
    found = find_matrices(model, settings)
    wanted = _select(found, settings.targets)
    modules = _find_trained_modules(model, set(new_parameters))
    # A layer that the checkpoint lacks is trained whole; an adapter inside it would add nothing.
    whole = tuple(f"{module.name}." for module in modules)
    wanted = [m for m in wanted if not f"{m.name}.".startswith(whole)]
    if not wanted:
        raise SettingsError(
            "adapter.targets: the checkpoint lacks every layer named, so those are trained whole; "
            "name a layer that it has"
        )
    for matrix in wanted:
        # More learns nothing more, and a typing mistake would fill the memory.
        most = 2 * min(matrix.in_features, matrix.out_features)
        if matrix.rank > most:
            raise SettingsError(
                f"adapter.rank: {matrix.rank} is more than {matrix.name} can use; "
                f"lower it to {most} at most"
            )
    base = sum(parameter.numel() for parameter in model.parameters())
    extra = sum(matrix.num_parameters for matrix in wanted) + sum(m.num_parameters for m in modules)
    num_layers = len({matrix.layer for matrix in found})
    return AdapterPlan(tuple(wanted), tuple(modules), num_layers, base + extra)


def attach_adapter(
    model: nn.Module, plan: AdapterPlan, settings: AdapterSettings, dropout: DropoutSettings
) -> PeftModel:
    """Wrap `model` in PEFT to train exactly the plan. A fresh adapter changes no output."""
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.rank,
        lora_alpha=settings.alpha,
        use_rslora=settings.variant == "rslora",
        use_dora=settings.variant == "dora",
        # At 0 PEFT leaves out the dropout module that a schedule from 0 upwards needs.
        lora_dropout=dropout.start or dropout.end,
        bias="none",
        target_modules=[matrix.name for matrix in plan.matrices],
        modules_to_save=[module.name for module in plan.modules],
    )
    wrapped = wrap_model(model, config)
    trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert trainable == plan.trainable, f"plan says {plan.trainable}, PEFT trains {trainable}"
    return wrapped


def wrap_model(model: nn.Module, config: LoraConfig) -> PeftModel:
    """PEFT's wrapper around `model`, with the adapter in the model's own number format."""
    with warnings.catch_warnings():
        # PEFT calls a name that transformers has renamed; nothing a user could do about it.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        return get_peft_model(model, config, autocast_adapter_dtype=False)


def set_dropout(model: nn.Module, probability: float, scope: str) -> int:
    """Set the dropout of the adapters (scope "adapter") or of every dropout module ("all").

    Returns how many modules were set.
    """
    modules = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and (scope == "all" or ".lora_dropout." in name)
    ]
    for module in modules:
        module.p = probability
    return len(modules)


def merge_adapter(model: PeftModel) -> nn.Module:
    """The plain model with W + (alpha / rank) B A in place of W; do this in float32, cast later."""
    return model.merge_and_unload()


def find_matrices(model: nn.Module, settings: AdapterSettings) -> list[PlannedMatrix]:
    """Every linear layer that a term names, in the model's order."""
    found = []
    for name, module in model.named_modules():
        match = _LAYER.match(name)
        if match is None or not isinstance(module, nn.Linear):
            continue
        terms = tuple(term for term, suffixes in _SUFFIXES.items() if match["suffix"] in suffixes)
        if terms:
            shape = (module.in_features, module.out_features)
            magnitudes = module.out_features if settings.variant == "dora" else 0
            layer = int(match["index"])
            found.append(PlannedMatrix(name, layer, terms, *shape, settings.rank, magnitudes))
    return found


def _select(
    found: list[PlannedMatrix], targets: dict[str, tuple[Matrix, ...]]
) -> list[PlannedMatrix]:
    num_layers = len({matrix.layer for matrix in found})
    if not num_layers:
        raise SettingsError(
            "adapter.targets: this model's layers have names that textlora does not know; "
            "use a BERT, RoBERTa, MPNet, DistilBERT, ELECTRA, DeBERTa-v2 or ModernBERT encoder"
        )
    wanted = expand_targets(targets, num_layers)
    existing = {(matrix.layer, term) for matrix in found for term in matrix.terms}
    missing = sorted(wanted - existing)
    if missing:
        layer, term = missing[0]
        known = sorted({term for _, term in existing})
        raise SettingsError(
            f"adapter.targets: layer {layer} has no {term!r} matrix; it has {', '.join(known)}"
        )
    return [m for m in found if any((m.layer, term) in wanted for term in m.terms)]


def _find_trained_modules(model: nn.Module, new_parameters: set[str]) -> list[TrainedModule]:
    """The head and all new layers, as the largest modules that hold nothing else."""
    # PEFT trains these whatever the checkpoint holds (task type SEQ_CLS), and it compares the ends
    # of names: DistilBERT's pre_classifier is one of them.
    heads = [name for name, _ in model.named_children() if name.endswith(("classifier", "score"))]
    names = {n for n, _ in model.named_parameters() if n in new_parameters}
    names |= {n for n, _ in model.named_parameters() if n.split(".")[0] in heads}
    chosen: list[TrainedModule] = []
    for name, module in model.named_modules():
        own = [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
        inside = any(name.startswith(f"{taken.name}.") for taken in chosen)
        # Half new, such as a norm without its bias: PEFT can train modules only, so all of it.
        half = any(f"{name}.{p}" in names for p, _ in module.named_parameters(recurse=False))
        if name and own and not inside and (half or names.issuperset(own)):
            chosen.append(TrainedModule(name, sum(p.numel() for p in module.parameters())))
    return chosen


def find_wrapped_modules(model: PeftModel) -> list[str]:
    """Names of the modules that PEFT trains whole, as the plan names them."""
    return [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    ]
