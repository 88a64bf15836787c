"""What is wrong with labelled texts, before anything is trained on them.

Each finding says how often, where (file and line), and what to do. It is an error if training would
refuse the data or its score would mean nothing.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ftfy.badness
import numpy as np

from textlora.checking.findings import DataCheck, Finding, Lengths, Severity, SplitFacts
from textlora.data.cleaning import clean_text
from textlora.data.labelled_texts import check_labelled_texts
from textlora.data.multilabel_cells import find_joined
from textlora.data.sources import RawSplit
from textlora.errors import DataError
from textlora.settings import DataSettings

_MAX_EXAMPLES = 3
_SHOWN_CHARS = 70
_TOKEN_SAMPLE = 20_000  # texts whose tokens are counted
_FEW_ROWS = 10  # of a label: what is learned from fewer is luck
_IMBALANCE = 20  # times as many rows in the largest class as in the smallest
_LONG_LABEL = 60  # characters on average: that is a text
_MUCH_CUT = 0.05
_MARKUP = re.compile(r"#\d{2,5};|\b(?:quot|amp|lt|gt|nbsp|apos);|&#?\w+;|</?[a-zA-Z]+[ />]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


CountTokens = Callable[[list[str]], list[int]]


def check_splits(
    source: str,
    parts: dict[str, RawSplit],
    max_length: int,
    count_tokens: CountTokens | None = None,
) -> DataCheck:
    """Look through splits that were read tolerantly; without `count_tokens` lengths are left out.

    Units:   max_length in tokens.
    """
    cleaned = {name: [clean_text(text) for text in part.texts] for name, part in parts.items()}
    facts, findings = [], []
    for name, part in parts.items():
        lengths = (
            None if count_tokens is None else _measure(cleaned[name], count_tokens, max_length)
        )
        counts = Counter(label for labels in part.list_label_sets() for label in labels)
        unlabelled = part.labels.count("") if part.separator else None
        facts.append(
            SplitFacts(name, len(part.texts), dict(counts.most_common()), lengths, unlabelled)
        )
        split = _Split(name, part, cleaned[name])
        findings += [*_check_rows(split), *_check_labels(split, facts[-1]), *_check_texts(split)]
        findings += _check_lengths(facts[-1], max_length)
    findings += _check_between(parts, cleaned)
    order = {"error": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda item: order[item.severity])
    return DataCheck(source, tuple(facts), tuple(findings))


def ask_training(found: DataCheck, settings: DataSettings, parts: dict[str, RawSplit]) -> DataCheck:
    """The check, and what training would still refuse: what only all its settings together tell."""
    if not found.is_usable:
        return found
    try:
        check_labelled_texts(settings, parts)
    except DataError as error:
        refusal = Finding("error", "train", str(error), 1, "training would say the same")
        return replace(found, findings=(refusal, *found.findings))
    return found


def normalize_label(label: str) -> str:
    """What labels have in common that are meant to be one: no case, no spaces between words.

    An underscore, and a dash between letters, are spaces; `-1` and `A-` say something else than
    `1` and `A`, and so does `1 2` than `12`.
    """
    folded = unicodedata.normalize("NFKC", label).casefold()
    spaced = re.sub(r"_+|(?<=[^\W\d_])-+(?=[^\W\d_])", " ", folded)
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", spaced)


def find_variants(labels: Iterable[str]) -> dict[str, str]:
    """Labels that differ from a more common one in case or white space only, and that one."""
    counts = Counter(labels)
    forms: dict[str, list[str]] = defaultdict(list)
    for label, _ in counts.most_common():
        forms[normalize_label(label)].append(label)
    return {form: first for first, *others in forms.values() for form in others}


def has_markup(text: str) -> bool:
    """Whether `data.repair_entities` would change a text."""
    return _MARKUP.search(text) is not None and clean_text(text, repair_entities=True) != text


def is_misread(text: str) -> bool:
    """Whether a text was decoded with the wrong encoding (`â€™` for an apostrophe)."""
    return not text.isascii() and bool(ftfy.badness.is_bad(text))


@dataclass(frozen=True)
class _Split:
    name: str
    part: RawSplit
    texts: list[str]  # cleaned

    def report(
        self, severity: Severity, what: str, places: list[int], advice: str
    ) -> Iterator[Finding]:
        if places:
            shown = tuple(map(self.show, places[:_MAX_EXAMPLES]))
            yield Finding(severity, self.name, what, len(places), advice, shown)

    def show(self, place: int) -> str:
        text = self.texts[place]
        short = text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
        label = self.part.labels[place] or "no label"
        return f"{self.part.files[place]}:{self.part.lines[place]}: [{label}] {short}"

    def select(self, holds: Callable[[str], bool]) -> list[int]:
        return [place for place, text in enumerate(self.texts) if holds(text)]


def _check_rows(split: _Split) -> Iterator[Finding]:
    faults = split.part.faults
    if faults:
        what = "rows that cannot be read"
        yield Finding("error", split.name, what, len(faults), "mend or remove them",
                      tuple(faults[:_MAX_EXAMPLES]))  # fmt: skip
    missing = [place for place, label in enumerate(split.part.labels) if not label]
    if not split.part.separator:  # else an empty set, which is counted and no fault
        advice = "label them or remove them"
        yield from split.report("error", "rows without a label", missing, advice)
    empty = split.select(lambda text: not text)
    yield from split.report("warning", "empty texts", empty, "training leaves them out")
    places: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(split.texts):
        if text:
            places[text].append(place)
    repeated = [found for found in places.values() if len(found) > 1]
    labels = split.part.labels
    agreeing = [p for found in repeated for p in found[1:] if labels[p] == labels[found[0]]]
    advice = "they count twice; --fix keeps the first of each"
    yield from split.report("note", "duplicates with the same label", agreeing, advice)
    unlike = [p for found in repeated if len({labels[p] for p in found}) > 1 for p in found]
    advice = "decide on one label; --fix takes them all out"
    yield from split.report("warning", "equal texts with different labels", unlike, advice)


def _check_labels(split: _Split, facts: SplitFacts) -> Iterator[Finding]:
    sets, counts = split.part.list_label_sets(), facts.labels
    variants = find_variants(label for labels in sets for label in labels)
    places = [place for place, labels in enumerate(sets) if not variants.keys().isdisjoint(labels)]
    listed = ", ".join(f"{form!r} for {first!r}" for form, first in list(variants.items())[:3])
    advice = f"they would be classes of their own ({listed}); --fix unifies them"
    yield from split.report("warning", "labels that differ by case or spaces", places, advice)
    joined, separator = find_joined(counts)
    missing = [] if facts.is_multi_label else ["data.multi_label=true"]
    missing += [f"data.label_separator={separator!r}"] if separator else []
    if joined and missing:
        yield Finding("warning", split.name, "labels that look like several in one", len(joined),
                      f"if they are, set {' and '.join(missing)}",
                      tuple(joined[:_MAX_EXAMPLES]))  # fmt: skip
    unused = [name for name in split.part.order if name not in counts]
    if split.name == "train" and unused and counts:
        yield Finding("warning", "train", "names of labels without a row", len(unused),
                      "nothing is learned about them; names of numbers count from 0",
                      tuple(unused[:_MAX_EXAMPLES]))  # fmt: skip
    if split.name == "train" and counts and _looks_confused(counts, facts.rows):
        yield Finding("error", split.name, "different labels, nearly one for each row", len(counts),
                      "text and label columns may be exchanged; name them with data.text_columns "
                      "and data.label_column", tuple(list(counts)[:_MAX_EXAMPLES]))  # fmt: skip
    elif split.name == "train":
        # As they are meant: what differs by case only is told above.
        meant: Counter[str] = Counter()
        for label, count in counts.items():
            meant[variants.get(label, label)] += count
        yield from _check_counts(dict(meant.most_common()))


def _looks_confused(counts: dict[str, int], rows: int) -> bool:
    if len(counts) <= rows / 2:
        return False
    characters = sum(len(label) * count for label, count in counts.items())
    return len(counts) > 20 or characters / sum(counts.values()) > _LONG_LABEL


def _check_counts(counts: dict[str, int]) -> Iterator[Finding]:
    if len(counts) == 1:
        yield Finding("error", "train", "classes", 1, "a classifier needs at least two",
                      tuple(counts))  # fmt: skip
    single = [label for label, count in counts.items() if count == 1]
    if single:
        yield Finding("error", "train", "labels with one row", len(single),
                      "too few to learn from and to check; add rows or remove the label",
                      tuple(single[:_MAX_EXAMPLES]))  # fmt: skip
    few = [label for label, count in counts.items() if 1 < count < _FEW_ROWS]
    if few:
        yield Finding("warning", "train", f"labels with fewer than {_FEW_ROWS} rows", len(few),
                      "add rows, or join them with others", tuple(few[:_MAX_EXAMPLES]))  # fmt: skip
    if counts and max(counts.values()) > _IMBALANCE * min(counts.values()):
        largest, smallest = next(iter(counts)), list(counts)[-1]
        yield Finding("note", "train", "rows of the largest label to one of the smallest",
                      max(counts.values()) // min(counts.values()),
                      "look at macro F1, and set training.best_metric=f1_macro",
                      (largest, smallest))  # fmt: skip
    if counts and all(label.lstrip("-").isdecimal() for label in counts):
        yield Finding("note", "train", "labels are numbers", len(counts),
                      "say what they mean with data.label_names",
                      tuple(list(counts)[:_MAX_EXAMPLES]))  # fmt: skip


def _check_texts(split: _Split) -> Iterator[Finding]:
    report = split.report
    advice = "save the file as UTF-8 again, or --fix repairs them"
    yield from report("warning", "texts read in a wrong encoding", split.select(is_misread), advice)
    lost = split.select(lambda text: "\ufffd" in text)
    advice = "what stood there is lost; export the texts again"
    yield from report("warning", "texts with replaced characters", lost, advice)
    advice = "set data.repair_entities=true, or --fix repairs them"
    yield from report(
        "note", "texts with broken entities or tags", split.select(has_markup), advice
    )
    control = split.select(lambda text: _CONTROL.search(text) is not None)
    yield from report("note", "texts with control characters", control, "--fix takes them out")
    short = split.select(lambda text: bool(text) and " " not in text)
    severity: Severity = "warning" if len(short) > len(split.texts) / 2 else "note"
    advice = "check that the text column is the right one"
    yield from report(severity, "texts of one word", short, advice)


def _check_lengths(facts: SplitFacts, max_length: int) -> Iterator[Finding]:
    lengths = facts.lengths
    if lengths is not None and lengths.cut_share > 0:
        severity: Severity = "warning" if lengths.cut_share > _MUCH_CUT else "note"
        yield Finding(severity, facts.name, f"texts longer than {max_length} tokens",
                      round(lengths.cut_share * facts.rows),
                      "they are cut there; raise model.max_length if the model allows")  # fmt: skip


def _check_between(parts: dict[str, RawSplit], cleaned: dict[str, list[str]]) -> Iterator[Finding]:
    if "train" not in parts:
        yield Finding("error", "train", "rows to train on", 0, "name a file train.csv")
        return
    known = _list_labels(parts["train"])
    seen = {text.casefold() for text in cleaned["train"] if text}
    for name, part in parts.items():
        if name == "train":
            continue
        split = _Split(name, part, cleaned[name])
        sets = part.list_label_sets()
        unknown = [place for place, labels in enumerate(sets) if not known.issuperset(labels)]
        advice = "no text can get them; correct them, or add such rows to train"
        yield from split.report("error", "labels that train does not have", unknown, advice)
        absent = sorted(known - _list_labels(part))
        if absent:
            shown = tuple(absent[:_MAX_EXAMPLES])
            yield Finding("note", name, "labels of train without a row here", len(absent),
                          "their score cannot be measured", shown)  # fmt: skip
        leaked = [p for p, text in enumerate(cleaned[name]) if text and text.casefold() in seen]
        advice = "the score is too good with them; take them out of train"
        yield from split.report("warning", "texts that are also in train", leaked, advice)


def _list_labels(part: RawSplit) -> set[str]:
    return {label for labels in part.list_label_sets() for label in labels}


def _measure(texts: list[str], count_tokens: CountTokens, max_length: int) -> Lengths | None:
    if not texts:
        return None
    chosen: Any = texts
    if len(texts) > _TOKEN_SAMPLE:
        places = np.random.default_rng(0).choice(len(texts), _TOKEN_SAMPLE, replace=False)
        chosen = [texts[place] for place in places]
    counts = np.array(count_tokens(chosen))
    return Lengths(
        num_texts=len(counts),
        median=int(np.median(counts)),
        p95=int(np.quantile(counts, 0.95)),
        longest=int(counts.max()),
        cut_share=float((counts > max_length).mean()),
    )
