"""The auto-encoders: their layers, and the greedy way to train the deep one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from zoo.models.autoencoder import Autoencoder, stack_autoencoders
from zoo.models.conv_autoencoder import ConvAutoencoder

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.uniform(size=(3, 4, 5, 2)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(params, name, x):
    return np.asarray(x) @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])


def test_by_hand(draw):
    model = Autoencoder((9, 6, 3))
    variables = draw(model, (4, 5, 2))
    out, params = jax.jit(model.apply)(variables, IMAGE), variables["params"]
    x = IMAGE.reshape(3, 40)
    for name in ("encode_1", "encode_2"):
        x = sigmoid(dense(params, name, x))
    code = dense(params, "encode_3", x)
    x = code
    for name in ("decode_3", "decode_2"):
        x = sigmoid(dense(params, name, x))
    logits = dense(params, "decode_1", x).reshape(IMAGE.shape)
    np.testing.assert_allclose(out["code"], code, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["reconstruction_logits"], logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["reconstruction"], sigmoid(logits), rtol=1e-5, atol=1e-6)


def test_widths_as_published():
    """784-1000-500-250-30 and back."""
    image = jnp.zeros((1, 28, 28, 1))
    params = jax.eval_shape(zoo.create_model("autoencoder").init, jax.random.key(0), image)
    shapes = {name: layer["kernel"].shape for name, layer in params["params"].items()}
    widths = [784, 1000, 500, 250, 30]
    for k, pair in enumerate(itertools.pairwise(widths), 1):
        assert shapes.pop(f"encode_{k}") == pair and shapes.pop(f"decode_{k}") == pair[::-1]
    assert not shapes


def test_assembled_from_greedy_parts(draw):
    """Three of one layer, each on the codes of the one before, are the deep one."""
    widths, code_acts = (9, 6, 3), ("sigmoid", "sigmoid", "linear")
    parts, codes = [], IMAGE
    for width, code_act in zip(widths, code_acts, strict=True):
        model = Autoencoder((width,), code_act=code_act)
        variables = draw(model, codes.shape[1:])
        parts.append(variables["params"])
        codes = jax.jit(model.apply)(variables, codes)["code"][:, None, None, :]
    whole = Autoencoder(widths)
    params = stack_autoencoders(parts)
    fresh = jax.eval_shape(whole.init, jax.random.key(0), IMAGE)["params"]
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, params)

    out = jax.jit(whole.apply)({"params": params}, IMAGE)
    np.testing.assert_allclose(out["code"], codes[:, 0, 0], rtol=1e-5, atol=1e-6)
    back = codes[:, 0, 0]
    for part in reversed(parts):
        back = sigmoid(dense(part, "decode_1", back))
    np.testing.assert_allclose(out["reconstruction"].reshape(3, 40), back, rtol=1e-5, atol=1e-6)


def test_conv_autoencoder_of_any_size():
    for height, width in ((28, 28), (33, 20), (1, 7)):
        image = jnp.zeros((2, height, width, 3))
        model = ConvAutoencoder(widths=(4, 6), code_width=5)
        out = jax.eval_shape(model.init_with_output, jax.random.key(0), image)[0]
        assert out["reconstruction"].shape == image.shape
        assert out["code"].shape == (2, -(-height // 4), -(-width // 4), 5)


def test_conv_autoencoder_learns_statistics_and_hands_the_axis_down(draw):
    """Two shards that know each other give the batch statistics of both together."""
    model = ConvAutoencoder(widths=(4, 6), act="silu")
    image = RANDOM.uniform(size=(4, 8, 8, 1)).astype(np.float32)
    variables = draw(model, (8, 8, 1))

    def statistics(model, image):
        return model.apply(variables, image, train=True, mutable=["batch_stats"])[1]

    update = jax.jit(lambda image: statistics(model, image))(image)
    parted = model.clone(axis_name="shards")
    shards = jax.vmap(lambda shard: statistics(parted, shard), axis_name="shards")
    updates = jax.jit(shards)(image.reshape(2, 2, 8, 8, 1))
    for ours, theirs in zip(jax.tree.leaves(updates), jax.tree.leaves(update), strict=True):
        np.testing.assert_allclose(ours, np.stack([theirs] * 2), rtol=1e-4, atol=1e-5)
    assert np.abs(update["batch_stats"]["encode_1"]["norm"]["mean"]).max() > 0
