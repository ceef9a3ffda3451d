"""AlexNet against plain numpy, and its layers against the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.models.alexnet import AlexNet

KEY = jax.random.key(0, impl="rbg")
RANDOM = np.random.default_rng(0)


def convolve(x, weights, *, stride, padding, groups):
    """`[B, H, W, C] -> [B, h, w, D]`: each group of outputs sees its own share of the inputs."""
    kernel = weights["kernel"]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    parts = zip(np.split(windows, groups, 3), np.split(kernel, groups, 3), strict=True)
    parts = [np.einsum("bijckl,klcd->bijd", inputs, part) for inputs, part in parts]
    return np.maximum(np.concatenate(parts, 3) + weights["bias"], 0)


def pool(x):
    """3 x 3 windows, two apart: they overlap."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return windows[:, ::2, ::2].max((4, 5))


def respond(x):
    """Section 3.3 with its own constants, k = 2, n = 5, alpha = 1e-4, beta = 0.75."""
    near = [np.square(x[..., max(0, i - 2) : i + 3]).sum(-1) for i in range(x.shape[-1])]
    return x / (2 + 1e-4 * np.stack(near, -1)) ** 0.75


def error(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(
    ("name", "side", "padding", "groups"), [("alexnet_2012", 227, 0, 2), ("alexnet", 224, 2, 1)]
)
def test_by_hand(name, side, padding, groups):
    model = zoo.create_model(name, widths=(6, 4, 6, 8, 4), hidden=9, num_classes=5)
    image = 100 * RANDOM.normal(size=(2, side, side, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, KEY, image)
    variables = jax.tree.map(lambda leaf: 0.1 * RANDOM.normal(size=leaf.shape), shapes)
    out = jax.jit(model.apply)(variables, image)

    w = variables["params"]
    normalize = respond if name == "alexnet_2012" else lambda x: x
    x = convolve(image, w["conv1"], stride=4, padding=padding, groups=1)
    assert error(out["stage1"], normalize(x)) < 1e-5
    x = convolve(pool(normalize(x)), w["conv2"], stride=1, padding=2, groups=groups)
    assert error(out["stage2"], normalize(x)) < 1e-5
    x = convolve(pool(normalize(x)), w["conv3"], stride=1, padding=1, groups=1)
    x = convolve(x, w["conv4"], stride=1, padding=1, groups=groups)
    x = convolve(x, w["conv5"], stride=1, padding=1, groups=groups)
    assert error(out["stage3"], x) < 1e-5
    x = pool(x)
    assert x.shape == (2, 6, 6, 4)
    assert error(out["pooled"], x.mean((1, 2))) < 1e-5
    x = x.reshape(2, -1)
    for layer in ("fc6", "fc7"):
        x = np.maximum(x @ w[layer]["kernel"] + w[layer]["bias"], 0)
    assert error(out["fc7"], x) < 1e-5
    logits = x @ w["head"]["kernel"] + w["head"]["bias"]
    assert error(out["logits"], logits) < 1e-5


def test_layers_as_published():
    """The 2012 net's weights by layer, biases with them; 48 of 96 maps enter each half of conv2."""
    image = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    params = jax.eval_shape(zoo.create_model("alexnet_2012").init, KEY, image)["params"]
    sizes = {name: sum(w.size for w in jax.tree.leaves(params[name])) for name in params}
    assert sizes == dict(
        conv1=34_944,
        conv2=307_456,
        conv3=885_120,
        conv4=663_936,
        conv5=442_624,
        fc6=37_752_832,
        fc7=16_781_312,
        head=4_097_000,
    )


def test_start_as_published():
    """Section 5: deviations of 0.01; biases 1 where they feed ReLUs of conv2, 4, 5, fc6 and fc7."""
    model = zoo.create_model("alexnet_2012", hidden=50, num_classes=40)
    params = jax.jit(model.init)(KEY, jnp.zeros((1, 67, 67, 3)))["params"]
    for name, weights in params.items():
        assert weights["kernel"].std() == pytest.approx(0.01, rel=0.1), name
        assert (weights["bias"] == (name not in ("conv1", "conv3", "head"))).all(), name


def test_dropout_of_everything():
    """2012 drops outputs: nothing is left of fc7. Torchvision drops inputs: its bias is left."""
    image = jnp.ones((1, 67, 67, 3))
    fields = dict(widths=(2,) * 5, hidden=3, num_classes=2, bias=1.0, dropout=1.0)
    for drop_inputs in (False, True):
        model = AlexNet(**fields, drop_inputs=drop_inputs)
        shapes = jax.eval_shape(model.init, KEY, image)
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
        out = model.apply(ones, image, train=True, rngs={"dropout": KEY})
        assert (out["fc7"] == float(drop_inputs)).all()
        assert (out["logits"] == (4.0 if drop_inputs else 1.0)).all()


@pytest.mark.parametrize(("padding", "side"), [(2, 63), (0, 67), ("SAME", 57)])
def test_small_image(padding, side):
    """One pixel less and the last pooling would have nothing to see."""
    model = AlexNet(padding=padding)
    shapes, _ = jax.eval_shape(model.init_with_output, KEY, jnp.zeros((1, side, side, 3)))
    assert shapes["stage3"].shape == (1, 3, 3, 256)
    with pytest.raises(
        ValueError, match=f"at least {side} x {side} for AlexNet, got .1, {side - 1}"
    ):
        jax.eval_shape(model.init, KEY, jnp.zeros((1, side - 1, side, 3)))
