"""Weights of images in networks of clips and of flow: what these make of a still clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.zoo.conftest import draw_variables
from zoo.weights.inflate import adapt_to_flow, inflate

RANDOM = np.random.default_rng(0)
FLAT = zoo.create_model("resnet50", depths=(1, 1), width=4, num_classes=5)
DEEP = zoo.create_model("slow_r50", depths=(1, 1), width=4, frames=(3, 3), num_classes=5)


def shapes(model, *image):
    example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), example)


@pytest.mark.parametrize("how", ["mean", "center"])
def test_a_still_clip_gives_the_features_of_its_image(how):
    """A mean is right where no padding of time is met: two stages of kernels of 3, two frames deep."""
    image = RANDOM.normal(size=(1, 24, 24, 3)).astype(np.float32)
    variables = draw_variables(FLAT, (24, 24, 3))
    expected = FLAT.apply(variables, image)
    clip = np.repeat(image[:, None], 5, 1)
    deep = inflate(variables, shapes(DEEP, 5, 24, 24, 3), mode=how)
    found = jax.jit(DEEP.apply)(deep, clip)
    inside = slice(None) if how == "center" else slice(2, 3)
    for stage in ("stage1", "stage2"):
        for frame in np.moveaxis(np.asarray(found[stage]), 1, 0)[inside]:
            np.testing.assert_allclose(frame, expected[stage], rtol=1e-4, atol=1e-5)
    if how == "center":
        np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)
    else:
        assert np.abs(np.asarray(found["stage2"])[:, 0] - expected["stage2"]).max() > 1e-3


def test_weights_of_colors_for_flow():
    """Flow whose channels are alike is seen as gray is, as much stronger as it has more channels."""
    variables = draw_variables(FLAT, (24, 24, 3))
    made = adapt_to_flow(variables, shapes(FLAT, 24, 24, 20))
    kernel = np.asarray(variables["params"]["stem"]["conv"]["kernel"])
    flow = np.asarray(made["params"]["stem"]["conv"]["kernel"])
    assert flow.shape == (7, 7, 20, 4)
    np.testing.assert_allclose(flow.sum(2), kernel.sum(2) * 20 / 3, rtol=1e-5, atol=1e-6)
    assert (flow == flow[:, :, :1]).all()
    rest = jax.tree.map(np.array_equal, made, variables)
    assert jax.tree.reduce(lambda n, same: n + (not same), rest, 0) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: inflate(v, shapes(DEEP.clone(depths=(1, 2)), 5, 24, 24, 3)), "equal layers"),
        (lambda v: inflate(v, shapes(DEEP.clone(num_classes=4), 5, 24, 24, 3)), "not inflated"),
        (lambda v: inflate(v, v, mode="max"), "unknown way to inflate 'max'"),
        (lambda v: adapt_to_flow(v, shapes(FLAT.clone(width=5), 24, 24, 20)), "first kernel alone"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(draw_variables(FLAT, (24, 24, 3)))
    assert "\n" not in str(caught.value)
