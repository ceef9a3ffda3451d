"""Renaming between other libraries' tensor names and our paths, by tables of rows.

A row is (their name, our path, layout) and describes a layer, or with layout "tensor" one array.
`{block}` is a number that both sides share, and `{block+1}` the same number counted from one.
`name[0/3]` is the first of three equal parts of a tensor along its first axis, in their layout: a
fused query-key-value on one side is three layers on the other. A path of None drops the tensor. If
several rows match a name the first one is used, so later rows can list older names.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Row = tuple[str, str | None, "str | dict"]
Table = Sequence[Row]


class Layout(NamedTuple):
    """Conversion of a tensor to our layout and back; raises ValueError for another rank."""

    to_flax: Callable[[np.ndarray], np.ndarray]
    from_flax: Callable[[np.ndarray], np.ndarray]


def flip_spatial(x: np.ndarray) -> np.ndarray:
    """Reverses every spatial axis of a kernel [*sides, I, O]."""
    return np.flip(x, tuple(range(x.ndim - 2)))


IDENTITY = Layout(lambda x: x, lambda x: x)
# [O, I, *sides] and [*sides, I, O], for any number of sides (none for a dense layer)
CONV = Layout(
    lambda x: np.moveaxis(x, (0, 1), (-1, -2)), lambda x: np.moveaxis(x, (-1, -2), (0, 1))
)
# [I, O, *sides]: torch's is the gradient of a convolution, so its kernel mirrors flax's
CONV_TRANSPOSE = Layout(
    lambda x: flip_spatial(np.moveaxis(x, (0, 1), (-2, -1))),
    lambda x: np.moveaxis(flip_spatial(x), (-2, -1), (0, 1)),
)
BIAS = {"bias": ("params/{}/bias", IDENTITY)}

# Their tensor names of each kind of layer, our paths, and the layouts.
LAYOUTS = {
    "conv": {"weight": ("params/{}/kernel", CONV), **BIAS},
    "conv_transpose": {"weight": ("params/{}/kernel", CONV_TRANSPOSE), **BIAS},
    "dense": {"weight": ("params/{}/kernel", CONV), **BIAS},
    "norm": {
        "weight": ("params/{}/scale", IDENTITY),
        **BIAS,
        "running_mean": ("batch_stats/{}/mean", IDENTITY),
        "running_var": ("batch_stats/{}/var", IDENTITY),
        "num_batches_tracked": (None, IDENTITY),
    },
    "frozen": {
        "weight": ("batch_stats/{}/scale", IDENTITY),
        "bias": ("batch_stats/{}/bias", IDENTITY),
        "running_mean": ("batch_stats/{}/mean", IDENTITY),
        "running_var": ("batch_stats/{}/var", IDENTITY),
        "num_batches_tracked": (None, IDENTITY),
    },
    "tensor": {"": ("params/{}", IDENTITY)},
}


def flattened_conv_layout(*sides: int) -> dict:
    """Returns the layout of a dense layer that is a convolution over the complete map there.

    Args:
        *sides: sides of the map.

    Returns:
        Layouts by tensor name.

    >>> to_flax, _ = flattened_conv_layout(1, 2)["weight"][1]
    >>> to_flax(np.array([[[[0, 1]], [[10, 11]]]])).ravel().tolist()
    [0, 10, 1, 11]
    """
    change = Layout(
        lambda x: CONV.to_flax(x).reshape(-1, len(x)),
        lambda x: CONV.from_flax(x.reshape(*sides, -1, x.shape[-1])),
    )
    return {"weight": ("params/{}/kernel", change), **BIAS}


def flattened_layout(*sides: int) -> dict:
    """Returns the layout of a dense layer on a flattened map: C, H, W in torch, H, W, C here.

    VGG's first dense layer has `flattened_layout(7, 7)`.

    Args:
        *sides: sides of the map.

    Returns:
        Layouts by tensor name.

    >>> to_flax, _ = flattened_layout(1, 2)["weight"][1]
    >>> to_flax(np.array([[0, 1, 10, 11]])).ravel().tolist()  # two channels of a 1 x 2 map
    [0, 10, 1, 11]
    """
    to_flax, from_flax = flattened_conv_layout(*sides)["weight"][1]
    change = Layout(
        lambda x: to_flax(x.reshape(len(x), -1, *sides)),
        lambda x: from_flax(x).reshape(x.shape[-1], -1),
    )
    return {"weight": ("params/{}/kernel", change), **BIAS}


class Template(NamedTuple):
    """One side of a row: its text, its pattern, and which part of how many it is."""

    text: str
    pattern: re.Pattern
    part: int
    parts: int


class Entry(NamedTuple):
    """A row for a single tensor."""

    theirs: Template
    ours: Template | None
    change: Layout


FIELD_PATTERN = re.compile(r"\{(\w+)([+-]\d+)?\}")
PART_PATTERN = re.compile(r"\[(\d+)/(\d+)\]")


@functools.cache
def parse_template(text: str) -> Template:
    """Parses a name like "layer{s}.conv[0/3].weight"."""
    match = PART_PATTERN.search(text)
    text = PART_PATTERN.sub("", text)
    pieces, end = [], 0
    for field in FIELD_PATTERN.finditer(text):
        pieces += [re.escape(text[end : field.start()]), rf"(?P<{field[1]}>\d+)"]
        end = field.end()
    pattern = re.compile("".join(pieces) + re.escape(text[end:]))
    return Template(text, pattern, *(map(int, match.groups()) if match else (0, 1)))


def read_name(side: Template, name: str) -> dict[str, int] | None:
    """Returns the numbers in a name, or None if the name does not match."""
    match = side.pattern.fullmatch(name)
    if match is None:
        return None
    shifts = {field[1]: int(field[2] or 0) for field in FIELD_PATTERN.finditer(side.text)}
    numbers = {key: int(value) - shifts[key] for key, value in match.groupdict().items()}
    return numbers if min(numbers.values(), default=0) >= 0 else None


def write_name(side: Template, numbers: Mapping[str, int]) -> str:
    """Inserts numbers into a name."""
    return FIELD_PATTERN.sub(lambda field: str(numbers[field[1]] + int(field[2] or 0)), side.text)


def expand_table(table: Table) -> Iterator[Entry]:
    """Expands rows for layers to rows for their tensors."""
    for their_name, our_path, layout in table:
        layers = LAYOUTS[layout] if isinstance(layout, str) else layout
        for leaf, (path, change) in layers.items():
            their_tensor = parse_template(f"{their_name}.{leaf}" if leaf else their_name)
            our_name = (
                None if our_path is None or path is None else parse_template(path.format(our_path))
            )
            yield Entry(their_tensor, our_name, change)


class SplitTensor(NamedTuple):
    """A tensor, or a part of one, in their layout."""

    origin: str
    value: np.ndarray
    change: Layout
    parts: int


def split(
    arrays: Mapping[str, np.ndarray], table: Table, *, inverse: bool
) -> tuple[dict[str, dict[int, SplitTensor]], list[str]]:
    """Splits arrays by the table's rows; also returns the names without a row.

    Args:
        arrays: arrays by name.
        table: the rows.
        inverse: convert from our paths to their names.

    Returns:
        Parts by new name and index, and the unused names.
    """
    rows = list(expand_table(table))
    pieces, unused = {}, []
    for name, value in arrays.items():
        matched_parts = set()  # parts of it that have found a row: the first one that fits
        for origin, ours, change in rows:
            source, target = (ours, origin) if inverse else (origin, ours)
            numbers = None if source is None else read_name(source, name)
            if source is None or numbers is None or source.part in matched_parts:
                continue
            matched_parts.add(source.part)
            if target is not None:
                index = change.from_flax(value) if inverse else value
                index = (
                    np.array_split(index, source.parts)[source.part] if source.parts > 1 else index
                )
                piece = SplitTensor(name, index, change, target.parts)
                pieces.setdefault(write_name(target, numbers), {})[target.part] = piece
            if len(matched_parts) == source.parts:
                break
        if not matched_parts:
            unused.append(name)
    return pieces, unused


def merge(
    pieces: Mapping[str, Mapping[int, SplitTensor]], unused: list[str]
) -> Iterator[tuple[str, np.ndarray, Layout]]:
    """Merges the parts of tensors; incomplete ones are added to `unused`."""
    for name, parts in pieces.items():
        values = [parts[part].value for part in sorted(parts)]
        first = next(iter(parts.values()))
        if len(parts) < first.parts:
            unused += [piece.origin for piece in parts.values()]
        else:
            yield name, np.concatenate(values) if len(values) > 1 else values[0], first.change


def to_paths(
    tensors: Mapping[str, np.ndarray], table: Table
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Renames tensors to paths.

    A tensor whose rank does not fit its layout keeps its shape, and `load_model` reports it as
    misshapen.

    Args:
        tensors: tensors by their names.
        table: the rows.

    Returns:
        Arrays by path, and the names without a row.

    Source: Layouts of torch.nn's Conv2d, Linear, BatchNorm2d and ConvTranspose2d, and of flax.

    >>> table = [("blocks.{n}.fc", "block{n+1}/dense", "dense"), ("norm", "norm", "norm")]
    >>> paths, unused = to_paths({"blocks.0.fc.weight": np.zeros((5, 3)), "a": np.zeros(1)}, table)
    >>> {path: array.shape for path, array in paths.items()}, unused
    ({'params/block1/dense/kernel': (3, 5)}, ['a'])
    """
    pieces, unused = split(tensors, table, inverse=False)
    paths = {}
    for path, value, change in merge(pieces, unused):
        try:
            paths[path] = change.to_flax(value)
        except ValueError:
            paths[path] = value
    return paths, unused


def to_names(
    paths: Mapping[str, np.ndarray], table: Table
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Renames arrays by path to their names: the inverse of `to_paths`.

    Counters of their library (num_batches_tracked) are not created.

    Args:
        paths: arrays by path.
        table: the rows.

    Returns:
        Tensors by name, and the paths without a name.

    >>> table = [("fc", "head", "dense")]
    >>> tensors, unused = to_names({"params/head/kernel": np.zeros((3, 5))}, table)
    >>> tensors["fc.weight"].shape, unused
    ((5, 3), [])
    """
    pieces, unused = split(paths, table, inverse=True)
    return {name: value for name, value, _ in merge(pieces, unused)}, unused


def choose_table(
    tensors: Mapping[str, np.ndarray], tables: Sequence[Table], *, expected: Collection[str]
) -> Table:
    """Returns the table that maps most tensors to expected paths; the first one of a tie."""

    def count_matches(table: Table) -> int:
        pieces, unused = split(tensors, table, inverse=False)
        return len(pieces.keys() & set(expected)) - len(unused)

    return max(tables, key=count_matches)
