"""Labels that are probably wrong, found by a classifier that has not seen them.

Each text is answered by a linear head on the frozen encoder that was fitted to the other folds
(scikit-learn), and labels that these answers contradict with confidence are listed (Cleanlab).
Equal texts are in one fold, or one would give away the label of the other.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from textlora.data.corrections import DoubtfulLabel
from textlora.data.examples import Examples
from textlora.data.sources import RawSplit
from textlora.errors import DataError, SettingsError
from textlora.model import encoder, encoder_files
from textlora.model.batching import TokenizedTexts, make_batch, tokenize
from textlora.model.logits import compute_by_groups
from textlora.settings import Recipe
from textlora.system import runtime

_FOLDS = 5
_C = 10.0  # of the linear head, on vectors of length 1
_MAX_TOKENS = 4_096  # of a batch, padding included


def find_doubtful_labels(
    raw: RawSplit,
    examples: Examples,
    labels: tuple[str, ...],
    vectors: npt.NDArray[np.float32],
    seed: int = 0,
) -> list[DoubtfulLabel]:
    """The labels to review, the most doubtful first.

    Shapes:  vectors (texts, width); `raw` and `examples` hold the same texts in the same order.
    Raises:  DataError if a label has a single row; SettingsError without Cleanlab.
    Source:  Northcutt et al. 2021 (arXiv 1911.00068): confident learning.
    """
    find_label_issues = _import_cleanlab()
    shares = compute_out_of_fold(examples, labels, vectors, seed)
    label_ids = examples.label_ids
    present = np.unique(label_ids)  # Cleanlab counts classes from 0 without a gap
    places = find_label_issues(
        np.searchsorted(present, label_ids), shares[:, present],
        return_indices_ranked_by="self_confidence", n_jobs=1,
    )  # fmt: skip
    best = shares.argmax(axis=1)
    return [
        DoubtfulLabel(
            file=raw.files[place],
            line=raw.lines[place],
            text=examples.texts[place],
            label=labels[label_ids[place]],
            suggested=labels[best[place]],
            label_confidence=float(shares[place, label_ids[place]]),
            suggested_confidence=float(shares[place, best[place]]),
        )
        for place in places
        if best[place] != label_ids[place]
    ]


def compute_out_of_fold(
    examples: Examples, labels: tuple[str, ...], vectors: npt.NDArray[np.float32], seed: int = 0
) -> npt.NDArray[np.float64]:
    """Probabilities of each text's labels by a head that was fitted without it.

    Shapes:  vectors (texts, width); returns (texts, labels).
    Raises:  DataError if a label has a single distinct text, or there is one label only.
    """
    groups = {text: number for number, text in enumerate(dict.fromkeys(examples.texts))}
    group_ids = np.array([groups[text] for text in examples.texts])
    distinct = [len(np.unique(group_ids[examples.label_ids == i])) for i in range(len(labels))]
    few = [label for label, count in zip(labels, distinct, strict=True) if count == 1]
    present = sum(count > 0 for count in distinct)
    if few or present < 2:
        what = f"label {few[0]!r} has 1 text" if few else "one label only"
        raise DataError(f"audit: {what}; at least two texts a label and two labels are needed")
    folds = min(_FOLDS, *(count for count in distinct if count))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    shares = np.zeros((len(vectors), len(labels)))
    for fitted, asked in splitter.split(vectors, examples.label_ids, group_ids):
        head = LogisticRegression(C=_C, max_iter=1_000)
        head.fit(vectors[fitted], examples.label_ids[fitted])
        shares[np.ix_(asked, head.classes_)] = head.predict_proba(vectors[asked])
    return shares


def embed_texts(
    texts: tuple[str, ...], recipe: Recipe, check: Callable[[], None] = lambda: None
) -> npt.NDArray[np.float32]:
    """The mean of the encoder's last hidden states over the tokens of a text, of length 1.

    Shapes:  returns (texts, width) float32.
    Raises:  ModelError as `encoder_files.locate_encoder`.
    """
    files = encoder_files.locate_encoder(recipe.model)
    model: Any = encoder.load_encoder(files, ("a", "b")).model
    device = runtime.pick_device()
    body = model.base_model.to(device, runtime.pick_dtype(recipe.training.precision, device)).eval()
    length = encoder.find_max_length(model.config, recipe.model.max_length)
    tokenizer = encoder.load_tokenizer(files.folder, files.name)
    tokens: TokenizedTexts = tokenize(tokenizer, texts, length)

    def compute(group: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        batch = make_batch(tokens, group).to(device)
        # Read at each padded place; what stands behind a text is masked.
        states = body(
            input_ids=batch.token_ids[batch.places], attention_mask=batch.mask.long()
        ).last_hidden_state.float()
        mask = batch.mask[:, :, None]
        means = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return torch.nn.functional.normalize(means, dim=1).cpu().numpy()

    with torch.inference_mode():
        return compute_by_groups(compute, tokens, _MAX_TOKENS, check)


def _import_cleanlab() -> Any:
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise SettingsError(
            "audit: Cleanlab is not installed; pip install 'textlora[audit]'"
        ) from None
    return find_label_issues
