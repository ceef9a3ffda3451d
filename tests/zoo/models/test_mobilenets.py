"""MobileNet v1 and v2 against their tables, and the parts that make them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.make_divisible import make_divisible
from zoo.models.mobilenet_v2 import InvertedResidual
from zoo.profile import trace_macs

KEY = jax.random.key(0, impl="rbg")


def shapes(model, side: int):
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, KEY, image)


# Million multiply-adds: Howard et al. 2017, tables 6 and 7; the README of TensorFlow's slim
# mobilenet_v2, which rounds differently.
@pytest.mark.parametrize(
    ("name", "width", "side", "millions"),
    [
        ("mobilenet_v1", 1.0, 224, 569),
        ("mobilenet_v1", 1.0, 192, 418),
        ("mobilenet_v1", 1.0, 160, 290),
        ("mobilenet_v1", 1.0, 128, 186),
        ("mobilenet_v1", 0.5, 224, 149),
        ("mobilenet_v2", 1.0, 192, 221),
        ("mobilenet_v2", 1.0, 160, 154),
        ("mobilenet_v2", 1.0, 128, 99),
        ("mobilenet_v2", 1.0, 96, 56),
        ("mobilenet_v2", 0.35, 224, 59),
    ],
)
def test_any_width_and_resolution(name, width, side, millions):
    model = zoo.create_model(name, width=width)
    _, _, macs = trace_macs(model, (side, side, 3))
    assert macs / 1e6 == pytest.approx(millions, abs=1)


def test_round_width():
    """The nearest multiple of eight that keeps nine tenths."""
    for width in np.linspace(1, 400, 1000):
        near = sorted(range(8, 420, 8), key=lambda multiple: abs(multiple - width))
        kept = next(multiple for multiple in near if multiple >= 0.9 * width)
        assert abs(make_divisible(width) - width) == abs(kept - width)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_strides_of_small_images(name):
    out, _ = shapes(zoo.create_model(name, strides=(1, 1, 2, 2, 2)), 32)
    assert [out[f"stage{k}"].shape[1] for k in (1, 2, 3, 4)] == [32, 16, 8, 4]


@pytest.mark.parametrize("name", ["mobilenet_v1_025", "mobilenet_v2_035"])
@pytest.mark.parametrize(("padding", "reach"), [("torch", 9), ("SAME", 12)])
def test_padding(name, padding, reach):
    """How far stage 1's first place sees: 1, 1 doubled and 1 or 2 more, 1, and that again.

    Torch pads both sides by one, "SAME" an even side of stride 2 on the far one alone.
    """
    model = zoo.create_model(name, padding=padding, act="linear", norm=None, num_classes=0)
    image = jnp.zeros((1, 32, 32, 3))
    ones = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes(model, 32)[1])
    first = jax.grad(lambda image: model.apply(ones, image)["stage1"][0, 0, 0].sum())
    seen = jax.jit(first)(image)  # jit leaves out what stage 1 does not need
    assert np.flatnonzero(seen[0, :, 0, 0]).tolist() == list(range(reach + 1))


@pytest.mark.parametrize(
    ("width", "stride", "added"), [(8, 1, True), (8, 2, False), (12, 1, False)]
)
def test_what_is_added(width, stride, added):
    """A block whose last norm gives 0 is the identity, or nothing where the shape changes."""
    x = jax.random.normal(KEY, (2, 6, 6, 8))
    block = InvertedResidual(width, stride=stride, expansion=3, conv=ConvNorm)
    variables = jax.jit(block.init)(KEY, x)
    assert (jax.jit(block.apply)(variables, x) < 0).any(), "no activation at the end"
    project = variables["params"]["project"]["norm"]
    project["scale"] = jnp.zeros_like(project["scale"])
    y = block.apply(variables, x)
    assert y.shape == (2, 6 // stride, 6 // stride, width)
    assert (y == (x if added else 0)).all()


def test_last_convolution_does_not_shrink():
    for name, channels in (("mobilenet_v2_035", 1280), ("mobilenet_v2_140", 1792)):
        assert shapes(zoo.create_model(name), 32)[0]["pooled"].shape == (1, channels)


def test_stochastic_depth_leaves_the_input():
    """Dropped, an example is its input; kept, its branch is that of evaluation over 1 - rate."""
    x = jax.random.normal(KEY, (64, 4, 4, 8))
    block = InvertedResidual(8, stride=1, expansion=2, conv=functools.partial(ConvNorm, norm=None))
    variables = jax.jit(block.init)(KEY, x)
    whole = block.apply(variables, x) - x
    branch = block.apply(variables, x, 0.25, train=True, rngs={"dropout": KEY}) - x
    dropped = np.asarray((branch == 0).all((1, 2, 3)))
    assert 4 < dropped.sum() < 32
    np.testing.assert_allclose(branch[~dropped], whole[~dropped] / 0.75, atol=1e-5)


def test_stochastic_depth_reaches_the_blocks():
    model = zoo.create_model("mobilenet_v2_035", dropout=0.0, stochastic_depth=0.9, num_classes=0)
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, KEY, image)

    def trained(variables, image, key):
        return model.apply(
            variables, image, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )

    drawn = str(jax.make_jaxpr(trained)(variables, image, KEY))
    assert drawn.count("name=_bernoulli") == 10  # the blocks that have an input to add
