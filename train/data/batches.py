"""From a source to batches: numpy dicts of one fixed shape, read ahead by grain's threads."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

import grain
import numpy as np

from train.data.permutation import grouped_permutation, permutation
from train.data.source import Source, for_batch, groups_of, sample

Batch = dict[str, np.ndarray]
READER_THREADS = min(8, os.cpu_count() or 1)  # that read ahead


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """Batches start..stop-1 of an endless run: the examples' entries stacked, [B / processes, ...].

    Batch i is a pure function of (seed, i): epoch e is a fresh permutation from (seed, e), whose
    remainder of fewer than `batch_size` examples is dropped. `index` [B] int32 is the example's
    number in the run, i * batch_size + its position in the batch; `valid` [B] is True throughout.
    A source with `sample` is asked with that number, so that a restart draws the same. Of one with
    `groups` each batch is of a single group (`order.grouped`), and `for_batch` gives its shape.
    Process p of P gets rows p B / P to (p + 1) B / P of the same batch. Closing the iterator stops
    its threads.

    Raises ValueError where the batch is larger than the set or does not divide by the processes.

    >>> from train.data.source import Arrays
    >>> five = Arrays(np.zeros([5, 2, 2, 1], np.uint8), np.int32([0, 1, 0, 1, 0]), "five", ("a", "b"))
    >>> [b["index"].tolist() for b in train_batches(five, batch_size=2, seed=0, start=1, stop=3)]
    [[2, 3], [4, 5]]
    """
    position = process_rows(batch_size, process, processes)
    if batch_size > len(source):
        raise ValueError(
            f"batch_size {batch_size} is larger than the training set, "
            f"{len(source)} examples of {source.name}: choose {len(source)} or less"
        )
    per_epoch = len(source) // batch_size
    # Two, because the threads read ahead over the end of an epoch.
    groups = groups_of(source)
    if groups is None:
        ordered = functools.partial(permutation, len(source), seed)
    else:
        ordered = functools.partial(grouped_permutation, groups, batch_size, seed)
    order = functools.lru_cache(maxsize=2)(ordered)

    def load(i: int) -> Batch:
        epoch, batch = divmod(i, per_epoch)
        indices, numbers = order(epoch)[batch * batch_size + position], i * batch_size + position
        group = 0 if groups is None else int(groups[indices[0]])
        shaped = for_batch(source, group, batch=i, seed=seed)
        pairs = zip(indices.tolist(), numbers.tolist(), strict=True)
        examples = stack_examples(
            source, [sample(shaped, j, number=n, seed=seed) for j, n in pairs]
        )
        # Wraps after 2**31 examples; it seeds augmentation, so a repeat that far away is harmless.
        index = numbers.astype(np.int32)
        return examples | {"index": index, "valid": np.ones(len(index), bool)}

    return prefetch(load, start, stop)


def eval_batches(
    source: Source, *, batch_size: int, process: int = 0, processes: int = 1
) -> Iterator[Batch]:
    """Every example once and in order, in ceil(N / batch_size) batches [B / processes, ...].

    `index` [B] int32 is the position in the source. The last batch is filled up with its last
    example, where `valid` [B] is False and `index` counts on. Rows go to processes as in training.

    >>> from train.data.source import Arrays
    >>> three = Arrays(np.zeros([3, 2, 2, 1], np.uint8), np.int32([0, 1, 0]), "three", ("a", "b"))
    >>> [b["valid"].tolist() for b in eval_batches(three, batch_size=2)]
    [[True, True], [True, False]]
    """
    position = process_rows(batch_size, process, processes)
    length = len(source)
    if not length:
        raise ValueError(f"{source.name} holds no example to evaluate on")

    def load(i: int) -> Batch:
        index = i * batch_size + position
        examples = stack_examples(
            source, [source[j] for j in np.minimum(index, length - 1).tolist()]
        )
        return examples | {"index": index.astype(np.int32), "valid": index < length}

    return prefetch(load, 0, -(-length // batch_size))


def process_rows(batch_size: int, process: int, processes: int) -> np.ndarray:
    """Positions in the global batch of this process's rows: [B / processes] int64.

    >>> process_rows(6, 1, 3)
    array([2, 3])
    """
    if not 0 <= process < processes:
        raise ValueError(f"process is one of 0..{processes - 1}; got {process}")
    if batch_size < 1 or batch_size % processes:
        raise ValueError(
            f"batch_size {batch_size} does not divide by {processes} process"
            f"{'es' if processes > 1 else ''}: choose a positive multiple of {processes}"
        )
    share = batch_size // processes
    return np.arange(process * share, (process + 1) * share)


def stack_examples(source: Source, examples: list[dict[str, np.ndarray]]) -> Batch:
    """Examples of the source, entry by entry: {name: [B, ...]}."""
    try:
        return {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    except ValueError:
        shapes = {str({key: np.shape(value) for key, value in e.items()}) for e in examples}
        raise ValueError(
            f"{source.name}: a source gives examples of one shape, not {' and '.join(sorted(shapes))}"
        ) from None


def prefetch(load: Callable[[int], Batch], start: int, stop: int) -> Iterator[Batch]:
    """load(start), ..., load(stop - 1), computed ahead by threads; stops them when closed.

    Threads and not grain's worker processes: decoding frees the GIL, the order cannot depend on
    their number, and worker processes would parse the program's arguments as absl flags.
    """
    options = grain.ReadOptions(
        num_threads=READER_THREADS, prefetch_buffer_size=max(2, READER_THREADS)
    )
    batches = iter(grain.MapDataset.range(start, stop).map(load).to_iter_dataset(options))
    with contextlib.closing(batches):
        yield from batches
