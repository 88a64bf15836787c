"""Linear heads: one layer over the first token of a text or over the mean of all its tokens.

transformers gives each family a head of its own, often two layers, and often much of what is
trained: 593,668 of the 814,852 parameters of the reference recipe. A linear head for four labels at
width 768 has 3,076.
"""

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from textlora.settings import Head

if TYPE_CHECKING:
    from transformers.modeling_outputs import SequenceClassifierOutput

Pooling = Literal["first", "mean"]
HEAD = "classifier"  # transformers' name for it, which PEFT trains and saves whole


def install_head(model: Any, head: Head) -> None:
    """Put a linear head in the place of the model's own, which "own" leaves as it is.

    Its weights start as transformers starts those of heads: normal with the deviation that the
    model's configuration names, biases zero.
    """
    if head == "own":
        return
    config, encoder = model.config, model.base_model
    for name, child in list(model.named_children()):
        if child is not encoder:
            delattr(model, name)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # a layer of the old head, in all but name
    device = next(encoder.parameters()).device
    linear = nn.Linear(config.hidden_size, config.num_labels, device=device)
    if device.type != "meta":
        nn.init.normal_(linear.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(linear.bias)
    model.classifier = linear
    model.pooling = head
    family = type(model)
    model.__class__ = type(f"LinearHead{family.__name__}", (_LinearHead, family), {})


def find_pooling(model: Any) -> Pooling | None:
    """What a linear head reads; None for a model's own head."""
    return cast("Pooling | None", getattr(model, "pooling", None))


def list_head_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters of a linear head; empty for a model's own."""
    if find_pooling(model) is None:
        return []
    return [f"{HEAD}.{name}" for name, _ in cast("Any", model).classifier.named_parameters()]


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """What the head reads of each text, from padded rows.

    Shapes:  hidden (texts, length, width); mask (texts, length), true for tokens; returns (texts,
    width), for the mean in float32: a bfloat16 sum of a hundred tokens would lose their last bits.
    """
    if pooling == "first":
        return hidden[:, 0]
    kept = hidden.float().masked_fill(~mask[..., None], 0.0)
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True)


class _LinearHead:
    """The forward pass of a model whose head is linear; mixed into the model's own class."""

    base_model: Any
    config: Any
    classifier: nn.Module
    pooling: Pooling

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> "SequenceClassifierOutput":
        """Logits, and with `labels` the loss, as transformers' own classes give them."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        options.pop("return_dict", None)
        hidden = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **options,
        ).last_hidden_state
        mask = torch.ones_like(hidden[..., 0]) if attention_mask is None else attention_mask
        logits = self.classifier(pool(hidden, mask.bool(), self.pooling))
        multi_label = self.config.problem_type == "multi_label_classification"
        measure = binary_cross_entropy_with_logits if multi_label else cross_entropy
        loss = None if labels is None else measure(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
