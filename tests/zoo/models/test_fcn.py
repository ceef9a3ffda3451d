"""FCN against Caffe's arithmetic, in plain numpy; its classifiers' scores; its two forms."""

import fractions
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.zoo.test_models import COUNTS
from zoo.models.fcn import FCN, DilatedFCN, convert_classifier
from zoo.models.resnet import ResNet
from zoo.models.vgg import VGG

WIDTHS = dict(widths=(2, 4, 4, 4, 6))
NARROW = dict(hidden=7, num_classes=3)
PAPER = ("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16", "fcn8s_atonce", "fcn32s_alexnet")


def shapes(model, *sides):
    image = jax.ShapeDtypeStruct((1, *sides, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), image)


def narrow(name, **fields):
    """A variant of the paper's over few channels."""
    own = zoo.create_model(name)
    return own.clone(backbone=own.backbone.clone(**WIDTHS), **NARROW, **fields)


def dot(x, layer):
    """A layer's kernel [..., C, D] on patches [h, w, ..., C], its bias added."""
    kernel = np.asarray(layer["kernel"], np.float64)
    return np.tensordot(x, kernel, kernel.ndim - 1) + np.asarray(layer["bias"], np.float64)


def convolve(x, layer, pad, stride=1):
    x = np.pad(x, [(pad, pad), (pad, pad), (0, 0)])
    sides = layer["kernel"].shape[:2]
    patches = np.lib.stride_tricks.sliding_window_view(x, sides, (0, 1))[::stride, ::stride]
    return dot(np.moveaxis(patches, 2, -1), layer)


def pool(x, window):
    """Caffe's: the number of windows is rounded up, the last may be cut short."""
    out = [math.ceil((side - window) / 2) + 1 for side in x.shape[:2]]
    y = [
        x[2 * i : 2 * i + window, 2 * j : 2 * j + window]
        for i in range(out[0])
        for j in range(out[1])
    ]
    return np.stack([part.max((0, 1)) for part in y]).reshape(*out, -1)


def deconvolve(x, kernel, stride):
    """Every pixel lays down the bilinear kernel of the authors' surgery.py, channel by channel."""
    factor = (kernel + 1) // 2
    center = factor - 1 if kernel % 2 else factor - 0.5
    taps = 1 - np.abs(np.arange(kernel) - center) / factor
    y = np.zeros((*(stride * (side - 1) + kernel for side in x.shape[:2]), x.shape[2]))
    for i, j in np.ndindex(x.shape[:2]):
        stamp = np.multiply.outer(np.outer(taps, taps), x[i, j])
        y[stride * i : stride * i + kernel, stride * j : stride * j + kernel] += stamp
    return y


def crop(x, offset, like):
    return x[offset : offset + like[0], offset : offset + like[1]]


def head(pools, params, scales, last, offset, size):
    """From pool5 (and pool4, pool3) to the logits, as the authors' net.py."""
    x = pools[-1]
    for name in ("fc6", "fc7"):
        x = np.maximum(convolve(x, params[name], 0), 0)
    x = convolve(x, params["score"], 0)
    for k, scale in enumerate(scales):
        x = deconvolve(x, 4, 2)
        skip = convolve(scale * pools[-2 - k], params[f"score_pool{4 - k}"], 0)
        x = x + crop(skip, (5, 9)[k], x.shape)
    return crop(deconvolve(x, last, (last + 1) // 2), offset, size)


def test_vgg_as_published(draw):
    """On an image of odd sides, pixel by pixel; all nets with the weights of the finest."""
    size = (3, 38)
    variables = draw(narrow("fcn8s_vgg16"), (*size, 3))
    image = np.random.default_rng(0).uniform(size=(*size, 3))
    params, x, pools = variables["params"], image, []
    for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
        for block in range(depth):
            layer = params["backbone"][f"stage{stage}_{block}"]["conv"]
            x = np.maximum(convolve(x, layer, 100 if stage == 1 and block == 0 else 1), 0)
        pools.append(x := pool(x, 2))
    for name, scales, last, offset in (
        ("fcn32s_vgg16", (), 64, 19),
        ("fcn16s_vgg16", (1,), 32, 27),
        ("fcn8s_vgg16", (1, 1), 16, 31),
        ("fcn8s_atonce", (0.01, 0.0001), 16, 31),
    ):
        own = dict(params)
        for k, scale in enumerate(scales):  # so large that a scale of 0.0001 is seen
            layer = params[f"score_pool{4 - k}"]
            own[f"score_pool{4 - k}"] = dict(layer, kernel=layer["kernel"] / np.float32(scale))
        expected = head(pools, own, scales, last, offset, size)
        ours = narrow(name).apply({"params": own}, image[None].astype(np.float32))["logits"][0]
        assert ours.shape == (*size, 3)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_alexnet_as_published(draw):
    """CaffeNet, which normalizes after pooling; one group of channels replaces its two."""
    model, size = narrow("fcn32s_alexnet"), (30, 47)
    model = model.clone(backbone=model.backbone.clone(groups=1))
    variables = draw(model, (*size, 3))
    image = np.random.default_rng(0).uniform(-9, 9, size=(*size, 3))
    params, x = variables["params"], image
    for layer, pad in enumerate((100, 2, 1, 1, 1), 1):
        weights = params["backbone"][f"conv{layer}"]
        x = np.maximum(convolve(x, weights, pad, 4 if layer == 1 else 1), 0)
        if layer in (1, 2, 5):
            x = pool(x, 3)
        if layer < 3:
            near = [np.square(x[..., max(0, i - 2) : i + 3]).sum(-1) for i in range(x.shape[2])]
            x = x / (1 + 1e-4 / 5 * np.stack(near, -1)) ** 0.75
    expected = head([x], params, (), 63, 18, size)
    ours = jax.jit(model.apply)(variables, image[None].astype(np.float32))["logits"][0]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


VGG16 = [(3, 1, 100)] + [(3, 1, 1)] + [(2, 2, 0)]
VGG16 += ([(3, 1, 1)] * 2 + [(2, 2, 0)]) + ([(3, 1, 1)] * 3 + [(2, 2, 0)]) * 3
CAFFENET = [(11, 4, 100), (3, 2, 0), (5, 1, 2), (3, 2, 0)] + [(3, 1, 1)] * 3 + [(3, 2, 0)]


def offset(layers, last):
    """Where the image begins in the last map, by the centers of cells, in pixels of the image."""
    step, center = fractions.Fraction(1), fractions.Fraction(0)
    for kernel, stride, pad in layers:
        center += step * (fractions.Fraction(kernel - 1, 2) - pad)
        step *= stride
    stride = (last + 1) // 2
    assert step == stride
    return fractions.Fraction(last - 1, 2) - center


def test_offsets():
    """Those of the published prototxt are where the cells' centers fall on the image's pixels."""
    assert offset([*VGG16, (7, 1, 0)], 64) == 19
    assert offset([*CAFFENET, (6, 1, 0)], 63) == 18
    offsets = {name: zoo.create_model(name).upsampling for name in PAPER}
    assert offsets == dict(
        zip(PAPER, [(64, 19), (32, 27), (16, 31), (16, 31), (63, 18)], strict=True)
    )


@pytest.mark.parametrize(
    ("name", "sides"), [("fcn8s_vgg16", (1, 31)), ("fcn32s_alexnet", (1, 2, 3, 4, 44, 47))]
)
def test_any_size(name, sides):
    """There is always enough left to crop."""
    for side in sides:
        out, _ = shapes(narrow(name), side, side + 4)
        assert out["logits"].shape == (1, side, side + 4, 3)


def test_modern_form():
    """Scores of maps that keep their size, resized; all about a picture's middle as in the other."""
    model = narrow("fcn8s_vgg16", pad=None)
    for sides in ((32, 33), (95, 50)):
        out, variables = shapes(model, *sides)
        assert out["logits"].shape == (1, *sides, 3)
        assert out["stage5"].shape[1:3] == tuple(-(-side // 16) for side in sides)
    published = narrow("fcn8s_vgg16")
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes(published, 9, 9)[1])


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_scores_of_a_classifier(name, draw):
    """At 224 x 224 the middle of the score map is what the classifier says, through all its stages."""
    classifier = zoo.create_model(name, **WIDTHS, hidden=7, num_classes=3)
    of_classifier = draw(classifier, (224, 224, 3))
    window, kernel, middle = (2, 7, 3) if name == "vgg16" else (3, 6, 2)
    fields = dict(window=window, kernel=kernel)
    model = FCN(classifier.clone(num_classes=0), **NARROW, **fields, pad=None)
    fresh = draw(model, (224, 224, 3))
    variables = convert_classifier(fresh, of_classifier)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, fresh)
    assert (variables["params"]["score"]["kernel"] == fresh["params"]["score"]["kernel"]).all()
    score = of_classifier["params"]["head"]
    variables["params"]["score"] = dict(kernel=score["kernel"][None, None], bias=score["bias"])
    image = np.random.default_rng(0).uniform(size=(1, 224, 224, 3)).astype(np.float32)
    expected = classifier.apply(of_classifier, image)["logits"]
    _, seen = model.apply(variables, image, capture_intermediates=True, mutable=["intermediates"])
    (scores,) = seen["intermediates"]["score"]["__call__"]
    np.testing.assert_allclose(scores[:, middle, middle], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(scores[:, 1, 3] - expected).max() > 1e-2


def test_weights_of_published_classifiers_fit():
    """The shapes of vgg16 and vgg16_bn as loaded from torchvision, statistics with them."""
    for name in ("vgg16", "vgg16_bn"):
        _, of_classifier = shapes(zoo.create_model(name), 224, 224)
        _, variables = shapes(zoo.create_model("fcn8s_vgg16", backbone=name), 64, 64)
        made = jax.eval_shape(convert_classifier, variables, of_classifier)
        assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, variables)


def test_another_classifier():
    _, of_classifier = shapes(zoo.create_model("vgg11"), 224, 224)
    _, variables = shapes(zoo.create_model("fcn8s_vgg16"), 64, 64)
    with pytest.raises(
        ValueError, match="tensors of the FCN, but .*params/stage1_1/conv/bias"
    ) as caught:
        convert_classifier(variables, of_classifier)
    assert "\n" not in str(caught.value)


def test_a_finer_net_has_all_of_the_coarser():
    """The stages of the paper's training: names and shapes are shared, new score layers begin at 0."""
    trees = [shapes(zoo.create_model(name), 64, 64)[1]["params"] for name in PAPER[:3]]
    for coarse, fine in itertools.pairwise(trees):
        inherited = {**fine, **coarse}
        assert jax.tree.map(jnp.shape, inherited) == jax.tree.map(jnp.shape, fine)
        assert set(fine) - set(coarse) <= {"score_pool4", "score_pool3"}
    shallow = FCN(VGG(widths=(1,) * 5), scales=(1.0, 1.0), pad=None, **NARROW)
    params = jax.jit(shallow.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    for name in ("score", "score_pool4", "score_pool3"):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(params["params"][name]))


def test_multiply_adds():
    """The counts that every model is held to, by hand. Padded to 700 on a side, stage by stage: 698 and its halves, rounded up; then 16 x 16 x fc6."""
    sides, depths, macs, before = (698, 349, 175, 88, 44), (2, 2, 3, 3, 3), 0, 3
    for side, depth, width in zip(sides, depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            macs += side**2 * 9 * before * width
            before = width
    macs += 16**2 * (49 * 512 * 4096 + 4096 * 4096 + 4096 * 21)
    assert COUNTS["fcn32s_vgg16"][1] == macs
    skips = (44**2 * 512 * 21, 88**2 * 256 * 21)
    assert COUNTS["fcn16s_vgg16"][1] == macs + skips[0]
    assert COUNTS["fcn8s_vgg16"][1] == macs + sum(skips)
    conv = 173**2 * 121 * 3 * 96, 86**2 * 25 * 48 * 256
    conv += tuple(43**2 * 9 * n for n in (256 * 384, 192 * 384, 192 * 256))
    fully = 16**2 * (36 * 256 * 4096 + 4096 * 4096 + 4096 * 21)
    assert COUNTS["fcn32s_alexnet"][1] == sum(conv) + fully


def test_the_backbone_computes_as_the_assembly():
    model = zoo.create_model("fcn8s_vgg16", backbone="vgg16_bn", dtype=jnp.bfloat16, axis_name="a")
    assert (model.backbone.dtype, model.backbone.axis_name) == (jnp.bfloat16, "a")
    assert model.clone(remat=True, axis_name=None).backbone == model.backbone.clone(
        remat=True, axis_name=None
    )
    assert model.backbone.ceil and model.backbone.num_classes == 0
    assert zoo.create_model("fcn_resnet50", scan=True).backbone.scan


@pytest.mark.parametrize(("stride", "sides"), [(8, (5, 6)), (16, (3, 3)), (None, (2, 2))])
def test_output_stride(stride, sides):
    model = zoo.create_model(
        "fcn_resnet50", backbone="resnet18", num_classes=11, output_stride=stride
    )
    out, variables = shapes(model, 39, 47)
    assert out["logits"].shape == out["auxiliary_logits"].shape == (1, 39, 47, 11)
    assert out["stage4"].shape == (1, *sides, 512)
    alone, of_resnet18 = shapes(zoo.create_model("resnet18", num_classes=0), 39, 47)
    assert jax.tree.map(jnp.shape, variables["params"]["backbone"]) == jax.tree.map(
        jnp.shape, of_resnet18["params"]
    )
    assert "pooled" not in out and "pooled" in alone


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn_resnet50"])
def test_no_head(name):
    fields = dict(scan=True) if name == "fcn_resnet50" else {}
    out, variables = shapes(zoo.create_model(name, num_classes=0, **fields), 64, 64)
    assert set(variables["params"]) == {"backbone"}
    assert list(out) == [f"stage{k}" for k in range(1, 6 if name == "fcn8s_vgg16" else 5)]


def test_mistakes():
    with pytest.raises(ValueError, match="field output_stride, which DilatedFCN sets, got VGG"):
        zoo.create_model("fcn_resnet50", backbone="vgg16")
    with pytest.raises(ValueError, match="field ceil, which FCN sets, got ResNet"):
        zoo.create_model("fcn8s_vgg16", backbone="resnet18")
    with pytest.raises(ValueError, match="expected output_stride None or a power of 2 .* got 12"):
        shapes(DilatedFCN(ResNet((1, 1)), output_stride=12), 32, 32)
    with pytest.raises(ValueError, match="expected at most 2 scales"):
        FCN(VGG(), scales=(1.0, 1.0, 1.0))


def test_no_auxiliary_head():
    out, variables = shapes(zoo.create_model("fcn_resnet50", auxiliary=False, scan=True), 64, 64)
    assert "auxiliary_logits" not in out and set(variables["params"]) == {"backbone", "head"}
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == 35_322_218 - (9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21)


def test_a_file_keeps_the_backbone(tmp_path, draw):
    model = zoo.create_model(
        "fcn_resnet50", backbone=ResNet((1, 1), width=4), num_classes=3, output_stride=4
    )
    variables = draw(model, (24, 40, 3))
    zoo.save_model("fcn_resnet50", tmp_path / "a", model, variables)
    again, values = zoo.load_model("fcn_resnet50", tmp_path / "a")
    assert again == model and jax.tree.all(jax.tree.map(np.array_equal, values, variables))
