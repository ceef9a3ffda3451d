"""Every operation against Pillow, every table's form, and the law of every draw."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from train.augment import policies
from train.augment.policies import (
    AUTO_AUGMENT_RANGE,
    CIFAR10,
    IMAGENET,
    OPERATIONS,
    SIGNED,
    TRIVIAL_AUGMENT_RANGE,
)

STRENGTHS = (-0.95, -0.4, 0.0, 0.3, 0.9)
REACHES = {"learned": AUTO_AUGMENT_RANGE, "wide": TRIVIAL_AUGMENT_RANGE}
# The numbers of the papers, beside the code's own: shear, translation, turn, blend, bits lost.
PUBLISHED = {
    "learned": (0.3, lambda side: 150 / 331 * side, 30.0, 0.9, 4),
    "wide": (0.99, lambda side: 32.0, 135.0, 0.99, 6),
}


def pillow(image: np.ndarray, name: str, strength: float, reach: str) -> np.ndarray:
    """What the operation is in Pillow's words: [H, W, 3] uint8 -> [H, W, 3] uint8."""
    picture, size = Image.fromarray(image), image.shape[1::-1]
    shear, translation, turn, blend, bits = PUBLISHED[reach]
    affine = partial(picture.transform, size, Image.Transform.AFFINE)
    enhance = {
        "brightness": ImageEnhance.Brightness,
        "saturation": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in enhance:
        return np.asarray(enhance[name](picture).enhance(1 + strength * blend))
    operation = dict(
        identity=lambda: picture,
        shear_x=lambda: affine((1, strength * shear, 0, 0, 1, 0)),
        shear_y=lambda: affine((1, 0, 0, strength * shear, 1, 0)),
        translate_x=lambda: affine((1, 0, -round(strength * translation(size[0])), 0, 1, 0)),
        translate_y=lambda: affine((1, 0, 0, 0, 1, -round(strength * translation(size[1])))),
        rotate=lambda: picture.rotate(strength * turn),
        posterize=lambda: ImageOps.posterize(picture, 8 - round(abs(strength) * bits)),
        solarize=lambda: ImageOps.solarize(picture, 255 * (1 - abs(strength))),
        autocontrast=lambda: ImageOps.autocontrast(picture),
        equalize=lambda: ImageOps.equalize(picture),
        invert=lambda: ImageOps.invert(picture),
    )
    return np.asarray(operation[name]())


@partial(jax.jit, static_argnames="reach")
def every_operation(image: jax.Array, strength: float, *, reach: str) -> jax.Array:
    """[H, W, 3] -> [15, H, W, 3]."""

    def one(operation: jax.Array) -> jax.Array:
        strengths = jnp.full(1, strength, jnp.float32)
        return policies.apply_operations(
            image, operation[None], strengths, reach=REACHES[reach], fill=0.0
        )

    return jax.vmap(one)(jnp.arange(len(OPERATIONS)))


def applied(image: np.ndarray, reach: str, strengths=STRENGTHS) -> np.ndarray:
    """[H, W, 3] -> [15, len(strengths), H, W, 3]."""
    rows = [every_operation(jnp.asarray(image), s, reach=reach) for s in strengths]
    return np.stack([np.asarray(row) for row in rows], 1)


@pytest.mark.parametrize("reach", REACHES)
def test_every_operation_is_pillows(photograph, reach):
    changed = set()
    for name, row in zip(OPERATIONS, applied(photograph, reach), strict=True):
        for strength, ours in zip(STRENGTHS, row, strict=True):
            theirs = pillow(photograph, name, strength, reach).astype(int)
            difference = np.abs(ours.astype(int) - theirs).max(-1)
            bound = 2 if name == "contrast" else 1  # Pillow's mean gray is a whole level
            assert np.mean(difference > bound) < 0.01, (name, strength)
            changed |= {(name, strength)} if not np.array_equal(ours, photograph) else set()
    for name in OPERATIONS[1:]:
        rests = name in (*SIGNED, "posterize")  # solarize still inverts white
        expected = [s for s in STRENGTHS if s or not rests]
        assert [s for s in STRENGTHS if (name, s) in changed] == expected, name


def test_floats_are_treated_as_levels(photograph):
    """Within half a level, of which a steep table (equalize) may make one entry's step."""
    levels = applied(photograph, "learned").astype(float)
    floats = applied((photograph / 255).astype(np.float32), "learned")
    assert floats.dtype == np.float32
    assert np.abs(floats * 255 - levels).max() < 1.01


def test_in_turn_is_side_by_side(photograph):
    """What a CPU computes image by image is what a vmapped switch gives."""

    def side_by_side(operation: jax.Array) -> jax.Array:
        branches = policies.operation_branches(AUTO_AUGMENT_RANGE, 0.0)
        return jax.lax.switch(operation, branches, jnp.asarray(photograph), jnp.float32(0.3))

    switched = np.asarray(jax.jit(jax.vmap(side_by_side))(jnp.arange(len(OPERATIONS))), int)
    ours = applied(photograph, "learned", (0.3,))[:, 0]
    assert np.abs(switched - ours).max() <= 1 and np.mean(switched != ours) < 1e-3


@pytest.mark.parametrize("table", [IMAGENET, CIFAR10], ids=["imagenet", "cifar10"])
def test_tables(table):
    assert len(table) == 25
    for row in table:
        assert len(row) == 6 and set(row[::3]) <= set(OPERATIONS)
        assert all(0 <= probability <= 1 for probability in row[1::3])
        assert all(magnitude in range(10) for magnitude in row[2::3])
    assert set(SIGNED) == {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"} | {
        "brightness",
        "saturation",
        "contrast",
        "sharpness",
    }


def test_auto_augment_draws_its_rows_evenly():
    """Four rows that leave four marks on a gray of 100: 100, 155, 90 (by half, 100), 155 or 100."""
    table = (
        ("identity", 1.0, 0, "identity", 1.0, 0),
        ("invert", 1.0, 0, "identity", 1.0, 0),
        ("brightness", 1.0, 9, "identity", 1.0, 0),
        ("solarize", 0.5, 9, "posterize", 1.0, 9),
    )
    image = jnp.full((2, 2, 1), 100, jnp.uint8)
    function = partial(policies.auto_augment, image=image, policy=table)
    drawn = np.asarray(jax.jit(jax.vmap(function))(keys := split(1600)))[:, 0, 0, 0]
    assert len(keys) == 1600
    # 10 and 190 are brightness down and up; 144 and 96 are posterized, after solarizing or not.
    counts = {level: int(np.sum(drawn == level)) for level in (100, 155, 10, 190, 144, 96)}
    assert sum(counts.values()) == 1600
    for levels, expected in (((100,), 400), ((155,), 400), ((10,), 200), ((190,), 200)):
        assert abs(counts[levels[0]] - expected) < 5 * np.sqrt(expected), counts
    for level in (144, 96):
        assert abs(counts[level] - 200) < 5 * np.sqrt(200), counts


def split(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


def test_rand_augment_draws_its_operations_evenly(photograph):
    """One operation at full strength: every result is one of the table's, each about as often."""
    image = jnp.asarray(photograph)
    function = partial(policies.rand_augment, image=image, count=1, magnitude=30)
    drawn = np.asarray(jax.jit(jax.vmap(function))(split(1400)))
    operation, strength = np.divmod(nearest(drawn, applied(photograph, "learned", (-1.0, 1.0))), 2)
    counts = np.bincount(operation, minlength=len(OPERATIONS))
    assert counts[-1] == 0, "invert is not drawn"
    assert np.all(np.abs(counts[:-1] - 100) < 5 * np.sqrt(93)), counts
    assert 25 < np.sum(strength[operation == OPERATIONS.index("rotate")]) < 75


def test_rand_augment_applies_one_after_the_other():
    """Two of 14 on one gray level: only those that leave their marks on a constant, in pairs."""
    image = jnp.full((24, 20, 3), 200, jnp.uint8)
    single = {
        int(x) for x in applied(np.asarray(image), "learned", (-1.0, 1.0))[:-1, :, 12, 10, 0].flat
    }
    function = partial(policies.rand_augment, image=image, count=2, magnitude=30)
    drawn = {int(x) for x in np.asarray(jax.jit(jax.vmap(function))(split(600)))[:, 12, 10, 0].flat}
    assert single < drawn, "every single one beside the identity, and more"


def test_trivial_augment_draws_its_strengths_evenly(photograph):
    image = jnp.asarray(photograph)
    function = partial(policies.trivial_augment, image=image)
    drawn = np.asarray(jax.jit(jax.vmap(function))(split(1400)))
    strengths = np.arange(-30, 31) / 30
    found = nearest(drawn, applied(photograph, "wide", strengths))
    operation, strength = np.divmod(found, len(strengths))
    counts = np.bincount(operation, minlength=len(OPERATIONS))
    assert counts[-1] == 0, "invert is not drawn"
    # At strength 0, one time in 31, most are found as the identity.
    assert np.all(np.abs(counts[1:-1] - 95) < 5 * np.sqrt(93)), counts
    drawn_strengths = strengths[strength[operation == OPERATIONS.index("brightness")]]
    assert abs(drawn_strengths.mean()) < 5 * 0.6 / np.sqrt(95)
    assert 0.5 < drawn_strengths.std() < 0.7, "uniform on [-1, 1]: 0.58"


def nearest(drawn: np.ndarray, among: np.ndarray) -> np.ndarray:
    """[N, ...], [15, S, ...] -> for each the place in the flattened [15 * S] that it is, within
    a level here and there; fails where it is none."""
    flat, places = (x.reshape(-1, drawn[0].size).astype(np.float64) for x in (drawn, among))
    squares = (flat**2).sum(1)[:, None] + (places**2).sum(1) - 2 * flat @ places.T
    assert squares.min(1).max() < 100, "a draw that is no operation of the table"
    return squares.argmin(1)
