"""The safetensors format: a JSON header and plain bytes, nothing in it is ever executed.

The file's length is checked against its header before any array is made, by the safetensors
package, which also refuses overlapping and overflowing entries.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

CARD_KEY = "card"  # the key of the file's metadata that holds ours, as JSON


def is_safetensors(head: bytes) -> bool:
    """The first bytes of a file, to whether it is one: eight of length, then an open brace."""
    return head[8:9] == b"{"


def read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """File to its arrays by name and its card ({} where another program wrote it)."""
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
    """Arrays by name, and a card, to a file that is there whole or not at all.

    Equal arrays and cards give equal bytes. Without a card it is as torch's users write it:
    transformers wants the metadata to say so.
    """
    partial = path.with_name(f".{path.name}.partial")
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    metadata = {"format": "pt"} if card is None else {CARD_KEY: text}
    try:
        save_file(
            {name: np.ascontiguousarray(array) for name, array in tensors.items()},
            partial,
            metadata,
        )
        os.replace(partial, path)
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
