"""Augmentation of one clip with the same random numbers for all frames.

A clip is a dict with "video" [T, H, W, C] (uint8, or floats in [0, 1]), "flow" [L, H, W, 2] uint8
(x, y; 128 is no motion), or both, and "label" []. Flow vectors are mirrored and scaled with the
frames.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from train.augment.crops import random_corner
from train.augment.pixels import from_unit, to_unit

Clip = dict[str, jax.Array]
ZERO_FLOW_LEVEL = 128  # the level of a flow of 0


def clip_maps(clip: Clip) -> Clip:
    """Returns the entries of a clip with pixels, [T, H, W, C] each.

    Args:
        clip: the clip.

    Returns:
        The entries by name.

    Raises:
        ValueError: if their sizes differ, or there are none.

    >>> list(clip_maps({"video": jnp.zeros((4, 8, 8, 3)), "label": jnp.zeros((), jnp.int32)}))
    ['video']
    """
    found = {name: clip[name] for name in ("video", "flow") if name in clip}
    if len({value.shape[1:3] for value in found.values()}) != 1:
        shapes = {name: value.shape for name, value in found.items()}
        raise ValueError(f"expected video and flow of one height and width, got {shapes}")
    return found


def same_for_all_frames(function: Callable) -> Callable:
    """Converts a function of an image to one of a clip, with the same draw for all frames.

    It is for changes of colors. The flow does not change.

    Args:
        function: function of a key and an image [H, W, C].

    Returns:
        A function of a key and a clip.

    >>> from train import augment
    >>> darker = same_for_all_frames(partial(augment.brightness, amount=0.4))
    >>> darker(jax.random.key(0), {"video": jnp.ones((4, 8, 8, 3))})["video"].shape
    (4, 8, 8, 3)
    """

    def one(key: jax.Array, clip: Clip) -> Clip:
        return {**clip, "video": jax.vmap(function, in_axes=(None, 0))(key, clip["video"])}

    return one


def flip(
    key: jax.Array,
    clip: Clip,
    *,
    mirrored: Sequence[int] | np.ndarray | None = None,
    probability: float = 0.5,
) -> Clip:
    """Mirrors a clip horizontally with a probability, and negates its flow along x.

    Args:
        key: random key [].
        clip: the clip.
        mirrored: label [K] of a mirrored clip of each class, for classes such as left and right
            (`train.data.video.mirror_labels`). Flip clips before labels are mixed.
        probability: probability of mirroring.

    Returns:
        The clip.

    >>> clip = {"video": jnp.arange(6.0).reshape(1, 2, 3, 1) / 6, "label": jnp.array(1)}
    >>> turned = flip(jax.random.key(0), clip, mirrored=(1, 0), probability=1.0)
    >>> (6 * turned["video"][0, ..., 0]).tolist(), int(turned["label"])
    ([[2.0, 1.0, 0.0], [5.0, 4.0, 3.0]], 0)
    """
    chosen = jax.random.bernoulli(key, probability)
    turned = {name: jnp.flip(value, 2) for name, value in clip_maps(clip).items()}
    if "flow" in turned:
        x = jnp.minimum(2 * ZERO_FLOW_LEVEL - turned["flow"][..., :1].astype(jnp.int32), 255)
        turned["flow"] = jnp.concatenate(
            [x.astype(jnp.uint8), turned["flow"][..., 1:]], -1, dtype=jnp.uint8
        )
    if mirrored is not None:
        turned["label"] = jnp.asarray(mirrored, jnp.int32)[clip["label"]]
    return {**clip, **{name: jnp.where(chosen, new, clip[name]) for name, new in turned.items()}}


def crop(key: jax.Array, clip: Clip, *, size: tuple[int, int]) -> Clip:
    """Crops the same random part of all frames.

    Args:
        key: random key [].
        clip: the clip.
        size: height and width.

    Returns:
        The clip of `size`.

    Raises:
        ValueError: if the frames are smaller than `size`.

    >>> crop(jax.random.key(0), {"video": jnp.ones((4, 8, 9, 3))}, size=(6, 6))["video"].shape
    (4, 6, 6, 3)
    """
    found = clip_maps(clip)
    height, width = next(iter(found.values())).shape[1:3]
    if height < size[0] or width < size[1]:
        raise ValueError(
            f"cannot cut {size} out of frames of {(height, width)}; enlarge them first"
        )
    y, x = random_corner(key, (height, width), size=size)
    cut = {
        name: jax.lax.dynamic_slice(v, (0, y, x, 0), (v.shape[0], *size, v.shape[3]))
        for name, v in found.items()
    }
    return {**clip, **cut}


def scaled_crop(
    key: jax.Array, clip: Clip, *, sides: tuple[int, int] = (256, 320), size: tuple[int, int]
) -> Clip:
    """Resizes a clip to a random short side and crops a random part.

    The short side is uniform in `sides`. Resizing is linear with antialiasing. Flow values are
    multiplied by the scale and rounded. This is for data sets with images of one size; the loader
    resizes files of many sizes while decoding.

    Args:
        key: random key [].
        clip: the clip.
        sides: smallest and largest short side.
        size: height and width of the crop.

    Returns:
        The clip of `size`.

    Raises:
        ValueError: if `size` is larger than the smallest side.

    Source: Simonyan and Zisserman 2015, section 3.1; Feichtenhofer et al. 2019, section 4: 256 to
    320, parts of 224.

    >>> clip = {"video": jnp.ones((2, 8, 10, 1))}
    >>> scaled_crop(jax.random.key(0), clip, sides=(8, 12), size=(7, 7))["video"].shape
    (2, 7, 7, 1)
    """
    if max(size) > sides[0]:
        raise ValueError(f"cannot cut {size} out of frames whose short side is {sides[0]}")
    found = clip_maps(clip)
    height, width = next(iter(found.values())).shape[1:3]
    draws = jax.random.uniform(key, (3,))
    side = sides[0] + (sides[1] - sides[0]) * draws[0]
    factor = side / min(height, width)
    whole = factor * jnp.array([height, width], jnp.float32)
    start = draws[1:] * (whole - jnp.array(size, jnp.float32))
    resize = partial(
        jax.image.scale_and_translate,
        spatial_dims=(1, 2),
        scale=jnp.stack([factor, factor]),
        translation=-start,
        method="linear",
        antialias=True,
    )
    cut = {}
    for name, value in found.items():
        resized = resize(to_unit(value), (value.shape[0], *size, value.shape[3]))
        if name == "flow":
            resized = ZERO_FLOW_LEVEL / 255 + factor * (resized - ZERO_FLOW_LEVEL / 255)
        cut[name] = from_unit(resized, value.dtype)
    return {**clip, **cut}
