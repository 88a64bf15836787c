"""Every setting of a training run, typed, frozen and documented one by one.

A recipe is a TOML file with the sections below. What counts is decided in this order: the defaults
here, then the recipe, then `--set section.name=value`, then flags such as `--data`. An unknown name
or a value out of range is an error that lists all problems at once.
"""

import math
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from textlora.errors import SettingsError

Matrix = Literal["query", "key", "value", "output", "ffn", "ffn_in", "ffn_out"]
Shape = Literal["linear", "cosine"]  # of a schedule
Metric = Literal["accuracy", "f1_weighted", "f1_macro", "loss"]
BackendName = Literal["torch", "openvino", "openvino-int8", "auto"]
Precision = Literal["auto", "fp32", "bf16"]
Head = Literal["own", "first", "mean"]
Variant = Literal["lora", "rslora", "dora"]
ProblemType = Literal["single_label_classification", "multi_label_classification"]


MAX_ALPHA = 1e6
# Variants that are known and refused, and why.
_REFUSED = {
    "loraplus": "is no variant here but a rate: training.loraplus_ratio=8",
    "pissa": "changes the frozen weights, so that its adapter fits no published encoder unless its "
    "rank is doubled; use lora, rslora or dora",
    "adalora": "moves rank between matrices while it trains, so that no plan could be counted "
    "before; name the matrices in adapter.targets, or use sweep to search for them",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(_Section):
    """Which labelled texts, and how they are read, cleaned and split."""

    source: str = (
        "ag_news"  # "ag_news", "hub:owner/name[@revision]", a folder, a file, "embedded:headlines"
    )
    text_columns: tuple[str, ...] = ()  # joined with a space; empty = found by name
    label_column: str = ""  # empty = found by name
    multi_label: bool = False  # a text has a set of labels, perhaps none, instead of exactly one
    label_separator: str = Field(
        ";", min_length=1
    )  # between the labels of a cell, where they are no list; multi-label data only
    label_names: tuple[
        str, ...
    ] = ()  # names for integer labels 0, 1, ...; empty = as the data says
    encoding: str = "utf-8"  # of CSV, TSV, JSONL and TXT files
    validation_share: float = Field(
        0.1, gt=0.0, lt=1.0
    )  # held out of train when the data has no validation split
    stratified: bool = True  # keep the label shares in both parts of that split
    split_seed: int = Field(42, ge=0, lt=2**32)
    repair_entities: bool = False  # turn broken HTML entities (#39; quot; &lt;b&gt;) back into text
    slice_columns: tuple[str, ...] = ()  # scores are also given for each value of these columns
    corrections: str = ""  # a reviewed file of `audit`; applied to the training rows alone
    max_train_rows: int = Field(
        0, ge=0
    )  # 0 = all; else a seeded random sample of the training rows

    @field_validator("text_columns", "slice_columns", mode="before")
    @classmethod
    def _read_columns(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str) else names

    @field_validator("label_separator")
    @classmethod
    def _check_separator(cls, separator: str, info: ValidationInfo) -> str:
        if separator != ";" and not info.data.get("multi_label", True):
            raise ValueError("is for data.multi_label=true; set both or neither")
        return separator

    @field_validator("label_names")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is there twice, and labels would be merged")
        return names

    @property
    def problem_type(self) -> ProblemType:
        """What transformers calls one label a text, or a set of them."""
        return "multi_label_classification" if self.multi_label else "single_label_classification"


class ModelSettings(_Section):
    """Which pretrained encoder."""

    name: str = "FacebookAI/roberta-base"  # Hub id, folder, or "embedded:minilm"
    revision: str = ""  # commit or tag on the Hub; empty = the default branch
    max_length: int = Field(
        512, ge=8, le=1_000_000
    )  # tokens; longer texts are cut, counted and reported
    head: Head = "own"  # the model's own, or one linear layer over the first token or the mean


class DropoutSettings(_Section):
    """The dropout schedule: `start` at the first step, `end` at the last."""

    start: float = Field(0.05, ge=0.0, lt=1.0)
    end: float = Field(0.05, ge=0.0, lt=1.0)
    shape: Shape = "linear"
    scope: Literal["adapter", "all"] = (
        "adapter"  # those of LoRA only, or every dropout module (ModernBERT's attention has none)
    )
    backbone: float = Field(0.0, ge=0.0, lt=1.0)  # constant dropout of the encoder and its head


class AdapterSettings(_Section):
    """Which matrices of which layers get a low-rank adapter, and how large it is."""

    variant: Variant = "lora"  # rslora: scaled by alpha / sqrt(rank); dora: magnitudes apart
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0.0, le=MAX_ALPHA)  # the update is scaled by alpha / rank
    # Layers ("all", "last 4", "0", "2-5", "0,5,10") -> matrices of those layers.
    targets: dict[str, tuple[Matrix, ...]] = Field({"all": ("query", "value")}, min_length=1)

    @field_validator("variant", mode="before")
    @classmethod
    def _read_variant(cls, name: Any) -> Any:
        return name.lower() if isinstance(name, str) else name  # papers write rsLoRA and DoRA

    def compute_alpha(self, rank: int) -> float:
        """Alpha with which an adapter of another rank is as strong: its update is scaled alike."""
        if self.variant == "rslora":
            return self.alpha * math.sqrt(rank / self.rank)
        return self.alpha / self.rank * rank


class TrainingSettings(_Section):
    """The optimizer, the length of the run, and what decides which checkpoint is best."""

    epochs: float = Field(3.0, gt=0.0, le=10_000.0)
    batch_size: int = Field(16, ge=1)  # texts per optimizer step
    learning_rate: float = Field(2e-4, gt=0.0)  # the peak
    schedule: Shape = "linear"  # how the rate falls after the warm-up
    warmup_share: float = Field(0.1, ge=0.0, lt=1.0)  # of all steps
    loraplus_ratio: float = Field(1.0, ge=1.0)  # LoRA+: rate of B over that of the rest
    layer_decay: float = Field(1.0, gt=0.0, le=1.0)  # factor of the rate, layer by layer down
    weight_decay: float = Field(0.01, ge=0.0)  # not on biases and norms
    max_grad_norm: float = Field(1.0, gt=0.0)
    average_decay: float = Field(
        0.0, ge=0.0, lt=1.0
    )  # of the moving average of the weights, which then counts; 0 = the last weights count
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    class_weights: Literal["none", "balanced"] = "none"  # balanced: rare classes count more
    focal_gamma: float = Field(0.0, ge=0.0)  # of the focal loss: sure texts count less; 0 = off
    evaluate_every: int = Field(0, ge=0)  # steps; 0 = at the end of each epoch
    # On validation, of equals the lower loss; the best checkpoint is the one that is saved.
    best_metric: Metric = "accuracy"
    patience: int = Field(
        0, ge=0
    )  # evaluations without a better one before stopping; 0 = never stop
    keep_checkpoints: int = Field(2, ge=1)  # the newest N; the best one is always kept
    checkpoint_minutes: float = Field(
        5.0, ge=0.0
    )  # a checkpoint after so long without one, besides that of each evaluation; 0 = none
    seed: int = Field(42, ge=0)
    prefix_cache_gb: float = Field(
        4.0, ge=0.0
    )  # largest file that keeps the output of layers below the adapted ones; 0 = none
    precision: Precision = "auto"  # of the frozen weights; auto = bf16 where the hardware has it

    @property
    def has_plain_loss(self) -> bool:
        """Whether what is minimised is the negative log likelihood and nothing else."""
        weighted = self.class_weights != "none" or self.focal_gamma > 0.0
        return not weighted and self.label_smoothing == 0.0


class Recipe(_Section):
    """All settings of a run; stored with its result."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    dropout: DropoutSettings = DropoutSettings()
    training: TrainingSettings = TrainingSettings()

    @property
    def rereads_prefix(self) -> bool:
        """Whether the output of frozen layers is always the same and read in several epochs."""
        settings, dropout = self.training, self.dropout
        random = dropout.scope == "all" and max(dropout.start, dropout.end) > 0.0
        return not random and settings.epochs > 1.0 and settings.prefix_cache_gb > 0.0


def list_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    folder = resources.files("textlora") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir())


def load_recipe(name: str, assignments: Iterable[str] = (), **flags: str | None) -> Recipe:
    """Build the recipe `name` (a shipped one or a TOML file), changed by assignments and flags.

    `assignments` are texts like `adapter.rank=8`, their values in TOML; `flags` are full names with
    `__` for the dot, such as data__source, and None stands for a flag that was not given.

    Raises:  SettingsError naming every unknown setting and every bad value.
    """
    values = _read_toml(name)
    for assignment in assignments:
        _assign(values, assignment)
    for flag, value in flags.items():
        if value is not None:
            section, key = flag.split("__")
            if not isinstance(values.setdefault(section, {}), dict):
                raise SettingsError(f"recipe {name!r}: {section} is not a section of settings")
            values[section][key] = value
    return parse_recipe(values, where=f"recipe {name!r}")


def list_names(assignments: Iterable[str]) -> list[str]:
    """The settings that are assigned, by their full names."""
    return [assignment.partition("=")[0].strip() for assignment in assignments]


def parse_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Check nested settings and freeze them.

    Raises:  SettingsError naming every unknown setting and every bad value.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise SettingsError(f"{where}: {problems}") from None


def format_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, every setting included, such that `load_recipe` gives it back."""
    return tomli_w.dumps(recipe.model_dump(mode="json"))


def _read_toml(name: str) -> dict[str, Any]:
    if name in list_recipes():
        text = (resources.files("textlora") / "recipes" / f"{name}.toml").read_text("utf-8")
    else:
        path = Path(name)
        if not path.is_file():
            shipped = ", ".join(list_recipes())
            raise SettingsError(
                f"recipe {name!r}: no such file; give a TOML file or one of {shipped}"
            )
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"recipe {name!r}: cannot be read ({error}); give a UTF-8 file"
            ) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"recipe {name!r}: not valid TOML ({error}); mend that line") from None


def _assign(values: dict[str, Any], assignment: str) -> None:
    path, equals, text = assignment.partition("=")
    parts = path.strip().split(".")
    if not equals or len(parts) != 2 or not all(parts):
        raise SettingsError(f"--set {assignment!r}: not of the form section.name=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string: --set training.schedule=cosine
    section = values.setdefault(parts[0], {})
    if not isinstance(section, dict):
        raise SettingsError(f"--set {assignment!r}: {parts[0]} is not a section of settings")
    section[parts[1]] = value


def _explain(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    name = ".".join(location)
    if problem["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        return f"unknown setting {name}; known: {', '.join(section.model_fields)}"
    message = str(problem["msg"]).removeprefix("Value error, ")  # of a check of ours
    reason = _REFUSED.get(str(problem["input"]).replace("+", "plus"))
    if name == "adapter.variant" and reason:
        return f"{name}: {problem['input']} {reason}"
    if problem["type"] == "tuple_type":
        message = 'give a list, such as ["a", "b"]'
    return f"{name}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"
