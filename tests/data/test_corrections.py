import csv

import pytest
from conftest import make_rows, write_csv

from textlora.data.corrections import Correction, DoubtfulLabel, read_corrections, write_review
from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import DataError, TextloraError
from textlora.settings import DataSettings

LABELS = ("money", "space", "sport")
ROWS = list(dict.fromkeys(make_rows(60, seed=3)))
DOUBTFUL = [
    DoubtfulLabel("rows.csv", 2, "a match, \"today\"", "money", "sport", 0.1, 0.9),
    DoubtfulLabel("rows.csv", 3, "a rocket", "sport", "space", 0.3, 0.6),
]  # fmt: skip


def review(path, *decisions, delimiter=",", encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(("text", "label", "suggested", "action"))
        writer.writerows(decisions)
    return path


def load(folder, **settings):
    return load_labelled_texts(DataSettings(source=str(folder), **settings))


def test_nothing_is_decided_until_somebody_decides(tmp_path):
    write_review(tmp_path / "review.csv", DOUBTFUL, accept_above=2.0)
    assert read_corrections(tmp_path / "review.csv", LABELS) == []


def test_sure_suggestions_can_be_accepted(tmp_path):
    path = tmp_path / "review.csv"
    write_review(path, DOUBTFUL, accept_above=0.8)
    expected = Correction(f"{path}:2", 'a match, "today"', "money", "sport")
    assert read_corrections(path, LABELS) == [expected]


def test_a_review_is_never_overwritten(tmp_path):
    write_review(tmp_path / "review.csv", DOUBTFUL, accept_above=2.0)
    with pytest.raises(TextloraError, match="exists already; name another file"):
        write_review(tmp_path / "review.csv", [], accept_above=2.0)


def test_two_decisions_about_one_row_are_refused(tmp_path):
    data = write_csv(tmp_path / "train.csv", ROWS)
    text, label = ROWS[0]
    path = tmp_path / "review.csv"
    review(path, (text, label, "sport", "drop"), (text, label, "sport", "drop"))
    load(data, corrections=str(path))
    for action in ("change", "keep"):
        review(path, (text, label, "sport", "drop"), (text, label, "sport", action))
        with pytest.raises(DataError, match=r"review\.csv:3: decides otherwise about a text"):
            load(data, corrections=str(path))


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig")])
def test_each_action_is_understood_also_as_a_spreadsheet_saves_it(tmp_path, delimiter, encoding):
    path = review(
        tmp_path / "review.csv", ("a", "money", "sport", ""), ("b", "money", "sport", "Keep"),
        ("c", "money", "sport", " change "), ("d", "money", "sport", "DROP"),
        ("e", "money", "sport", "space"), delimiter=delimiter, encoding=encoding,
    )  # fmt: skip
    found = [(item.text, item.new_label) for item in read_corrections(path, LABELS)]
    assert found == [("b", "money"), ("c", "sport"), ("d", None), ("e", "space")]


def test_what_is_no_decision_is_refused_with_its_line(tmp_path):
    path = review(tmp_path / "review.csv", ("a", "money", "sport", "chnage"))
    with pytest.raises(DataError, match=r"review\.csv:2: action 'chnage' is unknown; write keep"):
        read_corrections(path, LABELS)
    with pytest.raises(DataError, match=r"rows\.csv:2: no column 'suggested'"):
        read_corrections(write_csv(tmp_path / "rows.csv", ROWS), LABELS)
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_corrections(tmp_path / "none.csv", LABELS)


def test_only_training_rows_change_and_the_same_rows_stay_held_out(tmp_path):
    source = write_csv(tmp_path / "rows.csv", ROWS)
    plain = load(source)
    held, kept = plain.validation.texts[0], plain.train.texts
    names = [plain.labels[number] for number in plain.train.label_ids]
    other = next(label for label in LABELS if label != names[0])
    held_label = plain.labels[plain.validation.label_ids[0]]
    path = review(
        tmp_path / "review.csv", (kept[0], names[0], other, "change"),
        (kept[1], names[1], other, "drop"), (held, held_label, other, "drop"),
        (plain.validation.texts[1], plain.labels[plain.validation.label_ids[1]], other, "keep"),
        ("has gone since", "nothing", other, "keep"),
    )  # fmt: skip
    found = load(source, corrections=str(path))
    assert found.validation.texts == plain.validation.texts
    assert (found.validation.label_ids == plain.validation.label_ids).all()
    assert found.train.texts == (kept[0], *kept[2:])
    assert found.labels[found.train.label_ids[0]] == other
    assert (found.train.label_ids[1:] == plain.train.label_ids[2:]).all()
    assert found.fingerprint != plain.fingerprint
    assert found.notes[-1] == (
        f"{path}: 1 training labels corrected, 1 rows dropped; 1 corrections are about held-out "
        "rows and change nothing"
    )


def test_a_review_of_other_data_is_refused(tmp_path):
    source = write_csv(tmp_path / "rows.csv", ROWS)
    for text, label in (("never seen", "money"), (ROWS[0][0], "nothing")):
        path = review(tmp_path / "review.csv", (text, label, "sport", "change"))
        with pytest.raises(
            DataError, match=r"review\.csv:2: no row of .* run textlora audit again"
        ):
            load(source, corrections=str(path))
