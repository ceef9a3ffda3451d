"""The command `python -m zoo convert`."""

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
)  # entries of a card that are not extra


def file_summary(action: str, path: str | pathlib.Path, counts: tuple[int, int], size: int) -> str:
    """Formats a line about the tensors, numbers and bytes of a file."""
    tensors, numbers = counts
    return f"{action} {path}: {tensors:,} tensors, {numbers:,} numbers, {size:,} bytes"


def convert_weights(
    name: str, source: str, out: str | pathlib.Path, *, to: str | None = None, force: bool = False
) -> list[str]:
    """Converts weights to our format or to a publisher's.

    Our format has a card, so `load_model` needs no more. No file is written before all tensors are
    accounted for.

    Args:
        name: name of the variant.
        source: weights, as `zoo.load_model` takes them.
        out: the file to write.
        to: None for our format, a publisher ("torchvision", ...) for its names and layouts without
            a card, or "darknet" for a .weights file.
        force: overwrite an existing file.

    Returns:
        Lines about both files.

    Raises:
        FileExistsError: if the file exists and `force` is not set.
    """
    out = pathlib.Path(out)
    if out.exists() and not force:
        raise FileExistsError(f"{out} already exists; use --force to overwrite it")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"expected an output file in an existing folder, got {out}")
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
        checkpoint = loaded.card.get("checkpoint")
        images_seen = checkpoint.get("seen") if isinstance(checkpoint, dict) else 0
        darknet.write_darknet(out, tensors, loaded.model, images_seen=images_seen)
    else:
        tensors = export_tensors(name, tensors, source=to)
        safetensors.write_safetensors(out, tensors, None)
    counts = len(tensors), sum(tensor.size for tensor in tensors.values())
    return [*lines, file_summary("wrote", out, counts, out.stat().st_size)]
