"""Classes of uneven size: how much each is to weigh, and a source that shows them equally often."""

import dataclasses

import numpy as np

from train.data.permutation import permutation
from train.data.source import Source, Subset, labels_of


def inverse_frequency(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels [N] -> class weights [K], inverse to the classes' counts, of mean 1 over the examples.

    A class without examples weighs 0.

    Source: King and Zeng 2001; scikit-learn's class_weight="balanced".

    >>> inverse_frequency(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts, len(labels) / (np.sum(counts > 0) * np.maximum(counts, 1)), 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class BalancedSource(Subset):
    """The examples of `source` at `indices` [N], where each class has as many."""

    @property
    def name(self) -> str:
        return f"{self.source.name}, rarer classes repeated"


def balance_classes(source: Source, *, seed: int = 0) -> BalancedSource:
    """The source with every class as often as its commonest, the rarer ones' examples repeated.

    Every example comes at least once, and none of a class twice more often than another of it;
    `seed` draws which come once more. An epoch is as long as the classes that occur times the
    commonest's count. Split before balancing: a repeated example would stand in both parts.

    >>> from train.data.source import Arrays
    >>> four = Arrays(np.zeros([4, 2, 2, 1], np.uint8), np.int32([0, 0, 0, 1]), "four", ("a", "b"))
    >>> even = balance_classes(four)
    >>> even.name, even.indices.tolist()
    ('four, rarer classes repeated', [0, 1, 2, 3, 3, 3])
    """
    labels = labels_of(source)
    counts = np.bincount(labels)
    shuffled = permutation(len(labels), seed)
    drawn = [
        np.resize(shuffled[labels[shuffled] == label], counts.max())
        for label in np.flatnonzero(counts)
    ]
    return BalancedSource(source, np.sort(np.concatenate(drawn)))
