"""VGG against its table of configurations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.models.vgg import VGG

KEY = jax.random.key(0, impl="rbg")

# Simonyan & Zisserman 2015, table 1, columns A to E: side of the kernel and number of maps.
TABLE_1 = {
    "vgg11": "3-64 3-128 3-256 3-256 3-512 3-512 3-512 3-512",
    "vgg13": "3-64 3-64 3-128 3-128 3-256 3-256 3-512 3-512 3-512 3-512",
    "vgg16_c": "3-64 3-64 3-128 3-128 3-256 3-256 1-256 3-512 3-512 1-512 3-512 3-512 1-512",
    "vgg16": "3-64 3-64 3-128 3-128 3-256 3-256 3-256 3-512 3-512 3-512 3-512 3-512 3-512",
    "vgg19": "3-64 3-64 3-128 3-128 3-256 3-256 3-256 3-256 3-512 3-512 3-512 3-512 3-512 3-512 "
    "3-512 3-512",
}
TABLE_1["vgg11_lrn"] = TABLE_1["vgg11"]
TABLE_1 |= {f"{name}_bn": TABLE_1[name] for name in ("vgg11", "vgg13", "vgg16", "vgg19")}

TRUNKS = dict(vgg11=9_220_480, vgg13=9_404_992, vgg16_c=9_996_096, vgg16=14_714_688)


def shapes(name: str, **fields):
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return jax.eval_shape(zoo.create_model(name, **fields).init, KEY, image)


@pytest.mark.parametrize("name", zoo.list_models("vgg*"))
def test_configurations(name):
    params = shapes(name)["params"]
    assert params["fc6"]["kernel"].shape == (7 * 7 * 512, 4096)
    convolutions = [params[key] for key in sorted(params) if key.startswith("stage")]
    kernels = [weights["conv"]["kernel"].shape for weights in convolutions]
    assert " ".join(f"{kernel[0]}-{kernel[3]}" for kernel in kernels) == TABLE_1[name]
    assert all("bias" in weights["conv"] for weights in convolutions)
    assert all(("norm" in weights) == name.endswith("_bn") for weights in convolutions)


@pytest.mark.parametrize("name", TRUNKS)
def test_trunk(name):
    weights = jax.tree.leaves(shapes(name, num_classes=0))
    assert sum(leaf.size for leaf in weights) == TRUNKS[name]


def test_stages_are_what_the_poolings_see():
    """conv5_3 has stride 16 (R-CNN, captioning); pool4 is one max away (FCN)."""
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    model = zoo.create_model("vgg16", num_classes=0)
    out, _ = jax.eval_shape(model.init_with_output, KEY, image)
    sides = [out[f"stage{k}"].shape[1:] for k in range(1, 6)]
    assert sides == [(224, 224, 64), (112, 112, 128), (56, 56, 256), (28, 28, 512), (14, 14, 512)]
    assert set(out) == {*(f"stage{k}" for k in range(1, 6)), "pooled"}


def test_local_response_normalization():
    """A-LRN is A with Krizhevsky's normalization, in his constants, after the first ReLU alone."""
    fields = dict(widths=(8, 4, 4, 4, 4), hidden=6, num_classes=3)
    plain = zoo.create_model("vgg11", **fields)
    image = 100 * np.random.default_rng(0).normal(size=(1, 32, 48, 3)).astype(np.float32)
    variables = jax.jit(plain.init)(KEY, image)
    before = np.asarray(jax.jit(plain.apply)(variables, image)["stage1"], np.float64)
    out = jax.jit(zoo.create_model("vgg11_lrn", **fields).apply)(variables, image)
    near = [np.square(before[..., max(0, i - 2) : i + 3]).sum(-1) for i in range(8)]
    expected = before / (2 + 1e-4 * np.stack(near, -1)) ** 0.75
    assert np.abs(expected - before / 2**0.75).max() > 1, "the images are bright enough to tell"
    np.testing.assert_allclose(out["stage1"], expected, rtol=1e-4, atol=1e-5)


def test_small_image():
    with pytest.raises(ValueError, match="images of at least 32 x 32 for VGG, got .1, 40, 31, 3."):
        jax.eval_shape(VGG().init, KEY, jnp.zeros((1, 40, 31, 3)))


@pytest.mark.parametrize(("padding", "side"), [("torch", 224), ("SAME", 224), (0, 220), (2, 228)])
def test_padding(padding, side):
    """Two convolutions of 3 x 3: each takes two pixels, and gets twice the padding."""
    model = zoo.create_model("vgg13", padding=padding, num_classes=0)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    out, _ = jax.eval_shape(model.init_with_output, KEY, image)
    assert out["stage1"].shape == (1, side, side, 64)
