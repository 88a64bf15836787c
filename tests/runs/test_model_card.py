import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from textlora.runs.model_card import format_card
from textlora.settings import load_recipe


@pytest.mark.parametrize("head", ["own", "mean", "first"])
def test_the_hub_reads_the_card(head):
    recipe = load_recipe("quickstart", [f"model.head={head}"])
    text = format_card("FacebookAI/roberta-base", ("World", "Sports"), recipe, 1.25, ())
    card = ModelCard(text)
    assert card.data.base_model == "FacebookAI/roberta-base"
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-classification"
    assert "- `World`\n- `Sports`\n" in card.text
    assert ("textlora.load_base_model" in card.text) == (head != "own")
    assert "threshold" not in card.text


def test_the_card_of_label_sets_says_how_an_answer_is_made():
    recipe = load_recipe("quickstart", ["data.multi_label=true"])
    card = format_card("an/encoder", ("a", "b"), recipe, 1.5, (0.5, 0.25))
    assert "sigmoid(logit / 1.500000)" in card
    assert "- `a`: 0.500000\n- `b`: 0.250000\n" in card


@pytest.mark.parametrize(
    "label",
    ["<b>sport & co</b>", "__space__", "[x] done", "`code`", "a ``b`` c", "1. one", "a|b"],
)
def test_labels_are_shown_sign_for_sign(label):
    card = format_card("an/encoder", (label, "b"), load_recipe("quickstart"), 1.0, ())
    tokens = MarkdownIt("commonmark").parse(card.split("---\n", 2)[2])
    (item, _) = [token for token in tokens if token.type == "inline"][-2:]
    (code,) = item.children
    assert (code.type, code.content) == ("code_inline", label)
