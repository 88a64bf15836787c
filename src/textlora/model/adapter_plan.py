"""Which matrices get a low-rank adapter, and what that costs exactly.

One table, `_SUFFIXES`, maps the field's terms (query, key, ...) to the names of the model families.
Everything is read off names and sizes: no torch, no weights.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from textlora.errors import SettingsError
from textlora.model.shapes import ModelShapes, count_elements
from textlora.model.targets import expand_targets
from textlora.settings import AdapterSettings, Matrix

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
    shapes: ModelShapes, new_parameters: Iterable[str], settings: AdapterSettings
) -> AdapterPlan:
    """Decide which modules of a model are adapted or trained.

    `new_parameters` are those that the encoder's checkpoint lacks: they start at random, so they
    are trained and saved whole, wherever they sit.

    Raises:  SettingsError for a layer or matrix that the model does not have; it lists what exists.
    """
    found = find_matrices(shapes, settings)
    wanted = _select(found, settings.targets)
    modules = _find_trained_modules(shapes, set(new_parameters))
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
    extra = sum(matrix.num_parameters for matrix in wanted) + sum(m.num_parameters for m in modules)
    num_layers = len({matrix.layer for matrix in found})
    return AdapterPlan(tuple(wanted), tuple(modules), num_layers, shapes.total + extra)


def find_matrices(shapes: ModelShapes, settings: AdapterSettings) -> list[PlannedMatrix]:
    """Every linear layer that a term names, in the model's order."""
    found = []
    for name in shapes.linears:
        match = _LAYER.match(name)
        if match is None:
            continue
        terms = tuple(term for term, suffixes in _SUFFIXES.items() if match["suffix"] in suffixes)
        if terms:
            features_out, features_in = shapes.parameters[f"{name}.weight"]
            magnitudes = features_out if settings.variant == "dora" else 0
            sizes = (features_in, features_out, settings.rank, magnitudes)
            found.append(PlannedMatrix(name, int(match["index"]), terms, *sizes))
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


def _find_trained_modules(shapes: ModelShapes, new_parameters: set[str]) -> list[TrainedModule]:
    """The head and all new layers, as the largest modules that hold nothing else."""
    # PEFT trains these whatever the checkpoint holds (task type SEQ_CLS), and it compares the ends
    # of names: DistilBERT's pre_classifier is one of them.
    names = {
        name
        for name in shapes.parameters
        if name in new_parameters or name.split(".")[0].endswith(("classifier", "score"))
    }
    chosen: list[TrainedModule] = []
    for module, own in _list_modules(shapes).items():
        inside = any(module.startswith(f"{taken.name}.") for taken in chosen)
        # Half new, such as a norm without its bias: PEFT can train modules only, so all of it.
        half = any(name in names and name.rpartition(".")[0] == module for name in own)
        if not inside and (half or names.issuperset(own)):
            size = sum(count_elements(shapes.parameters[name]) for name in own)
            chosen.append(TrainedModule(module, size))
    return chosen


def _list_modules(shapes: ModelShapes) -> dict[str, list[str]]:
    """The parameters of each module that has any, a module before those inside it."""
    modules: dict[str, list[str]] = {}
    for name in shapes.parameters:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            modules.setdefault(".".join(parts[:depth]), []).append(name)
    return modules
