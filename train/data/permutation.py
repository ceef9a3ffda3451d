"""Orders and splits that are the same on every machine and with every version of numpy."""

import numpy as np

GROUP_STREAM = 3  # ends the key of the order of batches


def permutation(length: int, *key: int) -> np.ndarray:
    """0..length-1 in the random order that the integers of `key` name: [N] int64.

    Sorting PCG64's raw output instead of calling Generator.permutation: numpy promises the stream
    of a bit generator for ever, that of a Generator's methods only within a release (NEP 19).

    >>> permutation(5, 0, 1).tolist() == permutation(5, 0, 1).tolist()
    True
    """
    if any(part < 0 for part in key):
        raise ValueError(f"a seed is 0 or more; got {min(key)}")
    return np.argsort(np.random.PCG64(key).random_raw(length), kind="stable")


def grouped_permutation(groups: np.ndarray, batch_size: int, *key: int) -> np.ndarray:
    """Groups [N] -> a random order in batches of one group each, [N // B * B] int64.

    As many batches as without groups. So where the groups' remainders would make a batch together,
    the largest ones are filled up with examples of their group that come twice; what is left is
    dropped, as the remainder of an order is.

    Source: torchvision's GroupedBatchSampler (references/detection).

    >>> order = grouped_permutation(np.array([0, 0, 0, 1, 1, 1]), 2, 0, 1)
    >>> sorted(sorted(batch) for batch in (order // 3).reshape(3, 2).tolist()) in (
    ...     [[0, 0], [0, 0], [1, 1]], [[0, 0], [1, 1], [1, 1]])
    True
    """
    drawn = permutation(len(groups), *key)
    batches, rests = [], []
    for group in np.unique(groups):
        own = drawn[groups[drawn] == group]
        whole = len(own) // batch_size * batch_size
        batches += own[:whole].reshape(-1, batch_size).tolist()
        rests.append((whole - len(own), np.resize(np.roll(own, -whole), batch_size).tolist()))
    rests.sort(key=lambda rest: rest[0])  # stable: of equal ones the first group
    batches += [batch for _, batch in rests[: len(groups) // batch_size - len(batches)]]
    return np.array(batches)[permutation(len(batches), *key, GROUP_STREAM)].reshape(-1)


def uniform_draws(count: int, *key: int) -> np.ndarray:
    """Numbers from 0 up to 1 that the integers of `key` name: [count] float64.

    >>> uniform_draws(2, 7).tolist() == uniform_draws(3, 7)[:2].tolist()
    True
    """
    return (np.random.PCG64(key).random_raw(count) >> 11) * 2.0**-53  # the high 53 bits, as numpy


def stratified_split(
    labels: np.ndarray, validation_count: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] -> (indices of the rest [N - held], indices held out [held]), both ascending.

    Each class gives its share to within one example (largest remainders first), the total is
    exact, and no class loses its last example while another can give one.

    >>> rest, out = stratified_split(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 2, seed=0)
    >>> len(rest), (out // 4).tolist()
    (6, [0, 1])
    """
    counts = np.bincount(labels)
    take, remainder = np.divmod(counts * validation_count, len(labels))
    emptied = take + 1 >= counts
    take[np.lexsort([-remainder, emptied])[: validation_count - take.sum()]] += 1
    shuffled = permutation(len(labels), seed)
    out = [shuffled[labels[shuffled] == label][:n] for label, n in enumerate(take)]
    held_out = np.sort(np.concatenate(out))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out
