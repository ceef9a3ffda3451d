"""Every variant: counts, features, and that it initializes, runs, learns and stays itself."""

import functools
import inspect
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.zoo.small_models import SMALL, small
from zoo.profile import trace_features, trace_macs
from zoo.registry import FAMILIES, variant_card


def giga(published: str):
    """Multiply-adds in 1e9, within the digits that are published."""
    _, _, digits = published.partition(".")
    return pytest.approx(float(published) * 1e9, abs=0.5 * 10 ** (9 - len(digits)))


# Parameters, multiply-adds. Dense layers have one weight per multiply-add, and a bias. LeNet-5:
# LeCun et al. 1998, section II.B, whose layers hold 156, 12, 1,516, 32, 48,120 and 10,164;
# multiply-adds are by hand: 784 * 150 + 100 * 1500 + 48,000 + 10,080, and with dense C3 and the
# output 784 * 150 + 100 * 2400 + 48,000 + 10,080 + 840. DenseNet and ViT: arithmetic over the
# papers' tables, equal to the counts that torchvision and the authors publish; so AlexNet, VGG and
# the MobileNets, of which v2_035 has the multiply-adds that TensorFlow's slim tells. U-Net: the
# counts of 2015 are published, the others by hand (tests/zoo/models/test_unet.py). FCN: the learned
# weights of the authors' nets, which of CaffeNet's are those of R-CNN's with 21 outputs, their
# multiply-adds by hand (tests/zoo/models/test_fcn.py), and both counts that torchvision publishes.
# YOLO: arithmetic over the paper's figure and darknet's files; its grid on ResNet-18 by hand, whose
# 11,176,512 weights and whose multiply-adds are four times those at 224 x 224.
# Faster R-CNN: both that torchvision publishes, at 800 x 800; of 2015 the weights of the authors'
# nets, VGG-16's trunk of 14,714,688 with them, and multiply-adds by hand at 600 x 1000
# (tests/zoo/models/test_faster_rcnn.py). Of clips:
# torchvision's own counts, PySlowFast's and pytorchvideo's, C3D's as mmaction2 has them; Ji et al.'s
# layers by hand (tests/zoo/models/test_cnn3d.py), of the two streams arithmetic over the figure.
COUNTS = {
    "alexnet": (61_100_840, giga("0.714")),
    "alexnet_2012": (60_965_224, giga("0.724")),
    "autoencoder": (2_837_314, 2 * (784_000 + 500_000 + 125_000 + 7_500)),
    "c3d": (79_991_015, giga("38.55")),
    "c3d_small": (17_444_965, giga("19.26")),
    "caffenet": (60_965_224, giga("0.724")),
    "cnn3d_ji2013": (295_458, 15_171_624),
    "conv_autoencoder": (51_945, 8_121_152),  # by hand, layer by layer
    "densenet100_k12": (6_979_642, giga("1.770")),
    "densenet100_k24": (27_249_082, giga("6.889")),
    "densenet121": (7_978_856, giga("2.834")),
    "densenet161": (28_681_000, giga("7.728")),
    "densenet169": (14_149_480, giga("3.360")),
    "densenet201": (20_013_928, giga("4.291")),
    "densenet264": (33_337_704, giga("5.752")),
    "densenet40_k12": (1_019_722, giga("0.265")),
    "densenet_bc100_k12": (769_162, giga("0.288")),
    "densenet_bc190_k40": (25_624_430, giga("9.302")),
    "densenet_bc250_k24": (15_324_406, giga("5.419")),
    "fast_rcnn_vgg16": (134_690_729, 183_989_231_616),
    "faster_rcnn": (12_319_672, 4_500_680_896),
    "fasterrcnn_resnet50_fpn": (41_755_286, giga("134.38")),
    "fasterrcnn_vgg16": (137_078_239, 225_573_931_008),
    "fcn16s_vgg16": (134_357_354, 180_924_248_832),
    "fcn32s_alexnet": (56_954_261, 20_976_403_744),
    "fcn32s_vgg16": (134_346_581, 180_903_432_960),
    "fcn8s_atonce": (134_362_751, 180_965_880_576),
    "fcn8s_vgg16": (134_362_751, 180_965_880_576),
    "fcn_resnet101": (54_314_346, giga("232.738")),
    "fcn_resnet50": (35_322_218, giga("152.717")),
    "lenet5": (60_000, 325_680),
    "lenet5_modern": (61_706, 416_520),
    "mc3_18": (11_695_440, giga("43.343")),
    "mlp": (1_276_810, 627_200 + 640_000 + 8_000),
    "mobilenet_v1": (4_231_976, giga("0.569")),
    "mobilenet_v1_025": (470_072, giga("0.041")),
    "mobilenet_v1_050": (1_331_592, giga("0.149")),
    "mobilenet_v1_075": (2_585_560, giga("0.325")),
    "mobilenet_v2": (3_504_872, giga("0.301")),
    "mobilenet_v2_025": (1_519_112, giga("0.037")),
    "mobilenet_v2_035": (1_677_128, giga("0.059")),
    "mobilenet_v2_050": (1_968_680, giga("0.097")),
    "mobilenet_v2_075": (2_636_424, giga("0.209")),
    "mobilenet_v2_140": (6_108_776, giga("0.582")),
    "perceptron": (7_850, 7_840),
    "preact_resnet1001": (10_327_706, 1_487_849_984),
    "preact_resnet110": (1_727_962, 252_887_680),
    "preact_resnet164": (1_703_258, 244_500_992),
    "rcnn_alexnet": (56_954_261, 724_406_816 - 979 * 4096),  # caffenet with 21 outputs of 1,000
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet110": (1_727_962, 252_887_680),
    "resnet1202": (19_421_274, 2_829_238_912),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet44": (658_586, 97_174_144),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet56": (853_018, 125_485_696),
    "r2plus1d_18": (31_505_325, giga("40.519")),
    "r3d_18": (33_371_472, giga("40.697")),
    "resnext101_32x8d": (88_791_336, 16_414_015_488),
    "resnext50_32x4d": (25_028_904, 4_230_479_872),
    "slow_r50": (32_454_096, 41_740_828_672),
    "slowfast_4x16_r50": (34_480_216, giga("27.64")),
    "slowfast_r101": (62_826_968, 96_396_644_352),
    "slowfast_r50": (34_566_488, giga("50.31")),
    "softmax_regression": (7_850, 7_840),
    "two_stream": (
        2 * (11_689_512 - 899 * 513) + 17 * 3136,
        2 * (1_814_073_344 - 899 * 512) + 17 * 3136 * 112 * 112,
    ),  # ResNet-18 twice, of 101 classes, one of them with 17 channels more
    "two_stream_cnn_m": (90_627_813 + 90_707_781, giga("4.278")),
    "two_stream_spatial_cnn_m": (90_627_813, giga("1.664")),
    "two_stream_temporal_cnn_m": (90_707_781, giga("2.614")),
    "unet": (31_030_658, 150_428_424_448),
    "unet_2015_release": (31_100_354, 157_294_254_336),
    "unet_same": (31_036_546, 48_096_083_968),
    "vgg11": (132_863_336, giga("7.609")),
    "vgg11_bn": (132_868_840, giga("7.609")),
    "vgg11_lrn": (132_863_336, giga("7.609")),
    "vgg13": (133_047_848, giga("11.308")),
    "vgg13_bn": (133_053_736, giga("11.308")),
    "vgg16": (138_357_544, giga("15.470")),
    "vgg16_bn": (138_365_992, giga("15.470")),
    "vgg16_c": (133_638_952, giga("11.771")),
    "vgg19": (143_667_240, giga("19.632")),
    "vgg19_bn": (143_678_248, giga("19.632")),
    "vit_b_16": (86_567_656, giga("17.56")),
    "vit_b_32": (88_224_232, giga("4.41")),
    "vit_h_14": (632_045_800, giga("167.3")),
    "vit_l_16": (304_326_632, giga("61.55")),
    "vit_l_32": (306_535_400, giga("15.38")),
    "vit_s_16": (22_050_664, giga("4.60")),
    "vit_ti_16": (5_717_416, giga("1.25")),
    "wide_resnet101_2": (126_886_696, 22_753_050_624),
    "wide_resnet50_2": (68_883_240, 11_398_021_120),
    "yolo_grid": (12_954_718, 4 * (1_814_073_344 - 512_000) + 14 * 14 * 1_777_152),
    "yolov1": (271_703_550, giga("20.285")),
    "yolov1_darknet": (197_301_875, giga("20.211")),
    "yolov1_tiny": (27_095_374, giga("1.608")),
}

README = (pathlib.Path(__file__).parent.parent.parent / "README.md").read_text()


@functools.cache
def traced(name):
    """Outputs, variables and multiply-adds at the card's size, as shapes: tracing takes seconds."""
    return trace_macs(zoo.create_model(name), variant_card(name)[0]["input"])


def test_every_variant_is_counted():
    assert set(COUNTS) == set(zoo.list_models())


def test_every_family_is_run():
    families = {name for name, family in FAMILIES.items() if set(SMALL) & set(family.VARIANTS)}
    assert families == set(FAMILIES)


@pytest.mark.parametrize("name", zoo.list_models())
def test_counts(name):
    _, variables, macs = traced(name)
    parameters = sum(weight.size for weight in jax.tree.leaves(variables["params"]))
    assert (parameters, macs) == COUNTS[name]
    assert re.search(rf"^\| `{name}` \| \w+ \| {parameters:,} \| {macs:,} \|", README, re.MULTILINE)


@pytest.mark.parametrize("name", zoo.list_models())
def test_submodules_are_named(name):
    _, variables, _ = traced(name)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(variables)]
    assert [path for path in paths if re.search(r"'[A-Z]\w*_\d+'", path)] == []


LABELLED = zoo.list_models(task="classification") + zoo.list_models(task="video")


@pytest.mark.parametrize("name", LABELLED)
def test_logits(name):
    logits = traced(name)[0]["logits"]
    assert logits.shape == (1, zoo.create_model(name).num_classes)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("name", zoo.list_models())
def test_features_and_no_head(name):
    """An image that is n strides larger gives maps that are n larger, of the card's channels."""
    card, _ = variant_card(name)
    *frames, height, width, channels = card["input"]
    ours, _, _ = traced(name)
    features, along = trace_features(zoo.create_model(name), card["input"], ours)
    most = max((stride for stride, _ in features.values()), default=0)
    later = [3 * max(along.values(), default=0)] * len(frames)
    frames = [side + more for side, more in zip(frames, later, strict=True)]
    image = (*frames, height + most, width + 2 * most, channels)
    headless = {"num_classes": 0} if card["task"] in ("classification", "video") else {}
    model = zoo.create_model(name, **headless)
    if hasattr(model, "image_size") or name.startswith(
        ("yolov1", "cnn3d")
    ):  # their weights are of one size
        larger, _, _ = trace_macs(model, image)
    else:
        variables = traced(name)[1]  # with a head's, which nobody asks for
        model = model.clone(scan=True) if hasattr(model, "scan") else model  # as it was traced
        example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        larger = jax.eval_shape(model.apply, variables, example)
    gone = set(ours) - set(larger)  # and the hidden layer of AlexNet's and VGG's head
    assert gone - {"fc7", "scores", "spatial_logits", "temporal_logits"} == (
        {"logits"} if headless else set()
    )
    assert "pooled" in larger or not headless
    assert {stage for stage in larger if "stage" in stage} == set(features)
    for stage, (stride, maps) in features.items():
        assert larger[stage].ndim == 1 + len(image) and larger[stage].shape[-1] == maps
        *more, down, across = np.subtract(larger[stage].shape, ours[stage].shape)[1:-1]
        assert (down, across) == (most // stride, 2 * most // stride)
        assert more == [late // along[stage] for late in later]


def outcome(model: nn.Module, variables, image, *, train=False):
    """What the tests compare: logits, or what else the model makes of the image."""
    collections = [name for name in variables if name != "params"] if train else False
    keys = {"dropout": jax.random.key(1), "sample": jax.random.key(2)} if train else None
    truth = (boxes_in(image),) if train and takes_targets(model) else ()
    outputs = model.apply(variables, image, *truth, train=train, rngs=keys, mutable=collections)
    outputs = outputs[0] if train else outputs
    if truth and "grid" not in outputs:
        names = [f"{part}_{what}" for part in ("rpn", "roi") for what in ("logits", "deltas")]
        found = [outputs[name].reshape(len(image), -1) for name in names if name in outputs]
        return jnp.concatenate(found, 1)
    if "auxiliary_logits" in outputs:
        return outputs["logits"] + outputs["auxiliary_logits"]
    names = ("logits", "reconstruction", "grid", "rpn_deltas", "roi_deltas")
    return next(outputs[name] for name in names if name in outputs)


def takes_targets(model: nn.Module) -> bool:
    return "targets" in inspect.signature(type(model).__call__).parameters


def boxes_in(image):
    """Two boxes in each image, and three proposals."""
    height, width = image.shape[1:3]
    sides = np.array([width, height, width, height], np.float32)
    rows = np.array([[0.1, 0.1, 0.5, 0.6], [0.4, 0.2, 0.9, 0.9], [0.0, 0.5, 0.4, 0.8]], np.float32)
    rows = np.stack([rows * sides] * len(image))
    there = np.ones(rows.shape[:2], bool)
    truth = dict(boxes=rows[:, :2], labels=np.zeros((len(image), 2), np.int32))
    truth |= dict(box_valid=there[:, :2], proposals=rows, proposal_valid=there)
    return {name: jnp.asarray(value) for name, value in truth.items()}


@pytest.fixture(scope="module", params=SMALL)
def case(request, draw):
    model, shape = small(request.param)
    image = np.random.default_rng(2).uniform(size=(3, *shape)).astype(np.float32)
    variables = draw(model, shape)
    if takes_targets(model):  # operation by operation a detector compiles for a dozen seconds
        return model, variables, image, jax.jit(lambda v: outcome(model, v, image))(variables)
    return model, variables, image, outcome(model, variables, image)


# The compiler's effort as a user has it, which tests have not (tests/conftest.py).
FULLY = dict(xla_backend_optimization_level=3, xla_llvm_disable_expensive_passes=False)


def test_jit_is_the_same(case):
    model, variables, image, plain = case
    run = jax.jit(lambda v, x: outcome(model, v, x), compiler_options=FULLY)
    jitted = run(variables, image)
    assert np.isfinite(plain).all()
    np.testing.assert_allclose(plain, jitted, rtol=1e-5, atol=1e-5)


def test_examples_do_not_mix(case):
    model, variables, image, together = case
    alone = jax.jit(jax.vmap(lambda x: outcome(model, variables, x[None])[0]))(image)
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)


def squares(model: nn.Module, variables, image):
    """A loss of the weights, in training."""

    def loss(params):
        out = outcome(model, {**variables, "params": params}, image, train=True)
        return jnp.square(out - np.random.default_rng(3).uniform(size=out.shape)).sum()

    return loss


def test_every_weight_has_a_gradient(case):
    model, variables, image, _ = case
    slope = jax.grad(squares(model, variables, image))
    grads = jax.jit(slope)(variables["params"])
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, jax.tree_util.keystr(path)


def test_remat_computes_again(case, monkeypatch):
    """Values are the training goldens' business: some of their cases have remat.

    Operations are counted as a GPU has them: a CPU's forms of the same are not to be counted too.
    """

    def usual(*arrays, default, **others):
        return default(*arrays)

    monkeypatch.setattr(jax.lax, "platform_dependent", usual)
    model, variables, image, _ = case
    if not hasattr(model, "remat"):
        return

    def operations(remat):
        loss = squares(model.clone(remat=remat), variables, image)
        return str(jax.make_jaxpr(jax.grad(loss))(variables["params"])).count(" = ")

    assert operations(remat=True) > 1.1 * operations(remat=False)


def test_bfloat16(case):
    model, variables, image, exact = case
    half = model.clone(dtype=jnp.bfloat16)
    fresh = jax.eval_shape(half.init, jax.random.key(0), image)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}
    ours = jax.jit(lambda v, x: outcome(half, v, x))(variables, image)
    assert ours.dtype == jnp.float32
    error = np.abs(ours - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.05
