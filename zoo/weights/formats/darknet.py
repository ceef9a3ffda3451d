"""darknet's .weights: a header, then every number of the net in one row, without names or shapes.

The header is three integers, major, minor and revision, and how many images the training saw, in 64
bits from version 0.2 on, 32 before. Files older than versions begin with rate, momentum and decay,
which read as integers are huge: their dense layers lie the other way. Layers come in the net's
order: biases; scales, means and variances where there is a BatchNorm; weights.
"""

import math
import os
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from zoo.weights.names.rename import IDENTITY, Layout

ROW_NAME = "darknet"  # what the one array of a file is called,
TRANSPOSED_ROW_NAME = "darknet transposed"  # and where its dense layers lie the other way
FLOAT_DTYPE = np.dtype("<f4")
VERSION = (0, 2, 0)  # what is written
HEADERS = {struct.pack("<3i", 0, minor, revision) for minor in (1, 2) for revision in range(6)}
HEAD_LAYERS = ("local", "hidden", "cells")  # the layers after the convolutions


class Segment(NamedTuple):
    """An array in the row: its path, its shape there, and its way to ours and back."""

    path: str
    shape: tuple[int, ...]
    change: Layout


def is_darknet(path: str | os.PathLike, head: bytes) -> bool:
    """Whether a file is one: by its ending, or by a version that darknet wrote."""
    return str(path).lower().endswith(".weights") or head[:12] in HEADERS


def read_darknet(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Path of a .weights file to ({"darknet": [N]}, {"checkpoint": {"seen": n}}).

    ValueError where it ends within its header or within a number.

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
    (seen,) = struct.unpack_from("<Q" if long else "<I", head, 12)
    name = TRANSPOSED_ROW_NAME if major > 1000 or minor > 1000 else ROW_NAME
    return {name: np.fromfile(path, FLOAT_DTYPE, offset=start)}, {"checkpoint": {"seen": seen}}


def is_row(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether tensors of a file are darknet's one row of numbers."""
    return len(tensors) == 1 and all(
        name in (ROW_NAME, TRANSPOSED_ROW_NAME) and array.ndim == 1
        for name, array in tensors.items()
    )


def channels_first_order(height: int, width: int, channels: int) -> np.ndarray:
    """`-> [height width channels]`: where in a map of [C, H, W] our [H, W, C] is, both flat."""
    indices = np.arange(channels * height * width).reshape(channels, height, width)
    return np.moveaxis(indices, 0, -1).ravel()


def grid_parts_order(side: int, classes: int, boxes: int) -> np.ndarray:
    """`-> [side side (5 boxes + classes)]`: where in darknet's output each channel of a cell is.

    There all cells' classes come first, then all confidences, then all places.

    >>> grid_parts_order(1, 2, 1).tolist(), grid_parts_order(2, 1, 1)[:6].tolist()
    ([0, 1, 2, 3, 4, 5, 6], [0, 4, 8, 9, 10, 11])
    """
    cells, start, parts = side * side, 0, []
    for channels in (classes, boxes, 4 * boxes):
        parts.append(start + np.arange(cells * channels).reshape(cells, channels))
        start += cells * channels
    return np.concatenate(parts, 1).ravel()


def layer_order(expected: Mapping[str, Any]) -> list[str]:
    """Paths of a model's variables to its layers' names as darknet has them; ValueError if none."""
    names = {path.split("/")[1] for path in expected}
    numbers = {int(found[1]) for name in names if (found := re.fullmatch(r"conv(\d+)", name))}
    layers = [f"conv{n}" for n in sorted(numbers)] + [name for name in HEAD_LAYERS if name in names]
    if set(layers) != names or layers[-1:] != ["cells"]:
        others = ", ".join(sorted(names - set(layers))[:3]) or "no cells"
        raise ValueError(f"darknet's .weights are read and written for YOLOs with a head: {others}")
    return layers


def transpose_layout(*axes: int) -> Layout:
    """The change of an array whose axes stand elsewhere there; `axes` are theirs in our order."""
    back = tuple(int(axis) for axis in np.argsort(axes))
    return Layout(lambda x: x.transpose(axes), lambda x: x.transpose(back))


def dense_layout(rows: np.ndarray, columns: np.ndarray, *, transposed: bool) -> Layout:
    """The change of a kernel [units, inputs] there, [inputs, units] where `transposed`.

    `rows` and `columns` tell where our inputs and units are there.
    """
    where = np.ix_(columns, rows)

    def back(x: np.ndarray) -> np.ndarray:
        theirs = np.empty(x.T.shape, x.dtype)
        theirs[where] = x.T
        return theirs

    return Layout(lambda x: (x.T if transposed else x)[where].T, back)


def list_segments(
    expected: Mapping[str, Any], model: Any, *, transposed: bool = False
) -> list[Segment]:
    """Shapes of a YOLO's variables by path, and itself, to what a file holds, in its order."""
    found: list[Segment] = []
    width, rows = 0, None  # of the map, or the units, that the next layer reads
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
            found += [Segment(path, (width,), IDENTITY) for path in vectors]
            found.append(
                Segment(kernel, (width, channels, high, wide), transpose_layout(2, 3, 1, 0))
            )
        elif layer == "local":
            high, wide, inputs, width = expected[f"{at}/kernel"].shape
            found.append(Segment(f"{at}/bias", (width, high, wide), transpose_layout(1, 2, 0)))
            found.append(
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
            found.append(Segment(f"{at}/bias", (units,), change))
            shape = (inputs, units) if transposed else (units, inputs)
            change = dense_layout(rows, columns, transposed=transposed)
            found.append(Segment(f"{at}/kernel", shape, change))
    return found


def infer_num_classes(numbers: int, expected: Mapping[str, Any], model: Any) -> int:
    """How many numbers a file holds, and a YOLO with its variables' shapes, to the file's classes.

    ValueError where it holds those of no number of classes.
    """
    layer_order(expected)
    whole = sum(math.prod(leaf.shape) for leaf in expected.values())
    inputs, outputs = expected["params/cells/kernel"].shape
    each = (inputs + 1) * (outputs // (5 * model.boxes + model.num_classes))
    more, rest = divmod(numbers - whole, each)
    classes = model.num_classes + more
    if rest or classes < 1:
        raise ValueError(
            f"expected {whole:,} numbers, for {model.num_classes} classes, or {each:,} more or less "
            f"for each class more or less, got {numbers:,}: it is cut short, or another net's"
        )
    return classes


def to_paths(
    row: np.ndarray, expected: Mapping[str, Any], model: Any, *, transposed: bool = False
) -> dict[str, np.ndarray]:
    """A file's row of numbers to arrays by path, of a YOLO whose variables have these shapes."""
    arrays, start = {}, 0
    for place in list_segments(expected, model, transposed=transposed):
        size = math.prod(place.shape)
        arrays[place.path] = place.change.to_flax(row[start : start + size].reshape(place.shape))
        start += size
    return arrays


def write_darknet(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], model: Any, *, images_seen: Any = 0
) -> None:
    """Arrays by path of a YOLO to a .weights file, there whole or not at all.

    `images_seen` is how many images the training saw, 0 for what is no such number. ValueError for a
    model that darknet does not have.

    Source: save_weights_upto of darknet's parser.c.
    """
    held = list_segments(arrays, model)
    images_seen = images_seen if type(images_seen) is int and 0 <= images_seen < 1 << 64 else 0
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(struct.pack("<3iQ", *VERSION, images_seen))
            for place in held:
                theirs = place.change.from_flax(np.asarray(arrays[place.path]))
                np.ascontiguousarray(theirs, FLOAT_DTYPE).tofile(file)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
