"""Weights of any readable kind to a safetensors file: ours, or named as a publisher names them."""

import pathlib

import numpy as np

from zoo.weights import save_model
from zoo.weights.adapt import unflatten_variables
from zoo.weights.formats import darknet, safetensors
from zoo.weights.model_file import find_file, loaded_preprocessing, open_model
from zoo.weights.publishers import export_tensors

FLAX_ZOO = (
    "name",
    "fields",
    "input",
    "preprocessing",
    "checkpoint",
)  # of a card; not what is extra


def file_summary(action: str, path: str | pathlib.Path, counts: tuple[int, int], size: int) -> str:
    """A line on a file of so many tensors, numbers and bytes."""
    tensors, numbers = counts
    return f"{action} {path}: {tensors:,} tensors, {numbers:,} numbers, {size:,} bytes"


def convert_weights(
    name: str, source: str, out: str | pathlib.Path, *, to: str | None = None, force: bool = False
) -> list[str]:
    """Loads a variant from what load_model takes and writes it to `out` -> lines on both files.

    Ours has a card, which load_model needs no more than; `to` "torchvision" say, its publisher's
    names and layout and no card, "darknet" a .weights file. A file that is there is left unless
    `force`: FileExistsError. No file is begun before all tensors are accounted for.
    """
    out = pathlib.Path(out)
    if out.exists() and not force:
        raise FileExistsError(f"{out} is there already: --force writes over it")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{out} is no place for a file: expected one in a folder there is")
    loaded = open_model(name, source)
    lines = [
        file_summary("read", source, loaded.tensor_counts, find_file(source, name).stat().st_size)
    ]
    tensors = {path: np.asarray(value) for path, value in loaded.variables.items()}
    if to is None:
        extra = {key: value for key, value in loaded.card.items() if key not in FLAX_ZOO}
        extra["preprocessing"] = loaded_preprocessing(loaded, source)
        save_model(loaded.name, out, loaded.model, unflatten_variables(tensors), extra=extra)
    elif to == "darknet":
        beside = loaded.card.get("checkpoint")
        seen = beside.get("seen") if isinstance(beside, dict) else 0
        darknet.write_darknet(out, tensors, loaded.model, images_seen=seen)
    else:
        tensors = export_tensors(name, tensors, source=to)
        safetensors.write_safetensors(out, tensors, None)
    counts = len(tensors), sum(tensor.size for tensor in tensors.values())
    return [*lines, file_summary("wrote", out, counts, out.stat().st_size)]
