"""The safetensors format: a JSON header and raw bytes; nothing is executed.

The safetensors package checks the file's length against the header before it creates arrays, and
refuses overlapping and overflowing entries.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from zoo.files import atomic_write

CARD_KEY = "card"  # metadata key of the card, as JSON


def is_safetensors(head: bytes) -> bool:
    """Returns whether the first bytes are those of a safetensors file: a length and a brace."""
    return head[8:9] == b"{"


def read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads arrays by name and the card, which is empty for files of other programs."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, TypeError, AttributeError) as error:  # the latter two: no such dtype
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is damaged, cut short or foreign: {reason}") from error
    try:
        card = json.loads(metadata.get(CARD_KEY, "{}"))
    except (ValueError, RecursionError):
        card = None
    if type(card) is not dict:
        raise ValueError(f"{path} has a card that is not a JSON object: write it by zoo.save_model")
    return tensors, card


def write_safetensors(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], card: Mapping[str, Any] | None
) -> None:
    """Writes arrays and a card atomically; equal inputs give equal bytes.

    Args:
        path: the file.
        tensors: arrays by name.
        card: the card. None writes the metadata that transformers requires instead.

    Raises:
        OSError: if the file cannot be written.
    """
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    metadata = {"format": "pt"} if card is None else {CARD_KEY: text}
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    try:
        with atomic_write(path) as temporary:
            save_file(arrays, temporary, metadata)
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error
