"""What a source is, and the sources that hold their examples in memory."""

import dataclasses
from typing import Protocol

import numpy as np


class Source(Protocol):
    """Examples with random access, all of one shape: `source[i] -> {"image": [H, W, C], ...}`.

    `name` says in logs and under pictures what is read; `classes` are the names of the labels.
    A source pickles. One that knows its labels without reading its examples carries them as
    `labels` [N], one that must not mix two parts of a split has `select(indices)`, and one whose
    examples differ from draw to draw in training has `sample(i, number=, seed=)`. One whose batches
    differ in shape has `groups` [N], which batches do not mix, and `for_batch(group, batch=, seed=)`,
    the source of a batch's own shape.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Images [N, H, W, C] uint8 and labels [N] int32, in memory.

    Raises ValueError where the counts differ or a label names no class.

    >>> pair = Arrays(np.zeros([2, 4, 4, 1], np.uint8), np.int32([1, 0]), "pair", ("no", "yes"))
    >>> len(pair), pair[0]["image"].shape, int(pair[0]["label"])
    (2, (4, 4, 1), 1)
    """

    images: np.ndarray
    labels: np.ndarray
    name: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.images)} images, {len(self.labels)} labels")
        check_labels(self.labels, self.classes, name=self.name)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        return {"image": self.images[i], "label": self.labels[i]}


@dataclasses.dataclass(frozen=True, eq=False)
class SourceWrapper:
    """What is known of `source` without its examples, passed on; `palette` is None without one."""

    source: Source

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def palette(self) -> np.ndarray | None:
        return getattr(self.source, "palette", None)

    def __len__(self) -> int:
        return len(self.source)


@dataclasses.dataclass(frozen=True, eq=False)
class Subset(SourceWrapper):
    """The examples of `source` at `indices` [N], in that order."""

    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return labels_of(self.source)[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        return self.source[int(self.indices[i])]

    def draw(self, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
        return sample(self.source, int(self.indices[i]), number=number, seed=seed)

    @property
    def groups(self) -> np.ndarray | None:
        groups = groups_of(self.source)
        return None if groups is None else groups[self.indices]

    def of_batch(self, group: int, *, batch: int, seed: int) -> "Subset":
        return Subset(for_batch(self.source, group, batch=batch, seed=seed), self.indices)


@dataclasses.dataclass(frozen=True, eq=False)
class ConcatSource:
    """The examples of several sources with the same classes, one source after the other."""

    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        return " + ".join(dict.fromkeys(source.name for source in self.sources))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.sources[0].classes

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def place(self, i: int) -> tuple[Source, int]:
        """The source that holds example i, and its number there."""
        ends = np.cumsum([len(source) for source in self.sources])
        which = int(np.searchsorted(ends, i, side="right"))
        if not 0 <= i < ends[-1]:
            raise IndexError(f"{self.name}: there are {ends[-1]} examples, none is number {i}")
        return self.sources[which], i - int(ends[which]) + len(self.sources[which])

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        source, own = self.place(i)
        return source[own]

    def draw(self, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
        source, own = self.place(i)
        return sample(source, own, number=number, seed=seed)

    @property
    def groups(self) -> np.ndarray | None:
        groups = [g for s in self.sources if (g := groups_of(s)) is not None]
        return np.concatenate(groups) if len(groups) == len(self.sources) else None

    def of_batch(self, group: int, *, batch: int, seed: int) -> "ConcatSource":
        parts = [for_batch(source, group, batch=batch, seed=seed) for source in self.sources]
        return ConcatSource(tuple(parts))


def concat_sources(*sources: Source) -> ConcatSource:
    """Several sources as one, such as "train" and "val"; ValueError where their classes differ.

    >>> pair = Arrays(np.zeros([2, 4, 4, 1], np.uint8), np.int32([1, 0]), "pair", ("no", "yes"))
    >>> both = concat_sources(pair, pair)
    >>> len(both), int(both[2]["label"])
    (4, 1)
    """
    if not sources:
        raise ValueError("there is no source to join")
    for source in sources:
        if source.classes != sources[0].classes:
            raise ValueError(
                f"{source.name} and {sources[0].name} differ in their classes: say the same classes "
                "for both"
            )
    return ConcatSource(sources)


def groups_of(source: Source) -> np.ndarray | None:
    """Groups [N] that a batch does not mix, or None."""
    return getattr(source, "groups", None)


def for_batch(source: Source, group: int, *, batch: int, seed: int) -> Source:
    """The source of the shape that a batch of that group has: itself for most."""
    own = getattr(source, "of_batch", None)
    return source if own is None else own(group, batch=batch, seed=seed)


def sample(source: Source, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
    """Example i as training sees it, the `number`-th of the run of that seed: source[i] for most."""
    own = getattr(source, "draw", None)
    return source[i] if own is None else own(i, number=number, seed=seed)


def labels_of(source: Source) -> np.ndarray:
    """All labels [N] int32; reads every example where the source does not carry them."""
    labels = getattr(source, "labels", None)
    if labels is None:
        labels = [source[i]["label"] for i in range(len(source))]
    return np.asarray(labels, np.int32)


def check_labels(
    labels: np.ndarray, classes: tuple[str, ...], *, name: str, first: int = 0
) -> None:
    """Raises ValueError that names the first label [N] outside 0..K-1; they count from `first`.

    >>> check_labels(np.array([0, 7]), ("cat", "dog"), name="pets")
    Traceback (most recent call last):
    ValueError: pets: example 1 has label 7, but labels of 2 classes lie in 0..1
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if wrong.size:
        raise ValueError(
            f"{name}: example {first + wrong[0]} has label {labels[wrong[0]]}, "
            f"but labels of {len(classes)} classes lie in 0..{len(classes) - 1}"
        )
