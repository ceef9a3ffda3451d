"""SlowFast: which frames its pathways see, what they cost, and that every part can be another."""

import jax
import jax.numpy as jnp
import pytest

import zoo
from zoo.cli import show
from zoo.models.slowfast import SlowFast, slow_frames


@pytest.mark.parametrize(
    ("frames", "alpha", "expected"),
    [  # of torch.linspace(0, frames - 1, frames // alpha).long()
        (32, 4, [0, 4, 8, 13, 17, 22, 26, 31]),
        (32, 8, [0, 10, 20, 31]),
        (16, 4, [0, 5, 10, 15]),
        (16, 2, [0, 2, 4, 6, 8, 10, 12, 15]),
        (8, 8, [0]),
        (3, 1, [0, 1, 2]),
    ],
)
def test_frames_of_the_slow_pathway(frames, alpha, expected):
    assert slow_frames(frames, alpha) == expected


@pytest.mark.parametrize(("frames", "alpha"), [(30, 4), (2, 4), (0, 4)])
def test_frames_that_do_not_divide(frames, alpha):
    with pytest.raises(ValueError, match=f"multiple of alpha={alpha} frames, got {frames}$"):
        slow_frames(frames, alpha)


def test_the_fast_pathway_is_light():
    """Feichtenhofer et al. 2019, section 3.2: about 20 % of the computation; by 4 x 16's table 19 %."""
    card = zoo.model_card("slowfast_4x16_r50")
    assert sum(card.pathways.values()) + 2304 * 400 == card.macs
    assert card.pathways["fast"] / card.macs == pytest.approx(0.2, abs=0.02)
    assert card.frame_strides["slow_stage4"] == 8 and card.frame_strides["fast_stage1"] == 1
    text = show.format_card(card)
    assert "for one clip of 32x224x224x3" in text
    assert "pathways       slow 79.5 %, fast 19.1 %, lateral 1.4 % of the multiply-adds" in text
    assert "slow_stage4 stride 32 and 8 frames, 2048 channels" in text
    assert "frames         32, every 2 of the video" in text


@pytest.mark.parametrize(
    ("fields", "slow", "fast"),
    [
        (dict(alpha=4, beta=8, width=64), (1, 4, 4, 4, 512), (1, 16, 4, 4, 64)),
        (dict(alpha=8, beta=2, width=16, lateral=5), (1, 2, 4, 4, 128), (1, 16, 4, 4, 64)),
        (dict(alpha=2, beta=1, width=8, stem_stride=1), (1, 8, 8, 8, 64), (1, 16, 8, 8, 64)),
        (
            dict(alpha=16, beta=4, width=32, stem_stride=1, stem_pool=False),
            (1, 1, 16, 16, 256),
            (1, 16, 16, 16, 64),
        ),
    ],
)
def test_any_ratio_and_width(fields, slow, fast):
    model = SlowFast((1, 1), slow_frames=(1, 3), fast_frames=(3, 3), num_classes=5, **fields)
    video = jax.ShapeDtypeStruct((1, 16, 32, 32, 3), jnp.float32)
    out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), video)
    assert out["slow_stage2"].shape == slow and out["fast_stage2"].shape == fast
    assert out["pooled"].shape == (1, slow[-1] + fast[-1]) and out["logits"].shape == (1, 5)


def test_a_width_that_beta_does_not_divide():
    model = SlowFast((1,), width=12, beta=8, slow_frames=(1,), fast_frames=(3,))
    with pytest.raises(ValueError, match="expected a width that beta=8 divides, got 12"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 16, 16, 3)))
