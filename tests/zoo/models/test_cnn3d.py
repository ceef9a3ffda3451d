"""The 3-D CNN of Ji et al.: which maps a kernel sees, place by place, and the published counts."""

import itertools

import jax
import numpy as np
import pytest

import zoo
from tests.zoo.conftest import draw_variables
from zoo.models.cnn3d import KINDS

FIELDS = dict(kernels=((2, 3), (2, 2)), windows=(2, 2), width=3, sets=2, more=3)


def squashed(maps, kinds, kernels, per, window, scale, bias):
    """Maps {(kind, time, set): [H, W]} through a layer and its subsampling, in numpy.

    `per` tells which kernels of a kind see maps of a set, {set: columns of the kernel}.
    """
    made = []
    for kind in kinds:
        kernel, offset = (np.asarray(kernels[kind][name], float) for name in ("kernel", "bias"))
        times = sorted({t for k, t, _ in maps if k == kind})
        for t in times[:-2]:
            for own, columns in per.items():
                for column in columns:
                    _, rows, sides, _, _ = kernel.shape
                    stack = [maps[kind, t + d, own] for d in range(3)]
                    height, width = stack[0].shape
                    y = np.zeros((height - rows + 1, width - sides + 1))
                    for i, j in itertools.product(*map(range, y.shape)):
                        seen = np.stack([m[i : i + rows, j : j + sides] for m in stack])
                        y[i, j] = (seen * kernel[..., 0, column]).sum() + offset[column]
                    made.append(((kind, t, column), np.tanh(y)))
    out = {}
    for place, (key, y) in enumerate(made):
        h, w = (side // window for side in y.shape)
        means = y[: h * window, : w * window].reshape(h, window, w, window).mean((1, 3))
        out[key] = np.tanh(means * scale[place] + bias[place])
    return out


def test_maps_are_seen_by_kernels_of_their_kind():
    model = zoo.create_model("cnn3d_ji2013", **FIELDS)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 9, 10, 28)).astype(np.float32)
    variables = draw_variables(model, x.shape[1:])
    out = jax.jit(model.apply)(variables, x)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, float), variables["params"])
    counts, maps, place = dict(zip(KINDS, (6, 6, 6, 5, 5), strict=True)), {}, 0
    for kind in KINDS:
        for t in range(counts[kind]):
            maps[kind, t, 0] = x[0, ..., place].astype(float)
            place += 1
    kernels = {kind: p[f"c2_{kind}"] for kind in KINDS}
    ends = (p["s3"]["scale"], p["s3"]["bias"])
    maps = squashed(maps, KINDS, kernels, {0: (0, 1)}, 2, *ends)
    np.testing.assert_allclose(out["stage1"][0], np.stack(list(maps.values()), -1), atol=1e-5)
    kernels = {kind: p[f"c4_{kind}"] for kind in KINDS}
    ends = (p["s5"]["scale"], p["s5"]["bias"])
    maps = squashed(maps, KINDS, kernels, {0: (0, 1, 2), 1: (3, 4, 5)}, 2, *ends)
    whole = np.stack(list(maps.values()), -1)
    np.testing.assert_allclose(out["stage2"][0], whole, atol=1e-5)
    units = np.einsum("hwc,hwcd->d", whole, p["c6"]["kernel"]) + p["c6"]["bias"].sum(0)
    np.testing.assert_allclose(out["pooled"][0], np.tanh(units), atol=1e-5)
    expected = np.tanh(units) @ p["output"]["kernel"]
    np.testing.assert_allclose(out["logits"][0], expected, atol=1e-5)


def test_weights_of_each_layer():
    """Section 2.2: 1,480, then two for each of 46 maps, 3,810, 156, 289,536 and 384."""
    example = jax.ShapeDtypeStruct((1, 60, 40, 33), np.float32)
    params = jax.eval_shape(zoo.create_model("cnn3d_ji2013").init, jax.random.key(0), example)[
        "params"
    ]
    counts = {}
    for layer, weights in params.items():
        name = layer.split("_")[0]
        counts[name] = counts.get(name, 0) + sum(leaf.size for leaf in jax.tree.leaves(weights))
    assert counts == dict(c2=1480, s3=92, c4=3810, s5=156, c6=289_536, output=384)
    macs = 294 * 23 * 54 * 34 + 756 * 13 * 21 * 12 + 128 * 78 * 28 + 384
    assert zoo.model_card("cnn3d_ji2013").macs == macs


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 60, 40, 32), "5 T - 2 maps"),
        ((1, 60, 40, 23), "6 or more"),
        ((1, 60, 6, 33), r"maps of at least \(7, 7\) for c2, got"),
    ],
)
def test_maps_that_are_none(shape, message):
    example = jax.ShapeDtypeStruct(shape, np.float32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(zoo.create_model("cnn3d_ji2013").init, jax.random.key(0), example)


def test_other_clips():
    """16 frames of 32 x 32: 78 maps."""
    example = jax.ShapeDtypeStruct((1, 32, 32, 78), np.float32)
    model = zoo.create_model("cnn3d_ji2013", num_classes=10)
    out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), example)
    assert out["stage2"].shape == (1, 2, 2, ((16 - 4) * 3 + (15 - 4) * 2) * 6)
