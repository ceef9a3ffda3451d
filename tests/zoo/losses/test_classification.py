"""Losses of logits against plain numpy, in float64 loops that follow the papers' sums."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.losses import binary_cross_entropy, distillation_loss, multiclass_svm

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 3, (6, 5)).astype(np.float32)
TEACHER = RANDOM.normal(0, 3, (6, 5)).astype(np.float32)
LABEL = RANDOM.integers(0, 5, 6).astype(np.int32)
TARGET = RANDOM.dirichlet(np.full(5, 0.3), 6).astype(np.float32)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_svm_sums_over_the_wrong_classes():
    rows = LOGITS.astype(np.float64)
    expected = [
        sum(max(0.0, s - row[y] + 0.5) for k, s in enumerate(row) if k != y)
        for row, y in zip(rows, LABEL, strict=True)
    ]
    found = multiclass_svm(jnp.asarray(LOGITS), jnp.asarray(LABEL), margin=0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_svm_of_cs231n_s_worked_example():
    """Scores of cat, car, frog and the losses 2.9, 0, 12.9 of its lecture 3."""
    scores = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    np.testing.assert_allclose(
        multiclass_svm(scores, jnp.array([0, 1, 2])), [2.9, 0, 12.9], rtol=1e-5, atol=1e-6
    )


def test_svm_gradient_counts_the_classes_in_the_margin():
    gradient = jax.grad(lambda x: multiclass_svm(x, jnp.asarray(LABEL)).sum())(jnp.asarray(LOGITS))
    true = LOGITS[np.arange(6), LABEL][:, None]
    inside = (LOGITS - true + 1 > 0) & (np.arange(5) != LABEL[:, None])
    expected = inside.astype(np.float32)
    expected[np.arange(6), LABEL] = -inside.sum(1)
    np.testing.assert_array_equal(gradient, expected)


def test_with_two_classes_svm_is_optax_s_hinge():
    two, label = jnp.asarray(LOGITS[:, :2]), jnp.asarray(LABEL % 2)
    with jax.numpy_dtype_promotion("standard"):
        expected = optax.losses.multiclass_hinge_loss(two, label)
    np.testing.assert_allclose(multiclass_svm(two, label), expected, rtol=1e-6)


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_binary_cross_entropy_is_the_mean_over_classes(threshold):
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    target = TARGET if threshold is None else TARGET > threshold
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(1)
    found = binary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(TARGET), threshold=threshold)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_binary_cross_entropy_of_sure_logits_is_finite():
    sure = jnp.array([[1e4, -1e4, 0.0]])
    value, gradient = jax.value_and_grad(
        lambda x: binary_cross_entropy(x, jnp.array([[0.0, 1.0, 0.5]])).sum()
    )(sure)
    np.testing.assert_allclose(value, (2e4 + np.log(2)) / 3, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[1 / 3, -1 / 3, 0]], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_scaled_divergence(temperature):
    s, t = (softmax(x.astype(np.float64) / temperature) for x in (LOGITS, TEACHER))
    expected = temperature**2 * (t * np.log(t / s)).sum(1)
    found = distillation_loss(jnp.asarray(LOGITS), jnp.asarray(TEACHER), temperature=temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    loss = lambda x: distillation_loss(x, jnp.asarray(TEACHER), temperature=temperature).sum()
    gradient = jax.grad(loss)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(gradient, temperature * (s - t), atol=1e-5)


def test_distillation_from_oneself_is_nothing():
    logits = jnp.asarray(LOGITS)
    value, gradient = jax.value_and_grad(
        lambda x: distillation_loss(x, logits, temperature=3.0).sum()
    )(logits)
    assert abs(float(value)) < 1e-5 and np.abs(gradient).max() < 1e-6


LOSSES = {
    "svm": (multiclass_svm, LABEL),
    "binary": (binary_cross_entropy, TARGET),
    "distillation": (lambda a, b: distillation_loss(a, b, temperature=2.0), TEACHER),
}


@pytest.mark.parametrize("name", LOSSES)
def test_jit_vmap_and_shapes(name):
    loss, other = LOSSES[name]
    logits, other = jnp.asarray(LOGITS), jnp.asarray(other)
    whole = loss(logits, other)
    assert whole.shape == (6,) and whole.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(loss)(logits, other), whole, rtol=1e-6)
    one = jax.vmap(lambda a, b: loss(a[None], b[None])[0])(logits, other)
    np.testing.assert_allclose(one, whole, rtol=1e-6)
    with pytest.raises(AssertionError):
        loss(logits, other[:, None])
