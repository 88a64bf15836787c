"""Pretrained encoders and their tokenizers, loaded with a head for our labels.

No socket is opened, only safetensors weights are read, and no code of a model folder is run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from textlora.errors import ModelError, shorten_message
from textlora.model import attention
from textlora.model.encoder_files import (
    EncoderFiles,
    check_published,
    has_vocabulary,
    locate_config,
    read_shipped_config,
)
from textlora.model.heads import install_head, list_head_parameters
from textlora.model.positions import fit_length
from textlora.settings import Head, ModelSettings, ProblemType

# What was seen to train, and to answer a text alike whatever stands beside it: Nystromformer, YOSO,
# ConvBERT and BigBird do not, others need more than text or have layers of other names.
KNOWN = {
    "bert", "roberta", "mpnet", "distilbert", "electra", "deberta", "deberta-v2", "modernbert",
    "camembert", "data2vec-text", "ernie", "longformer", "megatron-bert", "mobilebert", "rembert",
    "roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl",
}  # fmt: skip


@dataclass(frozen=True)
class LoadedEncoder:
    """A model with a fresh head, and the parameters that its checkpoint did not hold."""

    model: nn.Module
    new_parameters: tuple[str, ...]


def read_model_config(settings: ModelSettings, labels: tuple[str, ...]) -> Any:
    """The model's configuration with our labels; a well-known Hub id needs no network for it.

    Raises:  ModelError as `locate_config`, or when the model cannot classify sequences.
    """
    values = read_shipped_config(settings)
    if values is not None:
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        return _set_labels(config, labels)
    return load_config(locate_config(settings), labels)


def load_config(
    files: EncoderFiles,
    labels: tuple[str, ...],
    dropout: float = 0.0,
    problem_type: ProblemType = "single_label_classification",
) -> Any:
    """Configuration of a local model, with label names and every dropout rate set.

    Raises:  ModelError for a broken file or a model of another kind.
    """
    try:
        config = AutoConfig.from_pretrained(
            files.folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"model {files.name!r}: {shorten_message(error)}; give an encoder folder"
        ) from None
    except StrictDataclassError as error:  # its own first line has the field, not what is wrong
        reason = shorten_message(error.__cause__ or error)
        raise ModelError(f"model {files.name!r}: config.json: {reason}; mend it") from None
    if config.model_type not in KNOWN:
        raise ModelError(
            f"model {files.name!r}: {config.model_type} is none of the encoders that textlora "
            f"knows; choose one of {', '.join(sorted(KNOWN))}"
        )
    for key, value in config.to_dict().items():
        # A file may write 0 for 0.0, and a rate that is None is that of another.
        if "dropout" in key and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, key, dropout)
    config.return_dict = True  # an old way to give answers, which nobody reads any more
    return _set_labels(config, labels, problem_type)


def build_skeleton(config: Any, head: Head = "own") -> nn.Module:
    """The model on the meta device: all shapes, no weights, no memory."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    install_head(model, head)
    return model


def load_encoder(
    files: EncoderFiles,
    labels: tuple[str, ...],
    dropout: float = 0.0,
    head: Head = "own",
    problem_type: ProblemType = "single_label_classification",
) -> LoadedEncoder:
    """Load the model in float32 with a head for `labels`; what is new starts from torch's seed.

    Raises:  ModelError if configuration or weights cannot be read.
    """
    check_published(files.folder)
    config = load_config(files, labels, dropout, problem_type)
    transformers.utils.logging.disable_progress_bar()
    previous = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # the plan names the new layers
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            files.folder,
            config=config,
            dtype=torch.float32,
            attn_implementation=_pick_attention(config),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"model {files.name!r}: {shorten_message(error)}; its files are damaged"
        ) from None
    except Exception as error:
        if type(error).__module__.startswith("safetensors"):
            raise ModelError(
                f"model {files.name!r}: weights are damaged ({shorten_message(error)})"
            ) from None
        raise
    finally:
        transformers.utils.logging.set_verbosity(previous)
    _check_sizes(files.name, model, info["mismatched_keys"])
    install_head(model, head)
    new = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    new.update(list_head_parameters(model))
    return LoadedEncoder(model, tuple(n for n, _ in model.named_parameters() if n in new))


def load_tokenizer(folder: Path, name: str) -> Any:
    """The fast tokenizer in `folder`.

    Raises:  ModelError if there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # tokenizers raises plain Exception for a broken file
        raise ModelError(
            f"model {name!r}: its tokenizer cannot be read ({shorten_message(error)})"
        ) from None
    # Without any of these transformers makes a tokenizer that knows no word, and says nothing.
    if not has_vocabulary(folder):
        raise ModelError(f"model {name!r}: has no tokenizer files; copy tokenizer.json there")
    if not tokenizer.is_fast:
        raise ModelError(f"model {name!r}: has no tokenizer.json; save it with a fast tokenizer")
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"model {name!r}: its tokenizer has no padding token; set pad_token and save it again"
        )
    return tokenizer


def find_max_length(config: Any, wanted: int) -> int:
    """Longest input in tokens, as `positions.fit_length` of a configuration.

    Raises:  ModelError as `positions.fit_length`.
    """
    positions, padding = (
        getattr(config, name, None) for name in ("max_position_embeddings", "pad_token_id")
    )
    return fit_length(config.model_type, positions, padding, wanted)


def _check_sizes(name: str, model: Any, mismatched: Iterable[Any]) -> None:
    """Only a head may be of another size: the encoder's own weights would be thrown away."""
    prefix = f"{model.base_model_prefix}."
    for key, stored, expected in mismatched:
        if key.startswith(prefix) and key not in list_head_parameters(model):
            raise ModelError(
                f"model {name!r}: config.json and weights differ: {key} is {tuple(expected)} by "
                f"the one, {tuple(stored)} by the other; put files of one model there"
            )


def _pick_attention(config: Any) -> str:
    """Ours, for families whose layers ask transformers for it; MPNet and DeBERTa have their own."""
    family = AutoModelForSequenceClassification._model_mapping[type(config)]
    return attention.register() if family._supports_sdpa else "eager"


def _set_labels(
    config: Any,
    labels: tuple[str, ...],
    problem_type: ProblemType = "single_label_classification",
) -> Any:
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = problem_type
    return config
