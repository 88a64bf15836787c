import math
import sys
from dataclasses import replace

import pytest
from conftest import WORDS

from textlora.cli.explain import show_explanation
from textlora.errors import DataError, SettingsError
from textlora.evaluation.explanation import explain_text
from textlora.prediction.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run)


def log_odds(predictor, text, label):
    share = predictor.predict([text])[0].probabilities[label]
    return math.log(share / (1 - share))


@pytest.mark.parametrize("label", [None, "money", "space", "sport"])
def test_a_weight_is_what_the_label_loses_without_the_word(predictor, label):
    words = ["the", "bank", "rocket", "profit", "week"]
    found = explain_text(predictor, "  the bank rocket\tprofit  week ", label)
    assert found.label == (label or found.prediction.label)
    whole = log_odds(predictor, " ".join(words), found.label)
    for place, item in enumerate(found.words):
        rest = " ".join(words[:place] + words[place + 1 :])
        assert item.word == words[place]
        assert item.weight == pytest.approx(
            whole - log_odds(predictor, rest, found.label), abs=0.02
        )


def test_telling_words_weigh_more_than_filler(predictor):
    found = explain_text(predictor, "the league of a first orbit comet week in rocket planet")
    assert found.prediction.label == "space"
    weights = {item.word: item.weight for item in found.words}
    assert max(weights, key=lambda word: weights[word]) in WORDS["space"]


def test_one_word_can_be_explained(predictor):
    assert len(explain_text(predictor, "rocket").words) == 1


def test_labels_and_words_are_shown_as_they_are(predictor, capfd):
    found = explain_text(predictor, "the rocket [red] :bug: \x1b[2J planet")
    odd = "[/b] [red]x :bug: \x1b]0;title\u202e"
    show_explanation(replace(found, label=odd, prediction=replace(found.prediction, label=odd)))
    out, _ = capfd.readouterr()
    shown = "[/b] [red]x :bug: \\x1b]0;title\\x202e"
    assert out.startswith(f"{shown}, ")
    assert f"for {shown}" in out
    assert "[red] " in out.split("log odds")[1]
    assert "\x1b" not in out


def test_words_behind_the_cut_are_not_passed_over_in_silence(predictor, capfd):
    found = explain_text(predictor, "rocket planet")
    show_explanation(found)
    assert "cut" not in capfd.readouterr().out
    show_explanation(replace(found, prediction=replace(found.prediction, truncated=True)))
    assert "the text was cut: words behind the cut were not read" in capfd.readouterr().out


def test_what_cannot_be_explained_is_refused(predictor, monkeypatch):
    with pytest.raises(DataError, match="text: empty"):
        explain_text(predictor, " \n")
    with pytest.raises(DataError, match="513 words, more than 512"):
        explain_text(predictor, "word " * 513)
    with pytest.raises(SettingsError, match="--label: 'weather' is unknown .* known: money"):
        explain_text(predictor, "rocket", "weather")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(SettingsError, match=r"pip install 'textlora\[explain\]'"):
        explain_text(predictor, "rocket")
