"""Resizing against jax.image.resize, and against values of torch.nn.functional.interpolate."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.ops.resize import bilinear_deconvolution, linear_matrix, resize

CASES = {  # [B, H, W, C], H', W', method, antialias
    "nearest twice": ((2, 5, 4, 3), 10, 8, "nearest", True),
    "nearest uneven": ((1, 5, 7, 2), 8, 3, "nearest", True),
    "linear twice": ((2, 5, 4, 3), 10, 8, "linear", True),
    "linear 8 times": ((1, 3, 1, 2), 24, 8, "linear", False),
    "linear uneven": ((1, 5, 7, 2), 8, 9, "linear", True),
    "linear smaller": ((1, 9, 8, 2), 4, 3, "linear", True),
    "linear smaller, aliased": ((1, 9, 8, 2), 4, 3, "linear", False),
    "linear one axis": ((1, 4, 5, 2), 4, 10, "linear", True),
}


def arguments(case, dtype=jnp.float32):
    shape, height, width, method, antialias = CASES[case]
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    size = (shape[0], height, width, shape[3])
    return x, (
        functools.partial(f, shape=size, method=method, antialias=antialias)
        for f in (resize, jax.image.resize)
    )


def gradient(f, x):
    y, back = jax.vjp(f, x)
    return y, back(jnp.sin(y))[0]


def close(ours, theirs, tolerance=1e-5):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), tolerance, tolerance
        )


@pytest.mark.parametrize("case", CASES)
def test_as_jax(case):
    x, both = arguments(case)
    close(*(jax.jit(functools.partial(gradient, f))(x) for f in both))


@pytest.mark.parametrize("case", ["nearest twice", "linear twice", "linear uneven"])
def test_vmap_and_forward_mode(case):
    x, both = arguments(case)
    many = jnp.stack([x, 2 * x])
    close(*(jax.vmap(lambda x, f=f: jax.jvp(f, (x,), (x,)))(many) for f in both))


@pytest.mark.parametrize("case", ["nearest twice", "linear twice", "linear uneven"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_types(case, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x, both = arguments(case, dtype)
        close(*([f(x)] for f in both), tolerance=2e-2 if dtype == jnp.bfloat16 else 1e-6)


TORCH = {  # of [0, 1, 4, 9, 16]: interpolate(x, size, mode="linear", align_corners=, antialias as bilinear)
    ("corners", 3): [0.0, 4.0, 16.0],
    ("corners", 9): [0.0, 0.5, 1.0, 2.5, 4.0, 6.5, 9.0, 12.5, 16.0],
    ("centers", 10): [0.0, 0.25, 0.75, 1.75, 3.25, 5.25, 7.75, 10.75, 14.25, 16.0],
    ("centers", 2): [0.75, 10.75],
}


@pytest.mark.parametrize("case", TORCH)
def test_as_torch(case):
    kind, size = case
    x = jnp.asarray([[0.0, 1.0, 4.0, 9.0, 16.0]])
    y = resize(x, (1, size), "linear", antialias=False, align_corners=kind == "corners")
    np.testing.assert_allclose(y[0], TORCH[case], atol=1e-6)


def test_rows_are_means():
    for length, size in [(1, 7), (7, 1), (5, 3), (3, 5)]:
        for corners in (False, True):
            rows = linear_matrix(length, size, align_corners=corners).sum(1)
            np.testing.assert_allclose(rows, 1)


def test_signature():
    ours, theirs = (list(inspect.signature(f).parameters) for f in (resize, jax.image.resize))
    assert ours[: len(theirs)] == theirs


def test_mistakes():
    with pytest.raises(ValueError, match="'cubic'"):
        resize(jnp.ones((2, 2)), (4, 4), "cubic")
    with pytest.raises(ValueError, match="one number per axis"):
        resize(jnp.ones((2, 2)), (4,), "linear")


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8), (63, 32)])
def test_bilinear_deconvolution(kernel, stride):
    """XLA's transposed convolution with the kernel of FCN's surgery.py on the diagonal."""
    factor = (kernel + 1) // 2
    center = factor - 1 if kernel % 2 else factor - 0.5
    taps = 1 - np.abs(np.arange(kernel) - center) / factor
    weights = np.einsum("i,j,cd->ijcd", taps, taps, np.eye(2)).astype(np.float32)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 2)).astype(np.float32)
    full = [(kernel - 1, kernel - 1)] * 2
    expected = jax.lax.conv_transpose(
        x, weights, (stride, stride), full, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = bilinear_deconvolution(jnp.asarray(x), kernel=kernel, stride=stride)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_bilinear_kernels():
    with pytest.raises(ValueError, match="expected a kernel of 7 or 8 for stride 4, got 6"):
        bilinear_deconvolution(jnp.zeros((1, 2, 2, 1)), kernel=6, stride=4)
