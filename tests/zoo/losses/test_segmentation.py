"""Losses of pixels against plain numpy loops over the papers' sums, and numbers that torch gave."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.losses import dice_loss, focal_loss, lovasz_softmax, pixel_cross_entropy, pixel_weights

RANDOM = np.random.default_rng(0)
B, H, W, K = 3, 5, 4, 4
LOGITS = RANDOM.normal(0, 2, (B, H, W, K)).astype(np.float32)
MASK = RANDOM.integers(0, K, (B, H, W)).astype(np.uint8)
MASK[0, :2, 1] = 255
MASK[1][MASK[1] == 2] = 0  # an image without class 2
MASK[2] = 255  # and one without anything
KEPT = MASK != 255


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


P = softmax(LOGITS.astype(np.float64))
TRUE = np.take_along_axis(P, np.where(KEPT, MASK, 0)[..., None].astype(np.int64), -1)[..., 0]


def of_images(function):
    """function(probability [P], truth [P]) over the classes that each image holds: their mean."""
    found = []
    for p, mask, kept in zip(P, MASK, KEPT, strict=True):
        each = [function(p[kept][:, k], mask[kept] == k) for k in np.unique(mask[kept])]
        found.append(np.mean(each) if each else 0.0)
    return np.array(found)


def lovasz_of_class(p, true):
    """Equation 9 as its sum, every Jaccard loss of the first i errors counted from its sets."""
    error = np.abs(true - p)
    order = np.argsort(-error, kind="stable")
    total, before = 0.0, 0.0
    for i in range(len(order)):
        wrong = np.zeros(len(order), bool)
        wrong[order[: i + 1]] = True
        said = true ^ wrong
        lost = 1 - (said & true).sum() / (said | true).sum()
        total += error[order[i]] * (lost - before)
        before = lost
    return total


CASES = {
    "cross entropy": (pixel_cross_entropy, np.where(KEPT, -np.log(TRUE), 0)),
    "focal": (focal_loss, np.where(KEPT, -((1 - TRUE) ** 2) * np.log(TRUE), 0)),
    "focal 1/2": (
        lambda x, m: focal_loss(x, m, gamma=0.5),
        np.where(KEPT, -((1 - TRUE) ** 0.5) * np.log(TRUE), 0),
    ),
    "dice": (dice_loss, of_images(lambda p, g: 1 - 2 * (p * g).sum() / (p.sum() + g.sum()))),
    "lovasz": (lovasz_softmax, of_images(lovasz_of_class)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_ignored_pixels(name):
    loss, expected = CASES[name]

    @jax.jit
    def both(logits, mask):
        total = lambda x: (loss(x, mask).sum(), loss(x, mask))
        return jax.grad(total, has_aux=True)(logits)

    gradient, found = both(jnp.asarray(LOGITS), jnp.asarray(MASK))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~KEPT].any()
    assert np.asarray(gradient)[0][KEPT[0]].any(-1).all()


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_differences_in_float64(name):
    loss, expected = CASES[name]
    with jax.enable_x64(True):
        x, mask = jnp.asarray(LOGITS, jnp.float64), jnp.asarray(MASK)
        both = jax.jit(
            lambda x: jax.grad(lambda x: (loss(x, mask).sum(), loss(x, mask)), has_aux=True)(x)
        )
        gradient, found = both(x)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        way = 1e-6 * RANDOM.normal(size=LOGITS.shape)
        slope = np.sum(both(x + way)[1]) - np.sum(both(x - way)[1])
        np.testing.assert_allclose(2 * np.sum(gradient * way), slope, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_vmap_bfloat16_and_extremes(name):
    loss, expected = CASES[name]
    mask = jnp.asarray(MASK).astype(jnp.int32)
    one = jax.jit(jax.vmap(lambda x, m: loss(x[None], m[None])[0]))(LOGITS, mask)
    np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-6)
    small = jax.jit(loss)(jnp.asarray(LOGITS, jnp.bfloat16), mask)
    assert small.dtype == jnp.float32
    np.testing.assert_allclose(small, expected, atol=0.05, rtol=0.05)
    total = jax.jit(jax.value_and_grad(lambda x: loss(x, mask).sum()))
    sure = np.where(MASK[..., None] == np.arange(K), np.float32(1e4), np.float32(0))
    assert abs(float(total(sure)[0])) < 1e-6
    for x in (sure, -sure, 0 * sure):
        value, gradient = total(x)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    with pytest.raises(AssertionError):
        loss(jnp.asarray(LOGITS), mask[:, :-1])


def test_sums_over_many_pixels_are_exact_in_bfloat16():
    """300 pixels are more than its mantissa counts."""
    mask = np.zeros((1, 1, 300), np.uint8)
    mask[0, 0, :150] = 1
    logits = jnp.zeros((1, 1, 300, 2), jnp.bfloat16)
    for loss in (dice_loss, lovasz_softmax):
        np.testing.assert_allclose(jax.jit(loss)(logits, mask), 0.5, rtol=1e-6)


def test_lovasz_of_sure_classes_is_the_mean_of_1_less_iou():
    predicted = RANDOM.integers(0, K, (B, H, W))
    logits = jnp.asarray(1e4 * np.eye(K, dtype=np.float32)[predicted])
    expected = []
    for said, mask in zip(predicted, MASK, strict=True):
        kept = mask != 255
        pairs = [(said[kept] == k, mask[kept] == k) for k in np.unique(mask[kept])]
        each = [1 - (s & t).sum() / (s | t).sum() for s, t in pairs]
        expected.append(np.mean(each) if each else 0.0)
    np.testing.assert_allclose(jax.jit(lovasz_softmax)(logits, MASK), expected, atol=1e-6)


# x = 3 sin(0, 1, ... 11) as [1, 3, 4] and t = [0, 1, 1] * 4, as torch 2.13 and torchvision 0.28 see
# them: cross_entropy of [-x, x / 2, 0] with weight (1, 2, 0.5), ignoring the last column, and
# sigmoid_focal_loss(x, t, alpha, gamma).sum().
X = (3 * np.sin(np.arange(12.0))).reshape(1, 3, 4).astype(np.float32)
T = np.resize([0, 1, 1], (1, 3, 4)).astype(np.uint8)
TORCH = {"cross entropy": 1.779301319, (0.25, 2.0): 3.232388797, (0.6, 0.5): 6.987743944}


def test_the_weighted_mean_is_torch_s_cross_entropy():
    mask = T.copy()
    mask[..., -1] = 255
    logits = jnp.asarray(np.stack([-X, X / 2, 0 * X], -1))
    weight = np.asarray(jax.jit(partial(pixel_weights, class_weights=(1.0, 2.0, 0.5)))(mask))
    mean = np.sum(weight * jax.jit(pixel_cross_entropy)(logits, mask)) / np.sum(weight)
    np.testing.assert_allclose(mean, TORCH["cross entropy"], rtol=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.5)])
def test_focal_is_torchvision_s_sigmoid_focal_loss(alpha, gamma):
    logits = jnp.asarray(np.stack([0 * X, X], -1))
    each = np.asarray(jax.jit(partial(focal_loss, gamma=gamma))(logits, T))
    found = np.sum(np.array([1 - alpha, alpha])[T] * each)
    np.testing.assert_allclose(found, TORCH[alpha, gamma], rtol=1e-5)


def test_weights_are_of_class_times_the_map_and_0_where_ignored():
    own = RANDOM.uniform(0, 9, MASK.shape).astype(np.float32)
    scale = np.array([0.5, 1.0, 0.0, 7.0])
    found = jax.jit(partial(pixel_weights, class_weights=scale))(MASK, own)
    expected = np.where(KEPT, own * scale[np.where(KEPT, MASK, 0)], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(pixel_weights)(MASK), KEPT)
