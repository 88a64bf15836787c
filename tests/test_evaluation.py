import json

import numpy as np
import pytest
from conftest import make_rows

from textlora.data import Examples
from textlora.errors import ModelError
from textlora.evaluation import evaluate_examples, read_evaluations, write_evaluations
from textlora.predictor import Predictor


@pytest.fixture(scope="module")
def evaluation(tiny_run):
    predictor = Predictor.load(tiny_run)
    rows = make_rows(60, seed=2)
    label_ids = np.array([predictor.labels.index(label) for _, label in rows])
    examples = Examples(tuple(text for text, _ in rows), label_ids)
    return evaluate_examples(predictor, examples, split="test", source="rows")


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
