"""What a classification model consists of, by name and size: no weights, and mostly no model.

Of the well-known families the shapes follow from config.json by arithmetic, in a blink. Any other
is built on the meta device by transformers, and read; a test holds the one to the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textlora.model import encoder_config
from textlora.model.encoder_config import PACKED_FAMILIES, EncoderConfig, name_encoder
from textlora.model.encoder_files import locate_config, read_shipped_config
from textlora.model.encoder_weights import list_weights, read_tensor_names, rename_stored
from textlora.settings import Head, ModelSettings

Parameters = dict[str, tuple[int, ...]]
# These hold their head before their encoder, and so list its parameters first.
_HEAD_FIRST = {"xlm-roberta", "camembert"}


@dataclass(frozen=True)
class ModelShapes:
    """A classification model by the names and sizes of its parts, in the model's own order.

    `encoder_name` is that of the encoder in the model, `linears` are its linear layers, and
    `linear_head` the parameters of a linear head that textlora puts there; empty for a model's own.
    `is_packed`: the engine computes it without padding. Facts of the configuration that it lacks
    are 0, or None.

    Shapes:  parameters (as many as the model has), each as torch has it: a weight (out, in).
    """

    parameters: Parameters
    linears: tuple[str, ...]
    encoder_name: str
    linear_head: tuple[str, ...]
    pooling: str | None
    model_type: str
    width: int
    heads: int
    positions: int | None
    pad_token_id: int | None
    is_packed: bool

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(map(count_elements, self.parameters.values()))

    def find_max_length(self, wanted: int) -> int:
        """Longest input in tokens: what is wanted, but no more than there are positions for.

        Raises:  ModelError if that is too little for any text.
        """
        positions = self.positions or wanted
        known = encoder_config.count_positions(self.model_type, positions, self.pad_token_id)
        return min(wanted, known)


def count_elements(shape: tuple[int, ...]) -> int:
    """Numbers in a tensor of that shape."""
    total = 1
    for size in shape:
        total *= size
    return total


def find_shapes(settings: ModelSettings, num_labels: int) -> ModelShapes:
    """The shapes of a model with a head for so many labels; a well-known Hub id needs no network.

    Raises:  ModelError if its configuration cannot be had, or is that of no encoder.
    """
    values = read_shipped_config(settings)
    config = (
        encoder_config.read_encoder_config(locate_config(settings).folder)
        if values is None
        else encoder_config.parse_encoder_config(values)
    )
    if config is not None:
        return compute_shapes(config, settings.head, num_labels)
    from textlora.model import encoder  # with torch and transformers: seconds

    labels = tuple(map(str, range(num_labels)))
    full = encoder.read_model_config(settings, labels)
    return read_shapes(encoder.build_skeleton(full, settings.head))


def find_new_parameters(shapes: ModelShapes, folder: Path | None) -> tuple[str, ...]:
    """Parameters that would start at random: those that the weight files in `folder` lack.

    Reads only the headers of the files. Without a folder: all that is not part of the encoder.

    Raises:  ModelError if a weight file is none.
    """
    prefix = f"{shapes.encoder_name}."
    if folder is None:
        return tuple(name for name in shapes.parameters if not name.startswith(prefix))
    stored = {
        rename_stored(key) for path in list_weights(folder) for key in read_tensor_names(path)
    }
    fresh = set(shapes.linear_head)  # what is stored under these names is another head
    return tuple(
        name
        for name in shapes.parameters
        if name in fresh or (name not in stored and name.removeprefix(prefix) not in stored)
    )


def read_shapes(model: Any) -> ModelShapes:
    """The shapes of a torch module, which may lie on the meta device."""
    from torch import nn  # whoever holds a model has imported it

    config = getattr(model, "config", None)
    family = getattr(config, "model_type", "")
    pooling = getattr(model, "pooling", None)
    parameters = {name: tuple(value.shape) for name, value in model.named_parameters()}
    head = tuple(name for name in parameters if name.startswith("classifier."))
    return ModelShapes(
        parameters=parameters,
        linears=tuple(n for n, module in model.named_modules() if isinstance(module, nn.Linear)),
        encoder_name=getattr(model, "base_model_prefix", ""),
        linear_head=() if pooling is None else head,
        pooling=pooling,
        model_type=family,
        width=getattr(config, "hidden_size", 0),
        heads=getattr(config, "num_attention_heads", 0),
        positions=getattr(config, "max_position_embeddings", None),
        pad_token_id=getattr(config, "pad_token_id", None),
        is_packed=family in PACKED_FAMILIES and not getattr(config, "is_decoder", False),
    )


def compute_shapes(config: EncoderConfig, head: Head, num_labels: int) -> ModelShapes:
    """The shapes of a model of a well-known family with a head for so many labels.

    Source:  the modules of transformers 5.23, with which a test compares them.
    """
    family = config.model_type
    name = name_encoder(family)
    encoder = {f"{name}.{key}": shape for key, shape in _list_encoder(config, head)}
    own = dict(_list_head(config, head, num_labels))
    first = family in _HEAD_FIRST and head == "own"
    parameters = own | encoder if first else encoder | own
    return ModelShapes(
        parameters=parameters,
        # Besides linear layers only embeddings have matrices.
        linears=tuple(
            key.removesuffix(".weight")
            for key, shape in parameters.items()
            if len(shape) == 2 and "embeddings." not in key and "relative_attention" not in key
        ),
        encoder_name=name,
        linear_head=() if head == "own" else tuple(own),
        pooling=None if head == "own" else head,
        model_type=family,
        width=config.width,
        heads=config.heads,
        positions=config.positions,
        pad_token_id=config.pad_token_id,
        is_packed=family in PACKED_FAMILIES,
    )


Named = Iterator[tuple[str, tuple[int, ...]]]


def _list_encoder(config: EncoderConfig, head: Head) -> Named:
    yield from _list_embeddings(config)
    if config.embedding_width != config.width:
        yield from _linear("embeddings_project", config.embedding_width, config.width)
    list_layer, stem = _LAYERS.get(config.model_type, (_list_layer, "encoder"))
    for index in range(config.num_layers):
        for key, shape in list_layer(config):
            yield f"{stem}.layer.{index}.{key}", shape
    if config.model_type == "mpnet":
        yield "encoder.relative_attention_bias.weight", (config.buckets, config.heads)
    # The own heads of the other families read the first token itself; a linear head needs none.
    if config.model_type == "bert" and head == "own":
        yield from _linear("pooler.dense", config.width, config.width)


def _list_embeddings(config: EncoderConfig) -> Named:
    width = config.embedding_width
    positions = ("embeddings.position_embeddings.weight", (config.positions, width))
    last = config.model_type in ("roberta", "xlm-roberta", "camembert")
    yield "embeddings.word_embeddings.weight", (config.vocabulary, width)
    if not last:
        yield positions
    if config.model_type not in ("mpnet", "distilbert"):
        yield "embeddings.token_type_embeddings.weight", (config.token_types, width)
    yield from _norm("embeddings.LayerNorm", width)
    if last:
        yield positions


def _list_layer(config: EncoderConfig) -> Named:
    width = config.width
    for name in ("query", "key", "value"):
        yield from _linear(f"attention.self.{name}", width, width)
    yield from _linear("attention.output.dense", width, width)
    yield from _norm("attention.output.LayerNorm", width)
    yield from _list_feed_forward(config)


def _list_mpnet_layer(config: EncoderConfig) -> Named:
    for name in ("q", "k", "v", "o"):
        yield from _linear(f"attention.attn.{name}", config.width, config.width)
    yield from _norm("attention.LayerNorm", config.width)
    yield from _list_feed_forward(config)


def _list_feed_forward(config: EncoderConfig) -> Named:
    yield from _linear("intermediate.dense", config.width, config.inner)
    yield from _linear("output.dense", config.inner, config.width)
    yield from _norm("output.LayerNorm", config.width)


def _list_distilbert_layer(config: EncoderConfig) -> Named:
    for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
        yield from _linear(f"attention.{name}", config.width, config.width)
    yield from _norm("sa_layer_norm", config.width)
    yield from _linear("ffn.lin1", config.width, config.inner)
    yield from _linear("ffn.lin2", config.inner, config.width)
    yield from _norm("output_layer_norm", config.width)


def _list_head(config: EncoderConfig, head: Head, num_labels: int) -> Named:
    if head != "own" or config.model_type == "bert":
        yield from _linear("classifier", config.width, num_labels)
    elif config.model_type == "distilbert":
        yield from _linear("pre_classifier", config.width, config.width)
        yield from _linear("classifier", config.width, num_labels)
    else:
        yield from _linear("classifier.dense", config.width, config.width)
        yield from _linear("classifier.out_proj", config.width, num_labels)


def _linear(name: str, features_in: int, features_out: int) -> Named:
    yield f"{name}.weight", (features_out, features_in)
    yield f"{name}.bias", (features_out,)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


_LAYERS = {
    "mpnet": (_list_mpnet_layer, "encoder"),
    "distilbert": (_list_distilbert_layer, "transformer"),
}
