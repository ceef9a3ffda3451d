"""C3D: counts of both heads, and the ends of its maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.zoo.conftest import draw_variables


def test_the_head_of_ucf101():
    card = zoo.model_card("c3d", num_classes=101)
    assert card.parameters == 78_409_573
    assert card.macs == pytest.approx(38.547e9, abs=0.5e6)


def test_poolings_leave_no_row_out():
    """Caffe rounds up: the seventh row of 112 / 16 is a window of its own, 4 x 4 in all."""
    shape = jax.ShapeDtypeStruct((1, 16, 112, 112, 3), jnp.float32)
    variables = jax.eval_shape(zoo.create_model("c3d").init, jax.random.key(0), shape)
    assert variables["params"]["fc6"]["kernel"].shape == (4 * 4 * 512, 4096)
    model = zoo.create_model("c3d", widths=((2,), (3,)), hidden=4, side=2, num_classes=0)
    clip = np.random.default_rng(0).normal(size=(1, 3, 6, 7, 2)).astype(np.float32)
    out = jax.jit(model.apply)(draw_variables(model, clip.shape[1:]), clip)
    maps = np.asarray(out["stage2"])[0]  # 3 frames of 3 x 4: windows of 2 and 1, 2 and 1, 2 and 2
    assert maps.shape == (3, 3, 4, 3)
    windows = [
        maps[t : t + 2, i : i + 2, j : j + 2].max((0, 1, 2))
        for t in (0, 2)
        for i in (0, 2)
        for j in (0, 2)
    ]
    np.testing.assert_allclose(out["pooled"][0], np.mean(windows, 0), rtol=1e-5)
