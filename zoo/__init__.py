"""Vision models as pure functions of (variables, images); see `python -m zoo list`."""

from zoo.registry import create_model, list_models, model_card

__all__ = ["create_model", "list_models", "model_card"]
