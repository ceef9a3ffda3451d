"""Every variant: counts, features, and that it initialises, runs, learns and stays itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.registry import FAMILIES

# Parameters, multiply-adds. Dense layers have one weight per multiply-add, and a bias. LeNet-5: LeCun et al. 1998, section II.B, whose layers hold 156, 12,
# 1,516, 32, 48,120 and 10,164; multiply-adds are by hand: 784 * 150 + 100 * 1500 + 48,000 + 10,080,
# and with dense C3 and the output 784 * 150 + 100 * 2400 + 48,000 + 10,080 + 840.
COUNTS = {
    "autoencoder": (2_837_314, 2 * (784_000 + 500_000 + 125_000 + 7_500)),
    "conv_autoencoder": (51_945, 8_121_152),  # by hand, layer by layer
    "lenet5": (60_000, 325_680),
    "lenet5_modern": (61_706, 416_520),
    "mlp": (1_276_810, 627_200 + 640_000 + 8_000),
    "perceptron": (7_850, 7_840),
    "softmax_regression": (7_850, 7_840),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
    "wide_resnet50_2": (68_883_240, 11_398_021_120),
    "wide_resnet101_2": (126_886_696, 22_753_050_624),
    "resnext50_32x4d": (25_028_904, 4_230_479_872),
    "resnext101_32x8d": (88_791_336, 16_414_015_488),
}

# The cheapest of each family (and LeNet twice: its two faces share little).
SMALL = {
    "autoencoder": dict(widths=(12, 5)),
    "conv_autoencoder": dict(widths=(4, 6), act="silu"),
    "lenet5": {},
    "lenet5_modern": {},
    "mlp": dict(widths=(12, 9)),
    "resnet18": {},
}


def test_every_variant_is_counted():
    assert set(COUNTS) == set(zoo.list_models())


def test_every_family_is_run():
    families = {name for name, family in FAMILIES.items() if set(SMALL) & set(family.VARIANTS)}
    assert families == set(FAMILIES)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    card = zoo.model_card(name)
    assert (card.parameters, card.macs) == COUNTS[name]


@pytest.mark.parametrize("name", zoo.list_models())
def test_features_at_another_size(name):
    """Two images that differ by n strides give maps that differ by n, of the card's channels."""
    card = zoo.model_card(name)
    if not card.features:
        return
    most = max(stride for stride, _ in card.features.values())
    model = zoo.create_model(name, num_classes=0)

    def shapes(more):
        height, width, channels = card.input
        image = jnp.zeros((2, height + more * most, width + 2 * more * most, channels))
        return jax.eval_shape(model.init_with_output, jax.random.key(0), image)[0]

    one, three = shapes(1), shapes(3)
    assert {stage for stage in one if stage.startswith("stage")} == set(card.features)
    for stage, (stride, channels) in card.features.items():
        grown = (2 * most // stride, 4 * most // stride)
        assert one[stage].ndim == 4 and one[stage].shape[3] == channels
        assert tuple(np.subtract(three[stage].shape, one[stage].shape)[1:3]) == grown


@pytest.mark.parametrize("name", [n for n in zoo.list_models(task="classification")])
def test_number_of_classes(name):
    image = jnp.zeros((3, *zoo.model_card(name).input))

    def shapes(**fields):
        model = zoo.create_model(name, **fields)
        return jax.eval_shape(model.init_with_output, jax.random.key(0), image)[0]

    assert "logits" not in shapes(num_classes=0) and "pooled" in shapes(num_classes=0)
    logits = shapes()["logits"]
    assert (logits.shape, logits.dtype) == ((3, 10), jnp.float32)


def outcome(model: nn.Module, variables, image, *, train=False):
    """What the tests compare: logits, or what else the model makes of the image."""
    collections = [name for name in variables if name != "params"] if train else False
    keys = {"dropout": jax.random.key(1)} if train else None
    outputs = model.apply(variables, image, train=train, rngs=keys, mutable=collections)
    outputs = outputs[0] if train else outputs
    return outputs["logits"] if "logits" in outputs else outputs["reconstruction"]


@pytest.fixture(scope="module", params=SMALL)
def case(request, draw):
    model = zoo.create_model(request.param, **SMALL[request.param])
    shape = zoo.model_card(request.param).input
    image = np.random.default_rng(2).uniform(size=(3, *shape)).astype(np.float32)
    return model, draw(model, shape), image


def test_jit_is_the_same(case):
    model, variables, image = case
    plain = outcome(model, variables, image)
    jitted = jax.jit(lambda v, x: outcome(model, v, x))(variables, image)
    assert np.isfinite(plain).all()
    np.testing.assert_allclose(plain, jitted, rtol=1e-5, atol=1e-5)


def test_examples_do_not_mix(case):
    model, variables, image = case
    alone = jax.jit(jax.vmap(lambda x: outcome(model, variables, x[None])[0]))(image)
    np.testing.assert_allclose(alone, outcome(model, variables, image), rtol=1e-5, atol=1e-5)


def test_every_weight_has_a_gradient(case):
    model, variables, image = case
    target = np.random.default_rng(3).uniform(size=outcome(model, variables, image).shape)

    def loss(params):
        out = outcome(model, {**variables, "params": params}, image, train=True)
        return jnp.square(out - target).sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, jax.tree_util.keystr(path)


def test_bfloat16(case):
    model, variables, image = case
    half = model.clone(dtype=jnp.bfloat16)
    fresh = jax.eval_shape(half.init, jax.random.key(0), image)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}
    ours, theirs = (
        jax.jit(lambda v, x, m=m: outcome(m, v, x))(variables, image) for m in (half, model)
    )
    assert ours.dtype == jnp.float32
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert 0 < error < 0.05
