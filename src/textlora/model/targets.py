"""The setting `adapter.targets`: layers and terms as a recipe names them -> layer by layer."""

import re

from textlora.errors import SettingsError
from textlora.settings import Matrix

_NUMBER = r"\d{1,9}"
_PART = rf"{_NUMBER}(-{_NUMBER})?"


def expand_targets(targets: dict[str, tuple[Matrix, ...]], num_layers: int) -> set[tuple[int, str]]:
    """Every (layer, term) that the targets name; `ffn` stands for `ffn_in` and `ffn_out`.

    Raises:  SettingsError for layers that are not understood or not there, or if none is named.
    """
    wanted: set[tuple[int, str]] = set()
    for selector, terms in targets.items():
        for layer in _parse_layers(selector, num_layers, targets):
            wanted.update((layer, part) for term in terms for part in _expand(term))
    if not wanted:
        raise SettingsError("adapter.targets: names no matrix; name at least one, such as query")
    return wanted


def _expand(term: Matrix) -> tuple[str, ...]:
    return ("ffn_in", "ffn_out") if term == "ffn" else (term,)


def _parse_layers(
    selector: str, num_layers: int, targets: dict[str, tuple[Matrix, ...]]
) -> list[int]:
    """Layer numbers of "all", "last 4", "3", "2-5" or "0,5,10"."""
    if selector == "all":
        return list(range(num_layers))
    if match := re.fullmatch(rf"last ({_NUMBER})", selector):
        bounds = [(num_layers - int(match[1]), num_layers - 1)]
    elif re.fullmatch(rf"{_PART}(,{_PART})*", selector.replace(" ", "")):
        parts = [part.split("-") for part in selector.replace(" ", "").split(",")]
        bounds = [(int(part[0]), int(part[-1])) for part in parts]
    else:
        raise SettingsError(
            f"adapter.targets: layers {selector!r} not understood; "
            'write "all", "last 4", "0", "2-5" or "0,5,10"'
        )
    for first, last in bounds:
        outside = [layer for layer in (first, last) if not 0 <= layer < num_layers]
        if outside:
            raise SettingsError(
                f"adapter.targets: layer {outside[0]} does not exist; "
                f"this model has {num_layers} layers, 0 to {num_layers - 1}"
                f"{_suggest(targets, num_layers)}"
            )
        if first > last:
            raise SettingsError(
                f"adapter.targets: layers {selector!r} end before they begin; "
                "write the smaller number first"
            )
    return [layer for first, last in bounds for layer in range(first, last + 1)]


def _suggest(targets: dict[str, tuple[Matrix, ...]], num_layers: int) -> str:
    """The same targets at the same relative depth, as a flag to paste; empty if not numbers."""
    if not all(selector.isdigit() for selector in targets):
        return ""
    deepest = max(11, *(int(selector) for selector in targets))  # 11: written for a 12-layer model
    moved: dict[int, list[str]] = {}
    for selector, terms in targets.items():
        layer = int(int(selector) * (num_layers - 1) / deepest + 0.5)
        moved.setdefault(layer, []).extend(
            term for term in terms if term not in moved.get(layer, [])
        )
    body = ", ".join(
        f"{layer} = [{', '.join(chr(34) + term + chr(34) for term in terms)}]"
        for layer, terms in moved.items()
    )
    return f"; the same depths here are --set 'adapter.targets={{ {body} }}'"
