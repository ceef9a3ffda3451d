"""Every lowering against XLA's own convolution: values, gradients, their gradients."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.zoo.ops.assertions import close, gradients
from zoo.ops import convolution
from zoo.ops.conv_spec import NHWC, ConvSpec
from zoo.ops.convolution import conv_general_dilated

# Image [B, H, W, C], kernel [h, w, C / groups, D], strides, padding, dilation, groups, lowering.
CASES = {
    "depthwise": ((2, 9, 7, 6), (3, 3, 1, 6), 1, "SAME", 1, 6, "conv_depthwise"),
    "depthwise stride 2": ((2, 9, 8, 6), (3, 3, 1, 6), 2, [(1, 1)] * 2, 1, 6, "conv_depthwise"),
    "depthwise 5x5 SAME": ((1, 8, 11, 4), (5, 5, 1, 4), 2, "SAME", 1, 4, "conv_depthwise"),
    "depthwise 7x7 VALID": ((1, 9, 9, 3), (7, 7, 1, 3), 1, "VALID", 1, 3, "conv_depthwise"),
    "depthwise dilated": ((1, 9, 9, 4), (3, 3, 1, 4), 1, [(2, 2)] * 2, 2, 4, "conv_depthwise"),
    "depthwise uneven": ((1, 7, 9, 4), (1, 3, 1, 4), (1, 2), [(0, 1), (2, 0)], 1, 4, "conv_depthwise"),
    "grouped": ((2, 6, 5, 12), (3, 3, 3, 8), 1, "SAME", 1, 4, "conv_grouped"),
    "grouped stride 2": ((1, 7, 7, 64), (3, 3, 4, 64), 2, [(1, 1)] * 2, 1, 16, "conv_grouped"),
    "grouped wide": ((1, 5, 5, 96), (3, 3, 48, 8), 1, "VALID", 1, 2, "conv_grouped"),
    "grouped multiplier": ((1, 5, 5, 6), (3, 3, 1, 12), 1, "SAME", 1, 6, "conv_grouped"),
    "pointwise": ((2, 5, 4, 6), (1, 1, 6, 3), 1, "VALID", 1, 1, "conv_pointwise"),
    "pointwise stride 2": ((1, 7, 6, 6), (1, 1, 6, 3), 2, "SAME", 1, 1, "conv_pointwise"),
    "pointwise that widens": ((2, 5, 4, 6), (1, 1, 6, 9), 1, "VALID", 1, 1, "conv_pointwise"),
    "colors stride 2": ((2, 9, 8, 3), (3, 3, 3, 4), 2, [(1, 1)] * 2, 1, 1, "conv_dense"),
    "colors uneven": ((1, 8, 7, 3), (3, 3, 3, 4), 2, [(0, 1)] * 2, 1, 1, "conv_dense"),
    "colors 5x2": ((1, 8, 9, 1), (5, 2, 1, 4), (1, 2), "SAME", 1, 1, "conv_dense"),
    "dense": ((1, 6, 6, 3), (3, 3, 3, 4), 1, "SAME", 1, 1, "conv_dense"),
}  # fmt: skip


def pair(n):
    return n if isinstance(n, tuple) else (n, n)


def arguments(case, dtype=jnp.float32):
    image, kernel, strides, padding, dilation, groups, _ = CASES[case]
    random = np.random.default_rng(0)
    x, w = (jnp.asarray(random.normal(size=shape), dtype) for shape in (image, kernel))
    keywords = dict(rhs_dilation=pair(dilation), dimension_numbers=NHWC, feature_group_count=groups)
    ours, xla = (
        functools.partial(f, window_strides=pair(strides), padding=padding, **keywords)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    return x, w, ours, xla


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    x, w, ours, xla = arguments(case)
    close(jax.jit(ours)(x, w), jax.jit(xla)(x, w))
    close(*(jax.jit(functools.partial(gradients, f))(x, w) for f in (ours, xla)))


@pytest.mark.parametrize("case", CASES)
def test_the_table_tells_how(case):
    *_, padding, _dilation, groups, name = CASES[case]
    x, w, *_ = arguments(case)
    pads = () if isinstance(padding, str) else padding
    found = convolution.choose_lowering(x, w, ConvSpec((1, 1), tuple(pads), (1, 1), groups))
    assert found.__name__ == name


@pytest.mark.parametrize(
    "case",
    [
        "depthwise stride 2",
        "grouped",
        "pointwise stride 2",
        "pointwise that widens",
        "colors uneven",
    ],
)
def test_gradients_of_gradients(case):
    x, w, ours, xla = arguments(case)

    def slope(convolve, x, w):
        def norm(x, w):
            return sum(jnp.sum(jnp.sin(g)) for g in gradients(convolve, x, w))

        return jax.grad(norm, argnums=(0, 1))(x, w)

    close(*(jax.jit(functools.partial(slope, f))(x, w) for f in (ours, xla)), tolerance=1e-4)


@pytest.mark.parametrize(
    "case", ["depthwise", "grouped", "pointwise", "pointwise that widens", "colors stride 2"]
)
def test_vmap(case):
    x, w, ours, xla = arguments(case)
    many = jnp.stack([x, 2 * x, -x])
    both = (
        jax.jit(jax.vmap(functools.partial(gradients, f), (0, None)))(many, w) for f in (ours, xla)
    )
    close(*both)


@pytest.mark.parametrize("case", ["depthwise", "grouped", "pointwise", "pointwise that widens"])
def test_bfloat16(case):
    """As near to the exact values as XLA's own, and of its type."""
    x, w, ours, xla = arguments(case, jnp.bfloat16)
    exact = xla(x.astype(jnp.float32), w.astype(jnp.float32))
    y = ours(x, w)
    assert y.dtype == jnp.bfloat16
    close(y.astype(jnp.float32), exact, tolerance=1e-2)
    for grad in gradients(ours, x, w):
        assert grad.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "case", ["pointwise", "pointwise stride 2", "pointwise that widens", "colors stride 2"]
)
def test_forward_mode(case):
    x, w, ours, xla = arguments(case)
    both = (jax.jit(lambda x, w, f=f: jax.jvp(f, (x, w), (2 * x, -w)))(x, w) for f in (ours, xla))
    close(*both)


@pytest.mark.parametrize("case", ["depthwise", "grouped"])
def test_forward_mode_says_so(case):
    x, w, ours, _ = arguments(case)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: ours(x, w), (x,), (x,))


@pytest.mark.parametrize(
    "keywords",
    [
        dict(dimension_numbers=("NCHW", "OIHW", "NCHW")),
        dict(dimension_numbers=NHWC, lhs_dilation=(2, 2)),
        dict(dimension_numbers=NHWC, preferred_element_type=jnp.float32),
    ],
)
def test_others_are_left_to_xla(keywords):
    x, w = jnp.ones((2, 4, 4, 4), jnp.bfloat16), jnp.ones((4, 4, 4, 4), jnp.bfloat16)
    both = (
        functools.partial(f, window_strides=(1, 1), padding=[(1, 1)] * 2, **keywords)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    ours, xla = (jax.make_jaxpr(f)(x, w) for f in both)
    assert str(ours) == str(xla)


def test_signature_is_the_same():
    ours, theirs = (
        inspect.signature(f).parameters for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


def test_a_kernels_gradient_stands_where_a_cpu_brings_it_to_its_fast_layout():
    """Within a called function XLA:CPU leaves it as it is, and takes sixty times as long."""

    def loss(x, w):
        convolved = conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)
        return jnp.square(convolved).sum()

    with jax.default_device(jax.devices("cpu")[0]):
        arguments = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4, 4))
        text = jax.jit(jax.grad(loss, 1)).lower(*arguments).compile().as_text()
    assert set(re.findall(r"dim_labels=(\w+->\w+)", text)) == {"b01f_01io->b01f"}
