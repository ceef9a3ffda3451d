"""Weights to and from files, every tensor accounted for."""

from zoo.weights.model_file import load_model, read_card, read_preprocessing, save_model

__all__ = ["load_model", "read_card", "read_preprocessing", "save_model"]
