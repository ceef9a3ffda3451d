"""darknet's .weights format: a header and all numbers of the network in one array.

The header has three integers (major, minor, revision) and the number of images seen in training, in
64 bits from version 0.2 on and 32 bits before. Older files without a version start with rate,
momentum and decay, which are huge when read as integers; their dense layers are transposed. Layers
follow in the order of the network: biases; scales, means and variances if there is a BatchNorm;
weights.
"""

import math
import os
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from zoo.files import atomic_write
from zoo.weights.names.rename import IDENTITY, Layout

ROW_NAME = "darknet"  # name of the single array of a file,
TRANSPOSED_ROW_NAME = "darknet transposed"  # and if its dense layers are transposed
FLOAT_DTYPE = np.dtype("<f4")
VERSION = (0, 2, 0)  # version that is written
HEADERS = {struct.pack("<3i", 0, minor, revision) for minor in (1, 2) for revision in range(6)}
HEAD_LAYERS = ("local", "hidden", "cells")  # the layers after the convolutions


class Segment(NamedTuple):
    """An array in the file: its path, its shape there, and its layout."""

    path: str
    shape: tuple[int, ...]
    change: Layout


def is_darknet(path: str | os.PathLike, head: bytes) -> bool:
    """Returns whether a file is darknet's, by its suffix or version."""
    return str(path).lower().endswith(".weights") or head[:12] in HEADERS


def read_darknet(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a .weights file.

    Args:
        path: the file.

    Returns:
        `{"darknet": [N]}` and `{"checkpoint": {"seen": n}}`.

    Raises:
        ValueError: if the file ends within its header or within a number.

    Source: load_weights_upto of darknet's parser.c.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "net.weights")
    >>> _ = path.write_bytes(struct.pack("<3iQ2f", 0, 2, 0, 64, 1.0, 2.0))
    >>> read_darknet(path)[0]["darknet"].tolist(), read_darknet(path)[1]["checkpoint"]["seen"]
    ([1.0, 2.0], 64)
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(20)
    if len(head) < 16:
        raise ValueError(f"{path} is cut short: darknet's header has 16 bytes or more, got {size}")
    major, minor = struct.unpack_from("<2i", head)
    long = major * 10 + minor >= 2 and major < 1000 and minor < 1000
    start = 20 if long else 16
    if size < start or (size - start) % FLOAT_DTYPE.itemsize:
        raise ValueError(
            f"{path} is cut short or foreign: {size:,} bytes are no header of {start} and numbers "
            f"of {FLOAT_DTYPE.itemsize}"
        )
    (images_seen,) = struct.unpack_from("<Q" if long else "<I", head, 12)
    name = TRANSPOSED_ROW_NAME if major > 1000 or minor > 1000 else ROW_NAME
    return {name: np.fromfile(path, FLOAT_DTYPE, offset=start)}, {
        "checkpoint": {"seen": images_seen}
    }


def is_row(tensors: Mapping[str, np.ndarray]) -> bool:
    """Returns whether the tensors are darknet's single array."""
    return len(tensors) == 1 and all(
        name in (ROW_NAME, TRANSPOSED_ROW_NAME) and array.ndim == 1
        for name, array in tensors.items()
    )


def channels_first_order(height: int, width: int, channels: int) -> np.ndarray:
    """Returns the index in a flat [C, H, W] map of each element of a flat [H, W, C] map."""
    indices = np.arange(channels * height * width).reshape(channels, height, width)
    return np.moveaxis(indices, 0, -1).ravel()


def grid_parts_order(side: int, classes: int, boxes: int) -> np.ndarray:
    """Returns the index in darknet's output of each channel of a cell.

    darknet stores all classes first, then all confidences, then all boxes.

    >>> grid_parts_order(1, 2, 1).tolist(), grid_parts_order(2, 1, 1)[:6].tolist()
    ([0, 1, 2, 3, 4, 5, 6], [0, 4, 8, 9, 10, 11])
    """
    cells, start, groups = side * side, 0, []
    for channels in (classes, boxes, 4 * boxes):
        groups.append(start + np.arange(cells * channels).reshape(cells, channels))
        start += cells * channels
    return np.concatenate(groups, 1).ravel()


def layer_order(expected: Mapping[str, Any]) -> list[str]:
    """Returns the layers of a model in darknet's order; raises ValueError if it is not a YOLO."""
    names = {path.split("/")[1] for path in expected}
    numbers = {int(match[1]) for name in names if (match := re.fullmatch(r"conv(\d+)", name))}
    layers = [f"conv{n}" for n in sorted(numbers)] + [name for name in HEAD_LAYERS if name in names]
    if set(layers) != names or layers[-1:] != ["cells"]:
        unknown = ", ".join(sorted(names - set(layers))[:3]) or "no cells"
        raise ValueError(
            f"darknet's .weights are read and written for YOLOs with a head: {unknown}"
        )
    return layers


def transpose_layout(*axes: int) -> Layout:
    """Returns the layout of an array with permuted axes."""
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    return Layout(lambda x: x.transpose(axes), lambda x: x.transpose(inverse))


def dense_layout(rows: np.ndarray, columns: np.ndarray, *, transposed: bool) -> Layout:
    """Returns the layout of a dense kernel with permuted inputs and units."""
    order = np.ix_(columns, rows)

    def from_flax(x: np.ndarray) -> np.ndarray:
        kernel = np.empty(x.T.shape, x.dtype)
        kernel[order] = x.T
        return kernel

    return Layout(lambda x: (x.T if transposed else x)[order].T, from_flax)


def list_segments(
    expected: Mapping[str, Any], model: Any, *, transposed: bool = False
) -> list[Segment]:
    """Lists the arrays of a file in its order.

    Args:
        expected: shapes of the model's variables by path.
        model: the YOLO.
        transposed: the dense layers are transposed.

    Returns:
        The segments.
    """
    segments: list[Segment] = []
    width, rows = 0, None  # channels of the input of the next layer, and its order
    outputs = math.prod(expected["params/cells/bias"].shape)
    side = math.isqrt(outputs // (5 * model.boxes + model.num_classes))
    for layer in layer_order(expected):
        at = f"params/{layer}"
        if layer.startswith("conv"):
            kernel = f"{at}/conv/kernel"
            high, wide, channels, width = expected[kernel].shape
            vectors = [f"{at}/conv/bias"]
            if f"{at}/norm/scale" in expected:
                stats = f"batch_stats/{layer}/norm"
                vectors = [f"{at}/norm/bias", f"{at}/norm/scale", f"{stats}/mean", f"{stats}/var"]
            segments += [Segment(path, (width,), IDENTITY) for path in vectors]
            segments.append(
                Segment(kernel, (width, channels, high, wide), transpose_layout(2, 3, 1, 0))
            )
        elif layer == "local":
            high, wide, inputs, width = expected[f"{at}/kernel"].shape
            segments.append(Segment(f"{at}/bias", (width, high, wide), transpose_layout(1, 2, 0)))
            segments.append(
                Segment(f"{at}/kernel", (high, wide, width, inputs), transpose_layout(0, 1, 3, 2))
            )
        else:
            inputs, units = expected[f"{at}/kernel"].shape
            rows = channels_first_order(side, side, width) if rows is None else np.arange(inputs)
            columns = np.arange(units)
            if layer == "cells":
                columns = grid_parts_order(side, model.num_classes, model.boxes)
            inverse = np.argsort(columns)
            change = Layout(lambda x, c=columns: x[c], lambda x, c=inverse: x[c])
            segments.append(Segment(f"{at}/bias", (units,), change))
            shape = (inputs, units) if transposed else (units, inputs)
            change = dense_layout(rows, columns, transposed=transposed)
            segments.append(Segment(f"{at}/kernel", shape, change))
    return segments


def infer_num_classes(numbers: int, expected: Mapping[str, Any], model: Any) -> int:
    """Infers the number of classes from the number of values in a file.

    Args:
        numbers: number of values.
        expected: shapes of the model's variables by path.
        model: the YOLO.

    Returns:
        Number of classes.

    Raises:
        ValueError: if no number of classes fits.
    """
    layer_order(expected)
    total = sum(math.prod(leaf.shape) for leaf in expected.values())
    inputs, outputs = expected["params/cells/kernel"].shape
    per_class = (inputs + 1) * (outputs // (5 * model.boxes + model.num_classes))
    extra_classes, remainder = divmod(numbers - total, per_class)
    classes = model.num_classes + extra_classes
    if remainder or classes < 1:
        raise ValueError(
            f"expected {total:,} numbers, for {model.num_classes} classes, or {per_class:,} more "
            f"or fewer for each further or missing class, got {numbers:,}; use a complete file"
        )
    return classes


def to_paths(
    row: np.ndarray, expected: Mapping[str, Any], model: Any, *, transposed: bool = False
) -> dict[str, np.ndarray]:
    """Splits the array of a file into arrays by path."""
    arrays, start = {}, 0
    for offset in list_segments(expected, model, transposed=transposed):
        size = math.prod(offset.shape)
        arrays[offset.path] = offset.change.to_flax(row[start : start + size].reshape(offset.shape))
        start += size
    return arrays


def write_darknet(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], model: Any, *, images_seen: Any = 0
) -> None:
    """Writes the variables of a YOLO to a .weights file, atomically.

    Args:
        path: the file.
        arrays: arrays by path.
        model: the YOLO.
        images_seen: number of images seen in training.

    Raises:
        ValueError: if darknet does not have the model.

    Source: save_weights_upto of darknet's parser.c.
    """
    values = list_segments(arrays, model)
    images_seen = images_seen if type(images_seen) is int and 0 <= images_seen < 1 << 64 else 0
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<3iQ", *VERSION, images_seen))
        for segment in values:
            array = segment.change.from_flax(np.asarray(arrays[segment.path]))
            np.ascontiguousarray(array, FLOAT_DTYPE).tofile(file)
