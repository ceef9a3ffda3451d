"""Late fusion of networks that were trained separately: their mean score, and a linear SVM."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from sklearn.svm import LinearSVC

from train import parallel, step
from train.data import eval_batches
from train.data.source import Source
from train.task import Task
from train.tasks.video import average_views

logger = logging.getLogger("train")


def predict_scores(
    source: Source, model: nn.Module, variables: Mapping[str, Any], *, task: Task, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts the scores of all videos of a source, averaged over their views.

    Args:
        source: the source.
        model: the model.
        variables: its variables.
        task: the learning problem.
        batch_size: videos per batch.

    Returns:
        Scores [N, K] and labels [N].
    """
    measure = jax.jit(partial(step.eval_step, model=model, task=task))
    batches = eval_batches(source, batch_size=min(batch_size, len(source)))
    rows = [jax.tree.map(np.asarray, measure(variables, batch)) for batch in batches]
    scores, labels, _ = average_views(rows)
    return scores, labels


def linear_svm(streams: Sequence[np.ndarray], labels: np.ndarray) -> Callable:
    """Fits one-against-all linear SVMs on the concatenated unit-length scores of the streams.

    Fit it on videos on which no stream was trained, since scores of training videos are too
    confident.

    Args:
        streams: scores [N, K] of each stream.
        labels: labels [N].

    Returns:
        A function of scores [M, K] of each stream that returns classes [M].

    Source: Simonyan and Zisserman 2014, section 6, fusion by SVM.

    >>> apart = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])
    >>> chance = np.full((4, 2), 0.5)
    >>> linear_svm([chance, apart], np.array([0, 0, 1, 1]))([chance, apart]).tolist()
    [0, 0, 1, 1]
    """
    machine = LinearSVC(random_state=0)
    machine.fit(concat_streams(streams), labels)
    return lambda others: machine.predict(concat_streams(others))


def concat_streams(streams: Sequence[np.ndarray]) -> np.ndarray:
    """Scales the scores [N, K] of S streams to length 1 and concatenates them to [N, S K]."""
    return np.concatenate([s / np.linalg.norm(s, axis=1, keepdims=True) for s in streams], 1)


def fuse_scores(
    stream_scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    train_scores: tuple[Mapping[str, np.ndarray], np.ndarray] | None = None,
) -> dict[str, float]:
    """Computes the accuracy of each stream, of the mean score, and of an SVM.

    Args:
        stream_scores: scores [N, K] by stream.
        labels: labels [N].
        train_scores: scores and labels of other videos, on which the SVM is fitted; None for no
            SVM.

    Returns:
        Accuracies {stream: ..., "mean": ..., "svm": ...}.

    >>> apart = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> both = {"spatial": np.array([[0.5, 0.5], [0.6, 0.4]]), "temporal": apart}
    >>> fuse_scores(both, np.array([0, 1]), train_scores=(both, np.array([0, 1])))
    {'spatial': 0.5, 'temporal': 1.0, 'mean': 1.0, 'svm': 1.0}
    """
    found = {name: scores.argmax(1) for name, scores in stream_scores.items()}
    found["mean"] = np.mean(list(stream_scores.values()), 0).argmax(1)
    if train_scores is not None:
        predict = linear_svm([train_scores[0][name] for name in stream_scores], train_scores[1])
        found["svm"] = predict(list(stream_scores.values()))
    return {name: float(np.mean(guess == labels)) for name, guess in found.items()}


def write_report(results: Mapping[str, float], workdir: Path) -> None:
    """Writes accuracies to WORKDIR/fusion.json and logs them."""
    if not parallel.is_main():
        return
    (workdir / "fusion.json").write_text(json.dumps(results, indent=1) + "\n")
    said = ", ".join(f"{name} {100 * share:.2f} %" for name, share in results.items())
    logger.info("accuracy: %s", said)
