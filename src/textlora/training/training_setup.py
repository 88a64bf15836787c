"""What is trained, ready for the loop: encoder, adapter, float32 masters, tokens.

The frozen weights are cast once to the fastest number format of the hardware.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from torch import Tensor

from textlora.data.labelled_texts import LabelledTexts
from textlora.model import encoder, encoder_files
from textlora.model.adapter_plan import AdapterPlan, plan_adapter
from textlora.model.adapters import attach_adapter
from textlora.model.batching import TokenizedTexts
from textlora.model.encoder_files import EncoderFiles
from textlora.model.engine import Engine
from textlora.model.shapes import read_shapes
from textlora.model.token_cache import tokenize_cached
from textlora.model.tokenizer import check_tokenizer
from textlora.runs.checkpoints import Origin
from textlora.scoring.tasks import Task, find_task
from textlora.settings import Recipe
from textlora.system.runtime import pick_device, pick_dtype, set_seed
from textlora.training.losses import OBJECTIVES, Objective
from textlora.training.master_weights import TrainedWeights


@dataclass(frozen=True)
class TrainingSetup:
    """Everything the loop works on."""

    origin: Origin
    task: Task
    objective: Objective
    labels: tuple[str, ...]
    files: EncoderFiles
    fingerprint: encoder_files.Fingerprint
    tokenizer: Any
    max_length: int
    plan: AdapterPlan
    model: PeftModel
    weights: TrainedWeights
    engine: Engine
    device: torch.device
    train: TokenizedTexts
    train_label_ids: npt.NDArray[np.int64]
    class_weights: Tensor | None
    validation: TokenizedTexts
    validation_label_ids: npt.NDArray[np.int64]

    @property
    def recipe(self) -> Recipe:
        """All settings of the run."""
        return self.origin.recipe


def prepare_training(recipe: Recipe, texts: LabelledTexts) -> TrainingSetup:
    """Load the encoder, attach the adapter, tokenize; every start value follows from the seed.

    Raises:  ModelError or SettingsError if encoder and recipe do not fit.
    """
    device = pick_device()
    files = encoder_files.locate_encoder(recipe.model)
    fingerprint = encoder_files.compute_fingerprint(files.folder)
    tokenizer = encoder.load_tokenizer(files.folder, recipe.model.name)
    set_seed(recipe.training.seed)
    problem_type = recipe.data.problem_type
    loaded = encoder.load_encoder(
        files, texts.labels, recipe.dropout.backbone, recipe.model.head, problem_type
    )
    embeddings: Any = loaded.model.get_input_embeddings()  # type: ignore[operator]
    check_tokenizer(tokenizer, embeddings.num_embeddings, f"model {recipe.model.name!r}")
    max_length = encoder.find_max_length(loaded.model.config, recipe.model.max_length)
    plan = plan_adapter(read_shapes(loaded.model), loaded.new_parameters, recipe.adapter)
    model = attach_adapter(loaded.model, plan, recipe.adapter, recipe.dropout).to(device)
    heads = [module.name for module in plan.modules]
    dtype = pick_dtype(recipe.training.precision, device)
    weights = TrainedWeights(model, dtype, heads, recipe.training)
    objective = OBJECTIVES[problem_type]
    class_weights = objective.compute_weights(
        texts.train.label_ids, len(texts.labels), recipe.training
    )
    return TrainingSetup(
        origin=Origin(recipe, texts.fingerprint, fingerprint.whole),
        task=find_task(recipe.data),
        objective=objective,
        labels=texts.labels,
        files=files,
        fingerprint=fingerprint,
        tokenizer=tokenizer,
        max_length=max_length,
        plan=plan,
        model=model,
        weights=weights,
        engine=Engine(model, tokenizer.pad_token_id),
        device=device,
        train=tokenize_cached(
            tokenizer, texts.train.texts, max_length, f"{texts.fingerprint} train"
        ),
        train_label_ids=texts.train.label_ids,
        class_weights=None if class_weights is None else class_weights.to(device),
        validation=tokenize_cached(
            tokenizer, texts.validation.texts, max_length, f"{texts.fingerprint} validation"
        ),
        validation_label_ids=texts.validation.label_ids,
    )
