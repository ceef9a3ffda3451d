"""Vision models as pure functions of (variables, image); see `python -m zoo list`."""

from zoo.fold import fold_batchnorm
from zoo.registry import create_model, list_models, model_card
from zoo.weights import load_model, save_model

__all__ = [
    "create_model",
    "fold_batchnorm",
    "list_models",
    "load_model",
    "model_card",
    "save_model",
]
