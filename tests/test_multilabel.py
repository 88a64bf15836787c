"""Texts with sets of labels, from a file to a classifier, its figures, its answers and its page."""

import csv
import json
import math
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import FILLER, WORDS, make_setup, tiny_recipe
from sklearn.metrics import f1_score

from textlora import DataError, TextClassifier, load_base_model
from textlora.cli.main import main
from textlora.data.labelled_texts import load_labelled_texts
from textlora.data.tables import read_rows
from textlora.errors import Interrupted, ModelError, SettingsError
from textlora.evaluation.comparison import compare_runs
from textlora.evaluation.evaluation import SetEvaluation, read_evaluations, write_evaluations
from textlora.evaluation.explanation import explain_text
from textlora.evaluation.run_evaluation import evaluate_split, find_confidence
from textlora.evaluation.stored_predictions import read_answers
from textlora.prediction.file_prediction import predict_files
from textlora.prediction.output_columns import FileOptions
from textlora.prediction.predictor import Predictor
from textlora.prediction.shards import merge_shards
from textlora.reporting.report import write_report
from textlora.runs.history import read_history
from textlora.runs.run_folder import read_manifest
from textlora.scoring.thresholds import tune_thresholds
from textlora.settings import DataSettings
from textlora.system.progress import Reporter
from textlora.training.loop import train_steps
from textlora.training.pipeline import fit_run, train_run

QUIET = Reporter(quiet=True)
NAMES = sorted(WORDS)
SETS = "data.multi_label=true"


def make_set_rows(count, seed):
    """Texts with six words of each of their labels, an eighth of them without a label."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        chosen = [name for bit, name in enumerate(NAMES) if (number >> bit) & 1]
        words = [str(word) for word in random.choice(FILLER, 5)]
        words += [str(word) for name in chosen for word in random.choice(WORDS[name], 6)]
        random.shuffle(chosen)
        random.shuffle(words)
        rows.append((" ".join(words), chosen))
    return rows


def write_sets(path, rows, separator=";"):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "labels"])
        writer.writerows([text, separator.join(chosen)] for text, chosen in rows)
    return path


TRAIN, TEST = make_set_rows(240, 1), make_set_rows(64, 2)
TEXTS = [text for text, _ in TEST]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets")
    write_sets(path / "train.csv", TRAIN)
    write_sets(path / "test.csv", TEST)
    return path


@pytest.fixture(scope="module")
def recipe(tiny_bert, folder):
    return tiny_recipe(tiny_bert, folder, SETS, "training.epochs=5", "model.head=mean")


@pytest.fixture(scope="module")
def run(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("runs") / "sets"
    train_run(recipe, load_labelled_texts(recipe.data), path, resume="never", report=QUIET)
    return path


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor.load(run)


@pytest.fixture
def refuse(capfd):
    """Run a command that must fail: its one line of error."""

    def refuse_command(code, *words):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        captured = capfd.readouterr()
        assert (caught.value.code, captured.out) == (code, ""), captured.err
        (line,) = captured.err.strip().splitlines()
        return line

    return refuse_command


def list_true(rows):
    return [";".join(sorted(chosen)) for _, chosen in rows]


# Data


def test_lists_and_texts_in_any_order_are_the_same_data(tmp_path, folder):
    rows = [{"text": text, "labels": sorted(chosen, reverse=True)} for text, chosen in TRAIN]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    (tmp_path / "hub").mkdir()  # a folder of Parquet files is read by `datasets`
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hub" / "train.parquet")
    write_sets(tmp_path / "c.csv", [(text, [*chosen, *chosen]) for text, chosen in TRAIN], " | ")
    sources = {"a.jsonl": ";", "b.parquet": ";", "hub": ";", "c.csv": "|"}
    found = [load_labelled_texts(DataSettings(source=str(folder), multi_label=True))]
    found += [
        load_labelled_texts(
            DataSettings(source=str(tmp_path / name), multi_label=True, label_separator=sign)
        )
        for name, sign in sources.items()
    ]
    assert len({item.fingerprint for item in found}) == 1
    assert found[0].labels == tuple(NAMES)
    matrix = found[0].test.label_ids
    assert [set(np.array(NAMES)[row == 1]) for row in matrix] == [set(c) for _, c in TEST]
    assert (matrix.sum(axis=1) == 0).sum() == 8


def test_an_unknown_label_is_named_with_its_line(tmp_path, folder, run, predictor):
    shutil.copy(folder / "train.csv", tmp_path)
    write_sets(tmp_path / "test.csv", [*TEST[:5], ("a goal", ["sport", "poetry"])])
    settings = DataSettings(source=str(tmp_path), multi_label=True)
    with pytest.raises(DataError, match=r"test\.csv:7: label 'poetry' is unknown to the train"):
        load_labelled_texts(settings)
    alone = settings.model_copy(update={"source": str(tmp_path / "test.csv")})
    with pytest.raises(DataError, match=r"test\.csv:7: label 'poetry' is unknown to the class"):
        evaluate_split(run, predictor, alone, "test")


def test_what_is_no_multi_label_data_says_which_setting_is_missing(tmp_path, refuse):
    (tmp_path / "list.jsonl").write_text('{"text": "a", "labels": ["x", "y"]}\n')
    line = refuse(3, "train", "--data", tmp_path / "list.jsonl", "--out", tmp_path / "run")
    assert "list.jsonl:1: the label is a list" in line
    assert "data.multi_label=true" in line
    rows = [(f"text {i}", chosen) for i, chosen in enumerate(
        [["a", "b"], ["b", "c"], ["a", "c"], ["a", "b", "c"]] * 2 + [["c", "d"]])]  # fmt: skip
    write_sets(tmp_path / "piped.csv", rows, "|")
    line = refuse(3, "train", "--data", tmp_path / "piped.csv", "--out", tmp_path / "run")
    assert "label 'c|d' has 1 example" in line
    assert "data.multi_label=true and data.label_separator='|'" in line


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (["a;b"], r"1: label 'a;b' holds the separator ';'; set data.label_separator"),
        ([["a"]], r"1: labels cannot be read, got \[\['a'\]\]"),
        ({"a": 1}, r"1: labels cannot be read"),
    ],
)
def test_cells_that_are_no_sets_are_refused(tmp_path, cell, message):
    (tmp_path / "bad.jsonl").write_text(json.dumps({"text": "a", "labels": cell}) + "\n")
    with pytest.raises(DataError, match=message):
        load_labelled_texts(DataSettings(source=str(tmp_path / "bad.jsonl"), multi_label=True))


@pytest.mark.parametrize("separator", [";", "|"])
def test_lists_in_the_cells_of_a_table_are_sets(tmp_path, separator):
    rows = [(text, repr(chosen)) for text, chosen in TRAIN[:40]]
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "labels"), *rows])
    settings = DataSettings(
        source=str(tmp_path / "a.csv"), multi_label=True, label_separator=separator
    )
    texts = load_labelled_texts(settings)
    assert texts.labels == tuple(NAMES)
    assert texts.train.label_ids.sum() + texts.validation.label_ids.sum() == 60
    (tmp_path / "b.csv").write_text("text,labels\na,['x' 'y']\n")
    settings = settings.model_copy(update={"source": str(tmp_path / "b.csv")})
    with pytest.raises(DataError, match=r"b.csv:2: labels cannot be read, got \"\['x' 'y'\]\""):
        load_labelled_texts(settings)


def test_a_separator_that_is_not_set_or_not_used_is_told(tmp_path, refuse, capfd):
    write_sets(tmp_path / "piped.csv", TRAIN[:64], "|")
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path / "piped.csv"), "--set", SETS])
    out = capfd.readouterr().out
    assert "labels that look like several in one" in out
    assert "if they are, set data.label_separator='|'" in out
    joined = {"|".join(labels) for _, labels in TRAIN[:64] if len(labels) > 1}
    assert f"labels that look like several in one: {len(joined)};" in out
    line = refuse(2, "train", "--data", tmp_path / "piped.csv", "--out", tmp_path / "run",
                  "--set", 'data.label_separator="|"')  # fmt: skip
    assert "data.label_separator: is for data.multi_label=true; set both or neither" in line
    rows = [(text, repr(chosen)) for text, chosen in TRAIN[:40]]
    write_sets(tmp_path / "lists.csv", [(text, [cell]) for text, cell in rows])
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path / "lists.csv")])
    assert "if they are, set data.multi_label=true\n" in (capfd.readouterr().out)


def test_rows_of_ones_and_zeros_are_not_taken_for_labels(tmp_path):
    rows = [[int(name in chosen) for name in NAMES] for _, chosen in TRAIN[:20]]
    texts = [text for text, _ in TRAIN[:20]]
    lines = [json.dumps({"text": t, "labels": row}) for t, row in zip(texts, rows, strict=True)]
    (tmp_path / "hot.jsonl").write_text("\n".join(lines))
    settings = DataSettings(source=str(tmp_path / "hot.jsonl"), multi_label=True)
    with pytest.raises(DataError, match="rows of ones and zeros, such as .0, 0, 0.; give the na"):
        load_labelled_texts(settings)
    with pytest.raises(DataError, match="rows of ones and zeros given"):
        TextClassifier().fit(texts, rows)


def test_rows_whose_labels_cannot_be_read_are_counted_by_a_check(tmp_path, capfd, tiny_bert):
    good = [{"text": text, "labels": chosen} for text, chosen in TRAIN[:40]]
    bad = [{"text": "a", "labels": [["sport"]]}, {"text": "b", "labels": {"a": 1}}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [*good[:3], *bad, *good[3:]])))
    words = ["check", str(tmp_path / "a.jsonl"), "--model", str(tiny_bert), "--set", SETS]
    with pytest.raises(SystemExit) as caught:
        main([*words, "--json"])
    assert caught.value.code == 3
    (found,) = [item for item in json.loads(capfd.readouterr().out)["findings"]
                if "cannot be read" in item["what"]]  # fmt: skip
    assert found["count"] == 2
    assert "a.jsonl:4: labels cannot be read, got [['sport']]" in found["examples"][0]
    with pytest.raises(SystemExit):
        main([*words, "--fix", str(tmp_path / "fixed")])
    fixed = [row.values["labels"] for row in read_rows(tmp_path / "fixed" / "train.csv")]
    assert fixed == list_true(TRAIN[:40])


def test_data_without_labels_and_reviews_are_refused(tmp_path, folder):
    empty = write_sets(tmp_path / "empty.csv", [(text, []) for text in TEXTS])
    with pytest.raises(DataError, match="no text has a label; check the label column"):
        load_labelled_texts(DataSettings(source=str(empty), multi_label=True))
    settings = DataSettings(source=str(folder), multi_label=True, corrections="review.csv")
    with pytest.raises(SettingsError, match=r"data\.corrections: a review knows one label a text"):
        load_labelled_texts(settings)


def test_check_counts_sets_and_finds_what_is_wrong_in_them(tmp_path, capfd, tiny_bert):
    rows = [*TRAIN[:40], (TRAIN[1][0], [*TRAIN[1][1], "Sport"]), ("a goal by the team", ["sport"])]
    write_sets(tmp_path / "data.csv", rows)
    words = ("check", tmp_path / "data.csv", "--model", tiny_bert, "--set", SETS)
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words), "--fix", str(tmp_path / "fixed")])
    out = capfd.readouterr().out
    assert caught.value.code == 3  # of one label training would say no
    assert "label 'Sport' has 1 example" in out
    assert re.search(r"train: 42 rows, .*; 1\.50 labels a row, 5 rows without", out)
    assert "rows without a label" not in out
    assert "equal texts with different labels: 2" in out
    assert "labels that differ by case or spaces: 1" in out
    fixed = [row.values["labels"] for row in read_rows(tmp_path / "fixed" / "train.csv")]
    assert fixed == [label for i, label in enumerate(list_true(rows)) if i not in (1, 40)]
    with pytest.raises(SystemExit):  # without the setting
        main([*map(str, words[:4])])
    out = capfd.readouterr().out
    assert "labels that look like several in one" in out
    assert "set data.multi_label=true and data.label_separator=';'" in out


# Training


def test_what_was_fitted_on_validation_is_saved(run, predictor):
    record = max(
        (r.validation for r in read_history(run) if r.validation), key=lambda v: v.accuracy
    )
    manifest = read_manifest(run)
    assert manifest.thresholds == record.thresholds == predictor.task.thresholds
    assert manifest.temperature == record.temperature
    assert len(set(manifest.thresholds)) == 3
    card = (run / "adapter" / "README.md").read_text()
    assert "multi_label_classification" in card
    assert all(f"- `{name}`: {t:.6f}" in card
               for name, t in zip(NAMES, manifest.thresholds, strict=True))  # fmt: skip
    # Tuned anew on the saved classifier's own probabilities they are nearly the same.
    texts = load_labelled_texts(predictor.recipe.data).validation
    again = tune_thresholds(texts.label_ids, predictor.predict_proba(texts.texts).values)
    assert np.allclose(again, manifest.thresholds, atol=0.05)  # bfloat16 moves probabilities
    stored = read_evaluations(run)[0]
    assert abs(stored.scores.accuracy - record.accuracy) <= 1.5 / stored.scores.num_texts


def test_transformers_and_peft_get_the_problem_and_its_loss(run):
    model = load_base_model(run)
    assert model.config.problem_type == "multi_label_classification"
    truth = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    found = model(input_ids=torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]]), labels=truth)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(found.logits, truth)
    assert float(found.loss) == float(wanted)


def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(tmp_path, tiny_bert, folder):
    changes = (
        SETS, "data.max_train_rows=100", "training.epochs=1", "training.evaluate_every=4",
        "training.focal_gamma=1", 'training.class_weights="balanced"',
        "training.label_smoothing=0.1",
    )  # fmt: skip
    short = tiny_recipe(tiny_bert, folder, *changes)
    train_steps(make_setup(short), tmp_path / "whole", "auto", QUIET)
    setup = make_setup(short)
    calls = []

    def stop(*_):
        calls.append(None)
        if len(calls) == 8:
            raise Interrupted("enough")

    setup.engine.head.register_forward_pre_hook(stop)
    with pytest.raises(Interrupted):
        train_steps(setup, tmp_path / "stopped", "auto", QUIET)
    again = make_setup(short)
    train_steps(again, tmp_path / "stopped", "auto", QUIET)
    one, two = ((tmp_path / name / "history.jsonl").read_bytes() for name in ("whole", "stopped"))
    assert one == two
    assert json.loads(one.splitlines()[-1])["validation"]["thresholds"]


def test_a_single_label_run_of_an_earlier_version_answers_the_same(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    assert manifest.pop("thresholds") == []
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    history = tmp_path / "old" / "history.jsonl"
    history.write_text(history.read_text().replace(', "thresholds": []', ""))
    old, new = Predictor.load(tmp_path / "old"), Predictor.load(tiny_run)
    assert old.fingerprint == new.fingerprint
    assert old.predict(TEXTS) == new.predict(TEXTS)
    assert read_history(tmp_path / "old") == read_history(tiny_run)


# Answers


def test_it_learns_which_words_mean_which_label(predictor):
    given = [";".join(answer.labels) for answer in predictor.predict(TEXTS)]
    # Guessing one of the eight sets is right for an eighth of the texts.
    assert np.mean([a == b for a, b in zip(given, list_true(TEST), strict=True)]) > 0.4


def test_neighbours_and_a_reload_change_no_set(run, predictor):
    whole = [answer.labels for answer in predictor.predict(TEXTS)]
    again = Predictor.load(run)
    assert [answer.labels for answer in again.predict(TEXTS)] == whole
    assert [predictor.predict([text])[0].labels for text in TEXTS[:20]] == whole[:20]
    assert [answer.labels for answer in predictor.predict(TEXTS[::-1])] == whole[::-1]


def test_a_prediction_says_what_its_probabilities_say(predictor):
    for answer in predictor.predict(TEXTS):
        limits = dict(zip(NAMES, predictor.task.thresholds, strict=True))
        wanted = [name for name in NAMES if answer.probabilities[name] >= limits[name]]
        assert list(answer.labels) == wanted == [NAMES[i] for i in answer.label_ids]
        assert list(answer.confidences) == [answer.probabilities[name] for name in wanted]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_predictions_is_the_predictor_s(predictor, tmp_path, ending):
    source = write_sets(tmp_path / "in.csv", TEST)
    options = FileOptions(probabilities=True)
    predict_files(predictor, [source], tmp_path / f"out{ending}", options)
    rows = [row.values for row in read_rows(tmp_path / f"out{ending}")]
    shares = [f"P({name})" for name in NAMES]
    assert list(rows[0]) == ["ID", "Label", "LabelText", "Confidence", *shares]
    for row, answer in zip(rows, predictor.predict(TEXTS), strict=True):
        assert row["LabelText"] == ";".join(answer.labels)
        assert row["Label"] == ";".join(map(str, answer.label_ids))
        assert row["Confidence"] == ";".join(str(round(s, 6)) for s in answer.confidences)
        for name in NAMES:
            assert float(row[f"P({name})"]) == round(answer.probabilities[name], 6)


def test_shards_join_to_the_bytes_of_the_whole_and_rejects_have_nothing(predictor, tmp_path):
    source = write_sets(tmp_path / "in.csv", [*TEST, ("", [])])
    predict_files(predictor, [source], tmp_path / "whole.csv", FileOptions(chunk_rows=10))
    parts = []
    for number in (1, 2):
        parts.append(tmp_path / f"part-{number}.csv")
        options = FileOptions(chunk_rows=10, shard=(number, 2))
        predict_files(predictor, [source], parts[-1], options)
    merge_shards(parts, tmp_path / "merged.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "merged.csv").read_bytes() == whole
    assert whole.endswith(b"\r\n64,,,\r\n")


def test_least_confidence_holds_for_each_label(predictor, tmp_path):
    source, target = write_sets(tmp_path / "in.csv", TEST), tmp_path / "out.jsonl"
    limit = float(np.median([s for a in predictor.predict(TEXTS) for s in a.confidences]))
    summary = predict_files(predictor, [source], target, FileOptions(min_confidence=limit))
    unsure = 0
    for row, answer in zip(read_rows(target), predictor.predict(TEXTS), strict=True):
        shares = zip(answer.labels, answer.confidences, strict=True)
        kept = [name for name, share in shares if round(share, 6) >= limit]
        assert row.values["LabelText"] == ";".join(kept)
        unsure += len(kept) < len(answer.labels)
    assert summary.unsure == unsure > 0


# Figures


def test_the_evaluation_is_that_of_the_answers_and_comes_back(run, predictor, tmp_path):
    evaluation = read_evaluations(run)[1]
    assert isinstance(evaluation, SetEvaluation)
    truth = np.array([[name in chosen for name in NAMES] for _, chosen in TEST], int)
    shares = predictor.predict_proba(TEXTS).values
    given = (shares >= predictor.task.thresholds).astype(int)
    assert evaluation.scores.accuracy == (truth == given).all(axis=1).mean()
    assert evaluation.scores.macro.f1 == pytest.approx(f1_score(truth, given, average="macro"))
    assert evaluation.scores.micro.f1 == pytest.approx(f1_score(truth, given, average="micro"))
    assert evaluation.f1_intervals.micro.low <= evaluation.scores.micro.f1
    assert [b.name for b in evaluation.baselines] == [
        "most common set of labels",
        "TF-IDF + linear",
    ]
    assert evaluation.baselines[0].accuracy == pytest.approx(1 / 8)
    assert sum(item.num_texts for item in evaluation.slices) == 64
    write_evaluations(tmp_path, [evaluation])
    assert read_evaluations(tmp_path) == [evaluation]
    stored = read_answers(run, "test")
    assert [item.label for item in stored] == list_true(TEST)
    assert [item.predicted == item.label for item in stored] == (truth == given).all(
        axis=1
    ).tolist()
    chosen = np.where(truth == 1, shares, 1 - shares).prod(axis=1)
    assert np.allclose([item.label_probability for item in stored], chosen, atol=1e-6)


def test_a_text_that_training_has_seen_leaks_with_or_without_its_set(tmp_path, run, predictor):
    rows = [TRAIN[7], (TRAIN[6][0], ["sport"]), *TEST[:6]]
    settings = predictor.recipe.data.model_copy(
        update={"source": str(write_sets(tmp_path / "seen.csv", rows))}
    )
    evaluation = evaluate_split(run, predictor, settings, "test").evaluation
    found = [leaks for leaks in evaluation.leaks.values() if leaks.same_label + leaks.other_label]
    assert sum(leaks.same_label for leaks in found) == 1
    assert sum(leaks.other_label for leaks in found) == 1
    names = {item.label: item.train_label for leaks in found for item in leaks.examples}
    assert names["sport"] == ";".join(sorted(TRAIN[6][1]))


def test_the_page_and_the_pictures_have_what_makes_sense_for_sets(run, tmp_path):
    page = write_report([run], "test", tmp_path / "report.html").read_text()
    assert "get exactly their labels" in page
    assert "<h2>Confusion matrix</h2>" not in page
    assert "share of texts answered" not in page
    evaluation = read_evaluations(run)[1]
    for item in evaluation.scores.labels:
        assert f'<th scope="row">{item.label}</th><td>{item.total}</td>' in page
    assert {path.name for path in (run / "visualizations").iterdir()} == {
        "label_scores.png", "prediction_distribution.png", "learning_curves.png",
    }  # fmt: skip


def test_two_runs_are_compared_by_whole_sets_and_labels_by_name(
    run, predictor, tmp_path, tiny_bert, folder
):
    other = tmp_path / "other"
    order = f"data.label_names={json.dumps(NAMES[::-1])}"
    recipe = tiny_recipe(tiny_bert, folder, SETS, order, "training.epochs=1")
    fit_run(recipe, load_labelled_texts(recipe.data), other, resume="never", report=QUIET)
    found = compare_runs(run, other, predictor.recipe.data, "test")
    reverse = Predictor.load(other)
    assert reverse.labels == tuple(NAMES[::-1])
    sets = [set(answer.labels) for answer in reverse.predict(TEXTS)]
    right = np.mean([a == set(c) for a, (_, c) in zip(sets, TEST, strict=True)])
    assert found.second.accuracy == right
    ours = [set(answer.labels) for answer in predictor.predict(TEXTS)]
    assert found.agreement == np.mean([a == b for a, b in zip(ours, sets, strict=True)])
    for row, name in zip(found.classes, NAMES, strict=True):
        counts = (row.both, row.only_first, row.only_second, row.neither)
        assert sum(counts) == sum(name in chosen for _, chosen in TEST)


def test_a_word_weighs_what_its_absence_takes_from_its_label(predictor):
    pytest.importorskip("captum")
    text = "the old team and the big bank"
    for label in ("sport", "money"):
        found = explain_text(predictor, text, label)
        whole, without = predictor.predict([text, "the old and the big bank"])
        one, other = (math.log(s / (1 - s)) for s in (whole.probabilities[label],
                                                      without.probabilities[label]))  # fmt: skip
        assert found.words[2].word == "team"
        assert found.words[2].weight == pytest.approx(one - other, abs=1e-4)
    answer = explain_text(predictor, text)
    assert answer.label == max(answer.prediction.probabilities.items(), key=lambda p: p[1])[0]


# Refusals


def test_a_run_of_the_other_kind_is_refused_in_one_line(run, predictor, tiny_run, refuse, folder):
    with pytest.raises(ModelError, match="one gives a label a text, the other sets of labels"):
        compare_runs(run, tiny_run, predictor.recipe.data, "test")
    line = refuse(2, "evaluate", run, "--set", "data.multi_label=false")
    assert "data.multi_label: is False, and the classifier gives sets of labels" in line
    with pytest.raises(SettingsError, match="--min-precision: .* gives sets of labels"):
        find_confidence(run, 0.9)
    line = refuse(2, "audit", folder, "--set", SETS)
    assert "audit: finds wrong labels where a text has exactly one" in line


# From Python


def test_the_estimator_takes_lists_and_gives_tuples(tiny_bert, tmp_path):
    settings = {
        "training.epochs": 1, "training.batch_size": 8, "training.learning_rate": 0.01,
        "adapter.targets": {"all": ["query", "value", "ffn"]},
    }  # fmt: skip
    numbers = [[NAMES.index(name) for name in chosen] for _, chosen in TRAIN]
    made = TextClassifier(model=str(tiny_bert), settings=settings)
    made.fit([text for text, _ in TRAIN], numbers)
    assert made.classes_.tolist() == [0, 1, 2]
    given = made.predict(TEXTS)
    truth = [tuple(sorted(NAMES.index(name) for name in chosen)) for _, chosen in TEST]
    share = np.mean([a == b for a, b in zip(given, truth, strict=True)])
    assert made.score(TEXTS, truth) == share == made.evaluate(TEXTS, truth).scores.accuracy
    made.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved")
    assert loaded.predict(TEXTS) == given
    with pytest.raises(DataError, match="7 is unknown to the classifier"):
        loaded.evaluate(["a"], [[7]])
    with pytest.raises(DataError, match="needs a list for each text"):
        loaded.score(["a"], [1])
    with pytest.raises(DataError, match="2 texts, 1 labels; give as many"):
        loaded.score(["a", "b"], [[0]])
    column = pd.Series([np.array(row) for row in truth])  # as read_parquet gives one
    assert made.score(TEXTS, column) == share
    table = pd.DataFrame({"text": [text for text, _ in TRAIN], "labels": [*map(np.array, numbers)]})
    assert made.fit(table.text, table.labels).predict(TEXTS) == given


def test_white_space_in_the_name_of_a_label_stays(tiny_bert, tmp_path):
    settings = {"training.epochs": 1, "training.batch_size": 8}
    names = {"sport": "the  sport", "money": "money "}
    sets = [[names.get(name, name) for name in chosen] for _, chosen in TRAIN]
    made = TextClassifier(model=str(tiny_bert), settings=settings)
    made.fit([text for text, _ in TRAIN], sets)
    assert {*made.classes_} == {label for labels in sets for label in labels}
    made.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved")
    assert loaded.classes_.tolist() == made.classes_.tolist()
    assert loaded.score(TEXTS, sets[: len(TEXTS)]) == made.score(TEXTS, sets[: len(TEXTS)])
    with pytest.raises(DataError, match="two are called 'a b', but for spaces"):
        made.fit(["x", "y"], [["a b"], ["a  b"]])


def test_a_label_that_is_missing_in_a_set_is_found_by_its_text():
    with pytest.raises(DataError, match="labels: None at place 3 is no label"):
        TextClassifier().fit(["a", "b", "c", "d"], [["x", "y"], ["x"], ["x", "y"], [None]])


def test_labels_that_are_neither_are_refused():
    with pytest.raises(DataError, match="labels: a matrix given"):
        TextClassifier().fit(["a", "b"], np.eye(2))
    with pytest.raises(DataError, match="labels: 'x' is no list, others are"):
        TextClassifier().fit(["a", "b"], [["x"], "x"])
