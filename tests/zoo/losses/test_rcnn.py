"""The losses of Faster R-CNN against plain loops over the published sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.losses import rcnn_losses

RANDOM = np.random.default_rng(0)
B, N, R, K = 2, 6, 5, 3


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def outputs(dtype=np.float32):
    valid = np.array([[True] * 4 + [False] * 2, [True] * 6])
    positive = np.array([[True, False, True, False, True, True], [False] * 6]) & valid
    labels = np.array([[0, 3, 1, 2, 0], [0, 0, 0, 0, 0]])
    found = dict(
        rpn_logits=RANDOM.normal(0, 3, (B, N)),
        rpn_deltas=RANDOM.normal(0, 1, (B, N, 4)),
        rpn_targets=RANDOM.normal(0, 1, (B, N, 4)),
        roi_logits=RANDOM.normal(0, 3, (B, R, K + 1)),
        roi_deltas=RANDOM.normal(0, 1, (B, R, K + 1, 4)),
        roi_targets=RANDOM.normal(0, 1, (B, R, 4)),
    )
    found = {name: values.astype(dtype) for name, values in found.items()}
    found |= dict(rpn_valid=valid, rpn_positive=positive, roi_labels=labels.astype(np.int32))
    return found | dict(roi_valid=np.array([[True] * 3 + [False] * 2, [True] * 5]))


def far(a, b, sigma):
    """Fast R-CNN's equation 3 with the sigma of py-faster-rcnn."""
    total = 0.0
    for d in np.abs(a.astype(np.float64) - b):
        total += 0.5 * sigma**2 * d * d if d < 1 / sigma**2 else d - 0.5 / sigma**2
    return total


def by_loops(samples, *, rpn_sigma, roi_sigma):
    losses = {name: [] for name in ("rpn_objectness", "rpn_boxes", "roi_classes", "roi_boxes")}
    for i in range(B):
        of = {name: values[i] for name, values in samples.items()}
        rows = np.flatnonzero(of["rpn_valid"])
        chances = 1 / (1 + np.exp(-of["rpn_logits"].astype(np.float64)))
        right = [chances[j] if of["rpn_positive"][j] else 1 - chances[j] for j in rows]
        boxes = [
            far(of["rpn_deltas"][j], of["rpn_targets"][j], rpn_sigma)
            for j in rows
            if of["rpn_positive"][j]
        ]
        losses["rpn_objectness"].append(-np.log(right).sum() / len(rows))
        losses["rpn_boxes"].append(sum(boxes) / len(rows))
        rows = np.flatnonzero(of["roi_valid"])
        total, moved = 0.0, 0.0
        for j in rows:
            scores, label = of["roi_logits"][j].astype(np.float64), of["roi_labels"][j]
            total -= scores[label] - np.log(np.exp(scores).sum())
            if label:
                moved += far(of["roi_deltas"][j, label], of["roi_targets"][j], roi_sigma)
        losses["roi_classes"].append(total / len(rows))
        losses["roi_boxes"].append(moved / len(rows))
    return losses


@pytest.mark.parametrize(("roi_beta", "sigma"), [(1 / 9, 3.0), (1.0, 1.0)])
def test_sums(roi_beta, sigma):
    samples = outputs()
    ours = rcnn_losses(samples, None, roi_beta=roi_beta)
    theirs = by_loops(samples, rpn_sigma=3.0, roi_sigma=sigma)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=2e-5, err_msg=name)


def test_without_proposals_of_its_own():
    samples = {name: values for name, values in outputs().items() if name.startswith("roi")}
    assert set(rcnn_losses(samples, {})) == {"roi_classes", "roi_boxes"}


def test_nothing_sampled_is_nothing_lost():
    """An image without a valid sample, and numbers that are none where nothing is valid."""
    samples = outputs()
    for part in ("rpn", "roi"):
        samples[f"{part}_valid"] = np.zeros_like(samples[f"{part}_valid"])

    def total(logits):
        parts = rcnn_losses({**samples, "roi_logits": logits}, {})
        return sum(jnp.sum(each) for each in parts.values())

    value, slope = jax.value_and_grad(total)(jnp.asarray(samples["roi_logits"]))
    assert value == 0 and (slope == 0).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes(dtype):
    samples = {name: jnp.asarray(values) for name, values in outputs(np.float32).items()}
    logits = ("rpn_logits", "rpn_deltas", "roi_logits", "roi_deltas")
    samples |= {name: samples[name].astype(dtype) for name in logits}
    assert all(
        each.shape == (B,) and np.isfinite(each).all() for each in rcnn_losses(samples, {}).values()
    )
