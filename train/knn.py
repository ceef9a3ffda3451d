"""Nearest-neighbor classification by pixels or by the features of a model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from train.data import eval_batches, open_source
from train.data.source import Source
from zoo.lookup import lookup
from zoo.preprocess import Preprocessing, preprocess
from zoo.weights import read_card

Distance = Literal["l1", "l2", "cosine"]
QUERIES, EXAMPLES = 256, 2048  # in a block; their distances are 2 MB
READ_BATCH = 256  # images at once


def l1_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the sums of absolute differences [Q, N] of rows [Q, D] and [N, D]."""
    return jnp.sum(jnp.abs(a[:, None] - b[None]), -1)


def l2_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the squared Euclidean distances [Q, N] of rows [Q, D] and [N, D]."""
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1)[None] - 2 * products


def cosine_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes 1 - cosine similarity [Q, N] of rows [Q, D] and [N, D]; 1 for a row of zeros."""
    return 1 - jnp.matmul(unit_vector(a), unit_vector(b).T, precision=jax.lax.Precision.HIGHEST)


def unit_vector(x: jax.Array) -> jax.Array:
    """Scales rows [N, D] to length 1; rows of zeros stay zero."""
    norm = jnp.sqrt(jnp.sum(x**2, 1, keepdims=True))
    return x / jnp.where(norm == 0, 1.0, norm)


DISTANCES = {"l1": l1_distance, "l2": l2_distance, "cosine": cosine_distance}


@partial(jax.jit, static_argnames=("k", "distance"))
def nearest_indices(examples: jax.Array, queries: jax.Array, *, k: int, distance: str) -> jax.Array:
    """Returns the indices of the k nearest examples of each query.

    Distances are computed in blocks of at most QUERIES x EXAMPLES. Among equal distances, earlier
    examples come first.

    Args:
        examples: features [N, D].
        queries: features [M, D].
        k: number of neighbors.
        distance: "l1", "l2" or "cosine".

    Returns:
        Indices [M, k] int32, the nearest first.
    """
    count = len(examples)
    block = min(EXAMPLES, count)
    blocks = split_blocks(examples, block)
    first = jnp.arange(len(blocks)) * block

    def nearest_of(rows: jax.Array) -> jax.Array:
        def closer(best, part):
            (far, where), (part, start) = best, part
            apart = DISTANCES[distance](rows, part)
            there = (start + jnp.arange(block) < count)[None]
            far = jnp.concatenate([far, jnp.where(there, apart, jnp.inf)], 1)
            # Of equal ones top_k takes the first, and what was found before stands in front.
            near, kept = jax.lax.top_k(-far, k)
            before = jnp.take_along_axis(where, jnp.minimum(kept, k - 1), 1)
            return (-near, jnp.where(kept < k, before, start + kept - k)), None

        none = (jnp.full((len(rows), k), jnp.inf), jnp.full((len(rows), k), count))
        return jax.lax.scan(closer, none, (blocks, first))[0][1]

    found = jax.lax.map(nearest_of, split_blocks(queries, min(QUERIES, len(queries))))
    return found.reshape(-1, k)[: len(queries)]


def split_blocks(x: jax.Array, block: int) -> jax.Array:
    """Splits rows [N, D] into blocks [ceil(N / block), block, D], padded with zeros."""
    count = -(-len(x) // block)
    return jnp.pad(x, ((0, count * block - len(x)), (0, 0))).reshape(count, block, -1)


def majority_vote(labels: jax.Array, *, classes: int) -> jax.Array:
    """Returns the most common label [M] of the neighbors [M, k]; the lowest label in a tie."""
    return jnp.argmax(jnp.sum(jax.nn.one_hot(labels, classes, dtype=jnp.int32), 1), -1)


def knn_accuracies(
    train_features: jax.Array,
    train_labels: jax.Array,
    features: jax.Array,
    *,
    k: int,
    distance: Distance,
    classes: int,
) -> jax.Array:
    """Predicts the most common label among the k nearest training examples.

    Among equal distances the earlier example counts, which KNeighborsClassifier of scikit-learn
    leaves open. Among equal votes the lower class counts, as there.

    Args:
        train_features: features [N, D].
        train_labels: labels [N].
        features: features [M, D] to classify.
        k: number of neighbors.
        distance: "l1", "l2" or "cosine".
        classes: number of classes.

    Returns:
        Predicted labels [M].

    Raises:
        ValueError: if the distance is unknown, or k is not from 1 to N.

    Source: Fix and Hodges 1951; Cover and Hart 1967.

    >>> points, labels = jnp.array([[0.0], [1.0], [4.0]]), jnp.array([0, 0, 1])
    >>> knn_accuracies(points, labels, jnp.array([[3.0]]), k=1, distance="l2", classes=2).tolist()
    [1]
    """
    found = check_queries(train_features, features, k=k, distance=distance)
    return majority_vote(jnp.asarray(train_labels)[found], classes=classes)


def check_queries(examples: Any, queries: Any, *, k: int, distance: Distance) -> jax.Array:
    """Checks the options of a search and returns the examples in float32."""
    lookup(DISTANCES, distance, kind="distance")
    if not 1 <= k <= len(examples):
        raise ValueError(f"k is 1 to {len(examples)}, the number of examples; got {k}")
    examples, queries = (jnp.asarray(x, jnp.float32) for x in (examples, queries))
    return nearest_indices(examples, queries, k=k, distance=distance)


def read_pixels(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Reads all images as rows [N, H W C] float32, and the labels [N]."""
    return read_batches(source, lambda image: image.reshape(len(image), -1).astype(jnp.float32))


def read_features(
    source: Source, model: Any, variables: Any, preprocessing: Preprocessing
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the output "pooled" [N, D] float32 of a model for all images, and the labels [N]."""

    def pooled(image: jax.Array) -> jax.Array:
        outputs = model.apply(variables, preprocess(image, preprocessing))
        if "pooled" not in outputs:
            raise ValueError(f"the model gives no pooled features, but {', '.join(outputs)}")
        return outputs["pooled"].reshape(len(image), -1).astype(jnp.float32)

    return read_batches(source, pooled)


def read_batches(source: Source, of_images: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Applies a function of images [B, H, W, C] to all batches of a source.

    Returns:
        Results [N, D] and labels [N].
    """
    rows, labels, compiled = [], [], jax.jit(of_images)
    for batch in eval_batches(source, batch_size=min(READ_BATCH, len(source))):
        rows.append(np.asarray(compiled(batch["image"]))[batch["valid"]])
        labels.append(batch["label"][batch["valid"]])
    return np.concatenate(rows), np.concatenate(labels)


def knn_report(
    spec: str,
    *,
    model: str | None = None,
    weights: str | None = None,
    distances: Sequence[Distance] = ("l2",),
    ks: Sequence[int] = (1, 5, 10, 20),
    size: tuple[int, ...] | None = None,
    seed: int = 0,
) -> tuple[str, dict[tuple[Distance, int], float]]:
    """Computes nearest-neighbor accuracies on the last split of a data set.

    Args:
        spec: the data set.
        model: name of the model whose features are compared; None for pixels.
        weights: weights of the model; None for pixels.
        distances: distances to compare.
        ks: numbers of neighbors.
        size: image size; by default that of the model.
        seed: seed that splits a folder without splits.

    Returns:
        A description of what was compared, and accuracies by (distance, k).

    Raises:
        ValueError: if an option is invalid.
    """
    if (model is None) != (weights is None):
        raise ValueError("features take both --model NAME and --weights W; pixels take neither")
    loaded = card = None
    if model is not None and weights is not None:
        loaded = zoo.load_model(model, weights)
        told, facts = read_card(weights, model), zoo.model_card(model)
        card = facts.preprocessing
        if told.get("preprocessing"):
            card = Preprocessing(**told["preprocessing"])
        size = size or (*(round(side / card.crop) for side in card.size), len(card.mean))
    data = open_source(spec, size=size, seed=seed)
    if len(data) < 2:
        raise ValueError(f"{spec} has {', '.join(data)} alone: neighbors need a part to judge on")
    last = next(name for name in ("test", "val") if name in data)
    rows = [
        read_pixels(data[part])
        if loaded is None or card is None
        else read_features(data[part], *loaded, card)
        for part in ("train", last)
    ]
    (examples, known), (queries, truth) = rows
    what = "pixels" if model is None else f"{model}'s pooled features"
    said = f"{len(truth)} {last} images of {data[last].name} by {what} of {len(known)} others"
    classes, results = len(data["train"].classes), {}
    if not ks or min(ks) < 1:
        raise ValueError(f"k is 1 or more; got {', '.join(map(str, ks)) or 'none'}")
    for distance in distances:
        found = check_queries(examples, queries, k=max(ks), distance=distance)
        for k in ks:
            predicted = majority_vote(jnp.asarray(known)[found[:, :k]], classes=classes)
            results[distance, k] = float(np.mean(np.asarray(predicted) == truth))
    return said, results
