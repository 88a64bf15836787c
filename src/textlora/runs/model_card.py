"""The model card of an adapter: what it was trained from, and how others open it."""

import re
from collections.abc import Sequence
from importlib.metadata import version

from textlora.settings import Recipe

_READ = {"mean": "mean of all tokens", "first": "first token"}


def format_card(
    encoder: str,
    labels: Sequence[str],
    recipe: Recipe,
    temperature: float,
    thresholds: Sequence[float],
) -> str:
    """README.md of an adapter, with the header that the Hugging Face Hub reads.

    `thresholds` has one for each label of multi-label data, and is empty otherwise.
    """
    pooled, note = recipe.model.head, ""
    if pooled != "own":
        # On transformers' own class it may load without a word, and read something else.
        note = (
            f"\nIts head is one linear layer over the {_READ[pooled]}. transformers' own classes "
            "have another one and would give other answers; open it with\n\n"
            '    PeftModel.from_pretrained(textlora.load_base_model(RUN), f"{RUN}/adapter")\n'
        )
    if recipe.data.multi_label:
        pairs = zip(labels, thresholds, strict=False)
        limits = "\n".join(f"- {_quote(label)}: {threshold:.6f}" for label, threshold in pairs)
        note += (
            '\nA text has a set of labels (`problem_type="multi_label_classification"`): those for '
            f"which sigmoid(logit / {temperature:.6f}) reaches the threshold that was "
            f"chosen on validation:\n\n{limits}\n"
        )
    names = "\n".join(f"- {_quote(label)}" for label in labels)
    return (
        f"---\nbase_model: {encoder}\nlibrary_name: peft\n"
        "pipeline_tag: text-classification\ntags:\n- lora\n- textlora\n---\n\n"
        f"# Text classifier: a LoRA adapter for {encoder}\n\n"
        f"Trained with textlora {version('textlora')}. Labels, in the order of the logits:\n\n"
        f"{names}\n{note}"
    )


def _quote(label: str) -> str:
    """A label as Markdown shows it: sign for sign."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", label)), default=0))
    space = " " if label.startswith("`") or label.endswith("`") else ""
    return f"{fence}{space}{label}{space}{fence}"
