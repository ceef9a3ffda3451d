"""From the names and layouts of other libraries to this one's paths, and back, by tables of rows.

A row is (their name, our path, layout) and stands for a layer, or with layout "tensor" for one
array. `{block}` is a number that both sides share, `{block+1}` the same number counted from one.
`name[0/3]` is the first of three equal parts of a tensor along its first axis, in their layout:
a fused query-key-value in one place is three layers in the other. A path of None drops the tensor.
Of several rows that fit a name the first holds, so a second one may tell an older name.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Row = tuple[str, str | None, "str | dict"]
Table = Sequence[Row]


class Layout(NamedTuple):
    """A tensor's way from their layout to ours, and back; a ValueError where its rank is another's."""

    to_flax: Callable[[np.ndarray], np.ndarray]
    from_flax: Callable[[np.ndarray], np.ndarray]


def flip_spatial(x: np.ndarray) -> np.ndarray:
    """`[*sides, I, O]` with every side reversed."""
    return np.flip(x, tuple(range(x.ndim - 2)))


IDENTITY = Layout(lambda x: x, lambda x: x)
# [O, I, *sides] and [*sides, I, O], for any number of sides, none being a dense layer
CONV = Layout(
    lambda x: np.moveaxis(x, (0, 1), (-1, -2)), lambda x: np.moveaxis(x, (-1, -2), (0, 1))
)
# [I, O, *sides]: torch's is the gradient of a convolution, so its kernel is the mirror of flax's
CONV_TRANSPOSE = Layout(
    lambda x: flip_spatial(np.moveaxis(x, (0, 1), (-2, -1))),
    lambda x: np.moveaxis(flip_spatial(x), (-2, -1), (0, 1)),
)
BIAS = {"bias": ("params/{}/bias", IDENTITY)}

# What a layer's tensors are called there, their paths here, and how they change.
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
    """The layout of a dense layer that there is a convolution as large as its map, of these sides.

    >>> there, _ = flattened_conv_layout(1, 2)["weight"][1]
    >>> there(np.array([[[[0, 1]], [[10, 11]]]])).ravel().tolist()
    [0, 10, 1, 11]
    """
    change = Layout(
        lambda x: CONV.to_flax(x).reshape(-1, len(x)),
        lambda x: CONV.from_flax(x.reshape(*sides, -1, x.shape[-1])),
    )
    return {"weight": ("params/{}/kernel", change), **BIAS}


def flattened_layout(*sides: int) -> dict:
    """The layout of a dense layer that reads a map of these sides, flattened: C, H, W in torch, H,
    W, C here. VGG's first has `flattened_layout(7, 7)`.

    >>> there, _ = flattened_layout(1, 2)["weight"][1]
    >>> there(np.array([[0, 1, 10, 11]])).ravel().tolist()  # two channels of a 1 x 2 map
    [0, 10, 1, 11]
    """
    there, back = flattened_conv_layout(*sides)["weight"][1]
    change = Layout(
        lambda x: there(x.reshape(len(x), -1, *sides)), lambda x: back(x).reshape(x.shape[-1], -1)
    )
    return {"weight": ("params/{}/kernel", change), **BIAS}


class Template(NamedTuple):
    """One side of a row: its text, what matches it, and which part of how many it is."""

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
    """`"layer{s}.conv[0/3].weight"`, say, taken apart."""
    part = PART_PATTERN.search(text)
    text = PART_PATTERN.sub("", text)
    pieces, end = [], 0
    for field in FIELD_PATTERN.finditer(text):
        pieces += [re.escape(text[end : field.start()]), rf"(?P<{field[1]}>\d+)"]
        end = field.end()
    pattern = re.compile("".join(pieces) + re.escape(text[end:]))
    return Template(text, pattern, *(map(int, part.groups()) if part else (0, 1)))


def read_name(side: Template, name: str) -> dict[str, int] | None:
    """The numbers in a name, counted as the row counts them; None if it is none of the row's."""
    match = side.pattern.fullmatch(name)
    if match is None:
        return None
    shifts = {field[1]: int(field[2] or 0) for field in FIELD_PATTERN.finditer(side.text)}
    numbers = {key: int(value) - shifts[key] for key, value in match.groupdict().items()}
    return numbers if min(numbers.values(), default=0) >= 0 else None


def write_name(side: Template, numbers: Mapping[str, int]) -> str:
    """The name with these numbers in it."""
    return FIELD_PATTERN.sub(lambda field: str(numbers[field[1]] + int(field[2] or 0)), side.text)


def expand_table(table: Table) -> Iterator[Entry]:
    """Rows for layers to rows for their tensors."""
    for theirs, ours, layout in table:
        layers = LAYOUTS[layout] if isinstance(layout, str) else layout
        for leaf, (path, change) in layers.items():
            there = parse_template(f"{theirs}.{leaf}" if leaf else theirs)
            here = None if ours is None or path is None else parse_template(path.format(ours))
            yield Entry(there, here, change)


class SplitTensor(NamedTuple):
    """A tensor, or a part of one, on its way; in their layout."""

    origin: str
    value: np.ndarray
    change: Layout
    parts: int


def split(
    arrays: Mapping[str, np.ndarray], table: Table, *, inverse: bool
) -> tuple[dict[str, dict[int, SplitTensor]], list[str]]:
    """Arrays to ({new name: {part: Piece}}, the names that no row has)."""
    rows = list(expand_table(table))
    pieces, unused = {}, []
    for name, value in arrays.items():
        seen = set()  # parts of it that have found a row: the first one that fits
        for theirs, ours, change in rows:
            source, target = (ours, theirs) if inverse else (theirs, ours)
            numbers = None if source is None else read_name(source, name)
            if source is None or numbers is None or source.part in seen:
                continue
            seen.add(source.part)
            if target is not None:
                part = change.from_flax(value) if inverse else value
                part = np.array_split(part, source.parts)[source.part] if source.parts > 1 else part
                piece = SplitTensor(name, part, change, target.parts)
                pieces.setdefault(write_name(target, numbers), {})[target.part] = piece
            if len(seen) == source.parts:
                break
        if not seen:
            unused.append(name)
    return pieces, unused


def merge(
    pieces: Mapping[str, Mapping[int, SplitTensor]], unused: list[str]
) -> Iterator[tuple[str, np.ndarray, Layout]]:
    """Pieces put together again; `unused` learns of those that lack others."""
    for name, held in pieces.items():
        values = [held[part].value for part in sorted(held)]
        first = next(iter(held.values()))
        if len(held) < first.parts:
            unused += [piece.origin for piece in held.values()]
        else:
            yield name, np.concatenate(values) if len(values) > 1 else values[0], first.change


def to_paths(
    tensors: Mapping[str, np.ndarray], table: Table
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Tensors under their names to ({our path: array}, the names that found no place).

    A tensor whose rank its layout does not fit keeps its shape, for load_model to find misshapen.

    Source: torch.nn's Conv2d, Linear, BatchNorm2d and ConvTranspose2d for their layouts, flax's
    for ours.

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
    """to_paths the other way: arrays by path to ({their name: tensor}, paths without a name there).

    What their library counts and ours does not (num_batches_tracked) is not there.

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
    """The table that brings the most tensors to `expected` paths; the first of those that tie."""

    def places(table: Table) -> int:
        pieces, unused = split(tensors, table, inverse=False)
        return len(pieces.keys() & set(expected)) - len(unused)

    return max(tables, key=places)
