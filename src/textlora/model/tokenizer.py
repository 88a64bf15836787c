"""A tokenizer read from its own file, without transformers, where that gives the same ids.

transformers builds the tokenizers of some families anew, from the vocabulary in tokenizer.json and
the settings beside it, and the rest of the file is not looked at. Only a file that says all that
would be built is read here; for any other transformers is asked.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from textlora.errors import ModelError

_CHUNK_TEXTS = 4096
_FILE, _SETTINGS, _ADDED = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
_NAMES = "special_tokens_map.json"  # of older versions
# The class that transformers has for a family, where the files name none.
CLASSES = {
    **dict.fromkeys(("bert", "distilbert", "electra", "ernie", "megatron-bert"), "BertTokenizer"),
    **dict.fromkeys(
        ("roberta", "roberta-prelayernorm", "data2vec-text", "longformer"), "RobertaTokenizer"
    ),
    "mobilebert": "MobileBertTokenizer",
    "mpnet": "MPNetTokenizer",
}
# These have none of their own: transformers reads tokenizer.json as it is, whatever is named.
AS_IT_IS = {"modernbert", "xlm-roberta-xl"}
_BERT = {"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"}
_ROBERTA = {"RobertaTokenizer", "LongformerTokenizer"}
_READ = {"PreTrainedTokenizer", "TokenizersBackend"}  # transformers' names for "as it is"
_TOKENS = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
_BERT_TOKENS = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}  # fmt: skip
_ROBERTA_TOKENS = {
    "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
    "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
# What tokenizer_config.json may say without changing an id, or is compared with tokenizer.json.
_UNDERSTOOD = {
    "tokenizer_class", "added_tokens_decoder", "do_lower_case", "strip_accents",
    "tokenize_chinese_chars", "add_prefix_space", "trim_offsets",
    "backend", "is_local", "local_files_only", "name_or_path", "special_tokens_map_file",
    "max_length", "model_max_length", "pad_to_multiple_of", "pad_token_type_id", "padding_side",
    "stride", "truncation_side", "truncation_strategy", "model_input_names",
    "clean_up_tokenization_spaces", "do_basic_tokenize", "never_split", "errors",
}  # fmt: skip
_EMPTY = {"additional_special_tokens", "extra_special_tokens", "split_special_tokens"}
_SIDES = {"left", "right"}
# Beyond this size transformers may mend how a text is taken apart.
_MAX_WORDS = 100_000


class FastTokenizer:
    """What tokenizing needs of a tokenizer, under the names that transformers has for it."""

    is_fast = True

    def __init__(self, backend: Tokenizer, pad_token_id: int) -> None:
        self.backend_tokenizer = backend
        self.pad_token_id = pad_token_id

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)


def read_tokenizer(folder: Path, name: str) -> Any:
    """The fast tokenizer in `folder`, with the same ids as `encoder.load_tokenizer`.

    A `FastTokenizer` where the files leave no doubt, else the one of transformers.

    Raises:  ModelError as `encoder.load_tokenizer`.
    """
    try:
        found = _read_plain(folder)
    except Exception:  # tokenizers raises plain Exception; transformers says what is wrong
        found = None
    if found is not None:
        return found
    from textlora.model.encoder import load_tokenizer

    return load_tokenizer(folder, name)


def check_tokenizer(tokenizer: Any, vocabulary: int, where: str) -> None:
    """Refuse a tokenizer with ids that the encoder does not know, of which it has `vocabulary`.

    Raises:  ModelError if there are such.
    """
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{where}: its tokenizer has {len(tokenizer)} tokens, the encoder {vocabulary}; they "
            "do not belong together"
        )


def count_tokens(tokenizer: Any, texts: Sequence[str], longest: int) -> list[int]:
    """Tokens of each text, special ones included, counted up to `longest`."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(longest)
    return [
        len(encoding)
        for start in range(0, len(texts), _CHUNK_TEXTS)
        for encoding in backend.encode_batch_fast(list(texts[start : start + _CHUNK_TEXTS]))
    ]


def _read_plain(folder: Path) -> FastTokenizer | None:
    """The tokenizer, or None where tokenizer.json may not be the whole story."""
    if (folder / _ADDED).exists():
        return None
    settings, model = _read_json(folder / _SETTINGS), _read_json(folder / "config.json")
    if "added_tokens_decoder" not in settings:
        settings |= {key: _find_content(v) for key, v in _read_json(folder / _NAMES).items()}
    kind = _find_class(settings, model)
    if kind is None or not _is_understood(settings):
        return None
    backend = Tokenizer.from_file(str(folder / _FILE))
    defaults = _BERT_TOKENS if kind in _BERT else {} if kind in _READ else _ROBERTA_TOKENS
    if kind == "MPNetTokenizer":
        defaults = {**defaults, "unk_token": "[UNK]"}
    given = {key: _find_content(settings[key]) for key in _TOKENS if key in settings}
    tokens = {**defaults, **given}
    if not _has_tokens(backend, tokens, settings) or not _fits(backend, kind, tokens, settings):
        return None
    pad_token_id = backend.token_to_id(tokens["pad_token"])
    return None if pad_token_id is None else FastTokenizer(backend, pad_token_id)


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return values


def _find_content(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) else token


def _find_class(settings: dict[str, Any], model: dict[str, Any]) -> str | None:
    """Name of the class that transformers would take; None if it is none of those known here."""
    family = model.get("model_type")
    named = settings.get("tokenizer_class") or model.get("tokenizer_class")
    if family in AS_IT_IS:
        return "TokenizersBackend"
    if family is not None and family not in CLASSES:
        return None
    kind = named.removesuffix("Fast") if named else CLASSES.get(family or "")
    return kind if kind in {*_BERT, *_ROBERTA, *_READ, "MPNetTokenizer"} else None


def _is_understood(settings: dict[str, Any]) -> bool:
    """Whether nothing is said beside tokenizer.json that could change an id."""
    if settings.keys() - _UNDERSTOOD - _EMPTY - set(_TOKENS):
        return False
    sides = {settings[key] for key in ("padding_side", "truncation_side") if key in settings}
    return sides <= _SIDES and not any(settings.get(key) for key in _EMPTY)


def _has_tokens(backend: Tokenizer, tokens: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether tokenizer.json has the special tokens, those that are named beside it and no other.

    transformers would add those that it lacks.
    """
    added = backend.get_added_tokens_decoder()
    listed = settings.get("added_tokens_decoder")
    if listed is not None:
        beside = {int(number): AddedToken(**token) for number, token in listed.items()}
        if {number: repr(token) for number, token in beside.items()} != {
            number: repr(token) for number, token in added.items()
        }:
            return False
    contents = {token.content for token in added.values()}
    return all(token in contents for token in tokens.values() if token is not None)


def _fits(backend: Tokenizer, kind: str, tokens: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether the tokenizer is the one that transformers would have."""
    if backend.get_vocab_size() > _MAX_WORDS or backend.post_processor is None:
        return False
    cases = {"do_lower_case", "strip_accents", "tokenize_chinese_chars"} & settings.keys()
    if kind in _READ:
        spaces = {"add_prefix_space", "trim_offsets"} & settings.keys()
        return not spaces and (not cases or _has_cases(backend, settings))
    # A token that is in the vocabulary has the same number, in whatever order tokens are added.
    added = backend.get_added_tokens_decoder()
    if any(backend.model.token_to_id(token.content) != n for n, token in added.items()):
        return False
    if None in tokens.values():
        return False
    if kind in _ROBERTA:
        return not cases and _is_roberta(backend, tokens, settings)
    return _is_bert(backend, kind, tokens) and _has_cases(backend, settings)


def _has_cases(backend: Tokenizer, settings: dict[str, Any]) -> bool:
    wanted = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    return _are_alike(backend.normalizer, wanted)


def _is_bert(backend: Tokenizer, kind: str, tokens: dict[str, Any]) -> bool:
    model: Any = backend.model
    sep, cls = _find_ends(backend, tokens)
    if kind == "MPNetTokenizer":
        processor: Any = processors.RobertaProcessing(sep, cls, True, False)
    else:
        processor = processors.TemplateProcessing(
            single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
            pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
            special_tokens=[cls, sep],
        )
    return (
        type(model).__name__ == "WordPiece"
        and (model.unk_token, model.continuing_subword_prefix) == (tokens["unk_token"], "##")
        and model.max_input_chars_per_word == 100
        and _are_alike(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer())
        and _are_alike(backend.post_processor, processor)
    )


def _is_roberta(backend: Tokenizer, tokens: dict[str, Any], settings: dict[str, Any]) -> bool:
    model: Any = backend.model
    trim, space = settings.get("trim_offsets", True), settings.get("add_prefix_space", False)
    sep, cls = _find_ends(backend, tokens)
    processor = processors.RobertaProcessing(sep, cls, trim, space)
    return (
        type(model).__name__ == "BPE"
        and not (model.dropout or model.unk_token or model.fuse_unk)
        and not (model.byte_fallback or model.ignore_merges)
        and not (model.continuing_subword_prefix or model.end_of_word_suffix)
        and backend.normalizer is None
        and _are_alike(backend.pre_tokenizer, pre_tokenizers.ByteLevel(add_prefix_space=space))
        and _are_alike(backend.post_processor, processor)
    )


def _find_ends(
    backend: Tokenizer, tokens: dict[str, Any]
) -> tuple[tuple[str, int], tuple[str, int]]:
    """What stands behind a text and before it, with their numbers."""
    model: Any = backend.model
    sep, cls = tokens["sep_token"], tokens["cls_token"]
    return (sep, model.token_to_id(sep)), (cls, model.token_to_id(cls))


def _are_alike(found: Any, wanted: Any) -> bool:
    return found is not None and json.loads(found.__getstate__()) == json.loads(
        wanted.__getstate__()
    )
