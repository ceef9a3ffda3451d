"""Augmentation of clips, one draw for all frames: one key and one example at a time, to be vmapped.

An example is a dict: "video" [T, H, W, C], uint8 or floats in [0, 1], and "flow" [L, H, W, 2] uint8
(x, y; 128 is no motion), either or both, and "label" []. Flow is moved, mirrored and scaled as what
it tells of is.
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
    """The entries of an example that have pixels: [T, H, W, C] each, of one height and width.

    Errors: ValueError where they differ, or there are none.

    >>> list(clip_maps({"video": jnp.zeros((4, 8, 8, 3)), "label": jnp.zeros((), jnp.int32)}))
    ['video']
    """
    found = {name: clip[name] for name in ("video", "flow") if name in clip}
    if len({value.shape[1:3] for value in found.values()}) != 1:
        shapes = {name: value.shape for name, value in found.items()}
        raise ValueError(f"expected video and flow of one height and width, got {shapes}")
    return found


def same_for_all_frames(function: Callable) -> Callable:
    """function(key, image [H, W, C]) -> function(key, clip): every frame by the same draw.

    For what changes colors; flow stays as it is.

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
    """Key [], clip [H, W] -> clip [H, W], mirrored left to right, flows along x turned round.

    mirrored: [K], the label that a mirrored clip of each class has, where some change: what goes
    left goes right (train.data.video.mirror_labels). Label it before mixing does.

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
    """Key [], clip [H, W] -> clip of `size`, the same part of every frame, every place as likely.

    Errors: ValueError where the frames are smaller than `size` (height, width).

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
    """Key [], clip [H, W] -> clip of `size`: resized to a short side in `sides`, a part cut out.

    For sets of one size; files of many sizes are jittered while decoding. The side is uniform, the
    part as likely at every place; one draw for all frames. Linear with antialiasing. Flow keeps its
    levels times the scale, rounded.
    Errors: ValueError where `size` is larger than the smallest side.

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
