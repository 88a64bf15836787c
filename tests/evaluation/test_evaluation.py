import json

import numpy as np
import pytest
from conftest import make_rows

from textlora.data.examples import Examples
from textlora.errors import ModelError
from textlora.evaluation.baselines import fit_baselines
from textlora.evaluation.evaluation import (
    Background,
    compute_slices,
    evaluate_answers,
    read_evaluations,
    write_evaluations,
)
from textlora.evaluation.stored_predictions import (
    answer_examples,
    list_answers,
    read_answers,
    write_answers,
)
from textlora.prediction.predictor import Predictor


def make_examples(labels, count=60, seed=2, **slices):
    rows = make_rows(count, seed=seed)
    label_ids = np.array([labels.index(label) for _, label in rows])
    return Examples(tuple(text for text, _ in rows), label_ids, slices)


@pytest.fixture(scope="module")
def answers(tiny_run):
    predictor = Predictor.load(tiny_run)
    days = tuple("even" if place % 2 else "odd" for place in range(60))
    return answer_examples(predictor, make_examples(predictor.labels, day=days))


@pytest.fixture(scope="module")
def evaluation(answers):
    train = make_examples(answers.labels, 240, seed=1)
    background = Background(baselines=fit_baselines(train), parts={"train": train})
    return evaluate_answers(answers, split="test", source="rows", background=background)


def test_what_is_written_is_what_is_read(evaluation, tmp_path):
    write_evaluations(tmp_path, [evaluation, evaluation])
    assert read_evaluations(tmp_path) == [evaluation, evaluation]


@pytest.mark.parametrize("content", ["", "{}", '{"evaluations": [{}]}', '{"evaluations": [7]}'])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ModelError, match=r"evaluation\.json: missing or damaged"):
        read_evaluations(tmp_path)


def test_the_run_stores_validation_and_test_and_says_which_was_used(tiny_run):
    validation, test = read_evaluations(tiny_run)
    assert (validation.split, test.split) == ("validation", "test")
    assert validation.chose_checkpoint
    assert not test.chose_checkpoint
    assert test.scores.num_texts == 60


def test_validation_in_training_and_after_reload_agree(tiny_run):
    history = [json.loads(line) for line in (tiny_run / "history.jsonl").read_text().splitlines()]
    best = max(r["validation"]["accuracy"] for r in history if r["validation"])
    stored = read_evaluations(tiny_run)[0].scores
    # Merged weights are rounded to bfloat16 anew: a text on the border may change sides.
    assert abs(stored.accuracy - best) <= 1.5 / stored.num_texts


def test_every_slice_counts_each_text_once_and_means_agree(answers):
    slices = compute_slices(answers)
    for column in ("words", "day"):
        inside = [item for item in slices if item.column == column]
        assert sum(item.num_texts for item in inside) == 60
        correct = sum(item.accuracy * item.num_texts for item in inside)
        assert correct == pytest.approx(answers.right.sum())
    assert {item.value for item in slices if item.column == "day"} == {"odd", "even"}


def test_rare_values_of_a_column_are_counted_together(answers):
    numbers = tuple(f"row {place // 2}" for place in range(60))
    examples = Examples(answers.examples.texts, answers.examples.label_ids, {"row": numbers})
    inside = [
        item
        for item in compute_slices(type(answers)(examples, *list(vars(answers).values())[1:]))
        if item.column == "row"
    ]
    assert len(inside) == 21
    assert inside[-1].value == "(10 others)"
    assert inside[-1].num_texts == 20


def test_baselines_answer_the_same_texts(evaluation):
    majority, linear = evaluation.baselines
    assert majority.accuracy == pytest.approx(1 / 3)
    assert linear.accuracy > 0.9
    assert majority.verdict.startswith("better by ")
    assert majority.comparison.num_texts == evaluation.scores.num_texts


def test_answers_are_stored_in_order_and_come_back(answers, tmp_path):
    write_answers(tmp_path, "test", answers)
    assert read_answers(tmp_path, "test") == list_answers(answers)
    stored = read_answers(tmp_path, "test")
    assert tuple(item.text for item in stored) == answers.examples.texts
    right = [item.label == item.predicted for item in stored]
    assert right == answers.right.tolist()


def test_damaged_answers_are_refused(tmp_path):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "test.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ModelError, match=r"test\.jsonl: missing or damaged"):
        read_answers(tmp_path, "test")
