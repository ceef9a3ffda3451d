"""The perceptron's rule, its gradient, and the layers of the multi-layer perceptron."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.models.perceptron import Perceptron, perceptron_rate, perceptron_update

RANDOM = np.random.default_rng(0)


def random_params(units: int) -> dict:
    values = RANDOM.normal(size=(12, units)), RANDOM.normal(size=units)
    kernel, bias = (jnp.asarray(value, jnp.float32) for value in values)
    return {"output": {"kernel": kernel, "bias": bias}}


def images(count: int) -> np.ndarray:
    return RANDOM.normal(size=(count, 2, 6, 1)).astype(np.float32)


def test_rate():
    steps = np.array([0, 1, 500, 1000, 9000])
    np.testing.assert_allclose(perceptron_rate(steps), 1000 / (1000 + steps), rtol=1e-6)


@pytest.mark.parametrize("units", [1, 4])
def test_rule(units):
    params, image = random_params(units), images(7)
    label = RANDOM.integers(0, max(units, 2), 7)
    kernel, bias = (np.array(params["output"][name], np.float64) for name in ("kernel", "bias"))
    new_kernel, new_bias = kernel.copy(), bias.copy()
    for x, y in zip(image.reshape(7, 12).astype(np.float64), label, strict=True):
        logits = x @ kernel + bias
        if units == 1:
            error = np.array([y - float(logits[0] >= 0)])
        else:
            error = (np.arange(units) == y) - 1.0 * (np.arange(units) == logits.argmax())
        new_kernel += 0.3 * np.outer(x, error)
        new_bias += 0.3 * error
    update = jax.jit(perceptron_update)(params, image, label, rate=0.3)["output"]
    np.testing.assert_allclose(update["kernel"], new_kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(update["bias"], new_bias, rtol=1e-4, atol=1e-5)
    assert np.abs(new_kernel - kernel).max() > 0.1, "some answers were wrong"


@pytest.mark.parametrize("units", [1, 4])
def test_rule_is_a_step_down_the_gradient(units):
    """Of max(0, -margin), through the model itself."""
    params, image = random_params(units), images(9)
    label = RANDOM.integers(0, max(units, 2), 9)
    model = Perceptron(num_classes=units)

    def loss(params):
        logits = model.apply({"params": params}, image)["logits"]
        if units == 1:
            return jnp.maximum(0, -logits[:, 0] * (2 * label - 1)).sum()
        return (logits.max(1) - jnp.take_along_axis(logits, label[:, None], 1)[:, 0]).sum()

    grad = jax.grad(loss)(params)
    expected = jax.tree.map(lambda w, g: w - 0.3 * g, params, grad)
    update = perceptron_update(params, image, label, rate=0.3)
    for ours, theirs in zip(jax.tree.leaves(update), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("units", [1, 3])
def test_rule_converges_on_separable_data(units):
    """Clouds that a line parts: every example right after some sweeps, and then no more change."""
    centers = np.array([[4.0, 0.0], [-4.0, 1.0], [0.0, -5.0]])[: max(units, 2)]
    label = np.arange(60) % len(centers)
    image = (centers[label] + RANDOM.uniform(-1, 1, (60, 2))).astype(np.float32)
    image = image.reshape(60, 1, 2, 1)
    model = zoo.create_model("perceptron", num_classes=units)
    params = model.init(jax.random.key(0), image)["params"]

    def visit(params, t):
        one = image[t % 60][None], label[t % 60][None]
        return perceptron_update(params, *one, rate=perceptron_rate(t)), None

    image, label = jnp.asarray(image), jnp.asarray(label)
    params, _ = jax.lax.scan(visit, params, jnp.arange(1200))
    logits = model.apply({"params": params}, image)["logits"]
    answer = logits.argmax(1) if units > 1 else (logits[:, 0] >= 0).astype(int)
    np.testing.assert_array_equal(answer, label)
    again = perceptron_update(params, image, label, rate=1.0)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, params))


def test_perceptron_starts_at_zero_and_is_linear():
    for name in ("perceptron", "softmax_regression"):
        model, image = zoo.create_model(name), images(3)
        variables = model.init(jax.random.key(0), image)
        assert set(variables["params"]) == {"output"}
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(variables)) == 0
    params = random_params(10)
    logits = model.apply({"params": params}, image)["logits"]
    expected = image.reshape(3, 12) @ params["output"]["kernel"] + params["output"]["bias"][None]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_mlp_by_hand():
    model = zoo.create_model("mlp", widths=(7, 5), act="tanh", num_classes=3)
    image = images(4)
    out, variables = model.init_with_output(jax.random.key(0), image)
    x = image.reshape(4, 12)
    for name in ("hidden1", "hidden2"):
        layer = variables["params"][name]
        x = np.tanh(x @ layer["kernel"] + layer["bias"][None])
    np.testing.assert_allclose(out["pooled"], x, rtol=1e-5, atol=1e-6)
    head = variables["params"]["output"]
    logits = x @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("fields", "share"), [(dict(input_dropout=0.2), 0.2), ({}, 0.0)])
def test_dropout_of_pixels(fields, share):
    model = Perceptron(num_classes=0, **fields)
    image = jnp.ones((10, 40, 50, 1))
    pooled = model.apply({}, image, train=True, rngs={"dropout": jax.random.key(0)})["pooled"]
    assert abs((pooled == 0).mean() - share) < 0.01
    assert abs(pooled.mean() - 1) < 0.02, "what is left is scaled up"


def test_dropout_of_hidden_units():
    model = Perceptron(num_classes=0, widths=(400,), dropout=0.5, act="sigmoid")
    image = images(20)
    variables = model.init(jax.random.key(0), image)
    pooled = model.apply(variables, image, train=True, rngs={"dropout": jax.random.key(1)})
    assert abs((pooled["pooled"] == 0).mean() - 0.5) < 0.03
    assert (model.apply(variables, image)["pooled"] > 0).all(), "none in evaluation"
