"""Text classifiers from pretrained encoders and LoRA adapters, under a parameter budget.

Names are loaded on first use, so that `import textlora` is quick and loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textlora.classifier import TextClassifier
    from textlora.errors import DataError, ModelError, SettingsError, TextloraError
    from textlora.prediction.predictor import Prediction, Predictor, SetPrediction
    from textlora.runs.loaded_run import load_base_model
    from textlora.settings import Recipe, load_recipe

__version__: str
__all__ = [
    "DataError",
    "ModelError",
    "Prediction",
    "Predictor",
    "Recipe",
    "SetPrediction",
    "SettingsError",
    "TextClassifier",
    "TextloraError",
    "load_base_model",
    "load_recipe",
]
_HOMES = {
    "TextClassifier": "classifier",
    "Predictor": "prediction.predictor",
    "Prediction": "prediction.predictor",
    "SetPrediction": "prediction.predictor",
    "Recipe": "settings",
    "load_base_model": "runs.loaded_run",
    "load_recipe": "settings",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # reading it takes longer than the rest of this file
        return importlib.import_module("importlib.metadata").version("textlora")
    if name not in __all__:
        raise AttributeError(f"module 'textlora' has no attribute {name!r}")
    return getattr(importlib.import_module(f"textlora.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
