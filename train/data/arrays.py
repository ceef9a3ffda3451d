"""What a source is, and the sources that hold their examples in memory."""

import dataclasses
from typing import Protocol

import numpy as np


class Source(Protocol):
    """Examples with random access, all of one shape: `source[i] -> {"image": [H, W, C], ...}`.

    `name` says in logs and under pictures what is read; `classes` are the names of the labels.
    A source pickles. One that knows its labels without reading its examples carries them as
    `labels` [N], one that must not mix two parts of a split has `select(indices)`, and one whose
    examples differ from draw to draw in training has `draw(i, number=, seed=)`.
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
class Wrapper:
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
class Subset(Wrapper):
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
        return draw(self.source, int(self.indices[i]), number=number, seed=seed)


def draw(source: Source, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
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
