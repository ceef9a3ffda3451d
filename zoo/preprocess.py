"""Preprocessing of images and clips: resize, center crop, normalize, and placement of clips."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.lookup import lookup

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_NORM = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
EPSILON = 1e-6  # tolerance for quotients that should be whole numbers


class Preprocessing(NamedTuple):
    """The preprocessing that a model was trained with.

    Attributes:
        mean: mean per channel, subtracted from pixels in [0, 1].
        std: standard deviation per channel.
        size: height and width of the model's input in pixels; for detectors the padded canvas.
        crop: fraction of the resized short side that the center crop keeps.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
        sides: detectors: (short, long) sides to which images are resized with their aspect ratio
            kept; None stretches them to `size` (see `zoo.canvas`).
        frames: video models: frames per clip; 0 for images.
        stride: video models: distance of the frames of a clip in frames of the video.

    Source: the evaluation protocol of torchvision and timm.

    >>> Preprocessing(mean=(0.5,), std=(0.5,), size=(32, 32)).crop
    1.0
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    crop: float = 1.0
    interpolation: str = "bilinear"
    sides: tuple[int, int] | None = None
    frames: int = 0
    stride: int = 1


def with_channels(preprocessing: Preprocessing, channels: int) -> Preprocessing:
    """Adapts mean and standard deviation to another number of channels.

    A single channel gets the mean of all. Several channels repeat the old ones, as `zoo.load_model`
    does for the first kernel.

    Args:
        preprocessing: the preprocessing.
        channels: number of channels.

    Returns:
        The adapted preprocessing.

    >>> rgb = Preprocessing((0.3, 0.4, 0.5), (0.1, 0.2, 0.3), (32, 32))
    >>> with_channels(rgb, 4).mean, round(with_channels(rgb, 1).std[0], 6)
    ((0.3, 0.4, 0.5, 0.3), 0.2)
    """
    if channels == len(preprocessing.mean):
        return preprocessing

    def adapt(values: tuple[float, ...]) -> tuple[float, ...]:
        if channels == 1:
            return (sum(values) / len(values),)
        return tuple(values[channel % len(values)] for channel in range(channels))

    return preprocessing._replace(mean=adapt(preprocessing.mean), std=adapt(preprocessing.std))


def uncropped_size(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Returns the (height, width, channels) of images that are cropped but not resized.

    Args:
        preprocessing: the preprocessing.

    Returns:
        The shape.

    >>> uncropped_size(Preprocessing((0.5,), (0.5,), size=(224, 224), crop=0.875))
    (256, 256, 1)
    """
    height, width = (int(side / preprocessing.crop + EPSILON) for side in preprocessing.size)
    return height, width, len(preprocessing.mean)


def resized_size(image_size: Sequence[int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Returns the size of an image after resizing and before the center crop.

    Args:
        image_size: height and width of the image.
        preprocessing: the preprocessing.

    Returns:
        Height and width such that `size` is the fraction `crop` of the short side or less.

    Source: torchvision's Resize in its evaluation presets, which also rounds the long side down.

    >>> resized_size((64, 128), Preprocessing((0.5,), (0.5,), size=(28, 28), crop=0.875))
    (32, 64)
    """
    height, width, _ = uncropped_size(preprocessing)
    if height / image_size[0] > width / image_size[1]:
        width = int(height * image_size[1] / image_size[0] + EPSILON)
    else:
        height = int(width * image_size[0] / image_size[1] + EPSILON)
    return height, width


def center_offset(image_size: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """Returns (top, left) of a center crop.

    Args:
        image_size: height and width of the image.
        size: height and width of the crop.

    Returns:
        The offset.

    >>> center_offset((256, 341), (224, 224))
    (16, 58)
    """
    return round((image_size[0] - size[0]) / 2), round((image_size[1] - size[1]) / 2)


JAX_METHODS = {
    "nearest": "nearest",
    "bilinear": "linear",
    "bicubic": "cubic",
    "lanczos": "lanczos3",
}  # all but the first are antialiased


def resize(image: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Resizes images to the size before the center crop, keeping the aspect ratio.

    Args:
        image: images [B, ..., H, W, C].
        preprocessing: the preprocessing.

    Returns:
        Images [B, ..., h, w, C].

    Source: torchvision's antialiased Resize in its evaluation presets.

    >>> small = Preprocessing((0.5,), (0.5,), size=(28, 28), crop=0.875)
    >>> resize(jnp.zeros((1, 64, 128, 1)), small).shape
    (1, 32, 64, 1)
    """
    height, width = resized_size(image.shape[-3:-1], preprocessing)
    if (height, width) == image.shape[-3:-1]:
        return image
    shape = (*image.shape[:-3], height, width, image.shape[-1])
    method = lookup(JAX_METHODS, preprocessing.interpolation, kind="interpolation")
    return jax.image.resize(image, shape, method)


def preprocess(image: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Resizes, center-crops and normalizes images or clips.

    It is pure and can be jitted. An image that already has the size is not resized. The number of
    frames of a clip is not checked.

    Args:
        image: images [B, H, W, C] of uint8, or floats in [0, 1]; clips [B, T, H, W, C] if the
            preprocessing has frames.
        preprocessing: the preprocessing.

    Returns:
        Images [B, h, w, C] or clips, float32.

    Raises:
        ValueError: if rank, dtype or number of channels is wrong.

    Source: torchvision's evaluation presets (Resize, CenterCrop, Normalize).

    >>> card = Preprocessing(mean=(0.5,), std=(0.25,), size=(2, 2))
    >>> preprocess(jnp.full((1, 2, 2, 1), 255, jnp.uint8), card).tolist()
    [[[[2.0], [2.0]], [[2.0], [2.0]]]]
    """
    channels = len(preprocessing.mean)
    ranks = (4, 5) if preprocessing.frames else (4,)  # a model of clips may take single frames
    if image.ndim not in ranks or image.shape[-1] != channels:
        kind, axes = ("clips", "B, T") if preprocessing.frames else ("images", "B")
        raise ValueError(f"expected {kind} [{axes}, H, W, {channels}], got shape {image.shape}")
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 255
    elif not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"expected images of uint8, or float in [0, 1], got {image.dtype}")
    image = resize(image.astype(jnp.float32), preprocessing)
    height, width = preprocessing.size
    top, left = center_offset(image.shape[-3:-1], preprocessing.size)
    image = image[..., top : top + height, left : left + width, :]
    broadcast = (1,) * (image.ndim - 1) + (channels,)
    mean = jnp.asarray(preprocessing.mean, jnp.float32).reshape(broadcast)
    std = jnp.asarray(preprocessing.std, jnp.float32).reshape(broadcast)
    return (image - mean) / std


def clip_starts(count: int, *, frames: int, stride: int, clips: int) -> list[int]:
    """Places clips evenly over a video: the first frame of each.

    A single clip lies in the middle. Clips of a video that is shorter than one clip all start at 0.

    Args:
        count: number of frames of the video.
        frames: number of frames of a clip.
        stride: distance of the frames of a clip, in frames of the video.
        clips: number of clips.

    Returns:
        The index of the first frame of each clip.

    >>> clip_starts(20, frames=4, stride=2, clips=2), clip_starts(3, frames=4, stride=2, clips=2)
    ([0, 13], [0, 0])
    """
    free = max(0, count - 1 - (frames - 1) * stride)
    if clips == 1:
        return [free // 2]
    return [round(free * clip / (clips - 1)) for clip in range(clips)]


def frame_indices(start: int, count: int, *, frames: int, stride: int) -> list[int]:
    """Lists the frames of one clip; past the end of the video its last frame repeats.

    Args:
        start: first frame of the clip.
        count: number of frames of the video.
        frames: number of frames of the clip.
        stride: distance of the frames of the clip, in frames of the video.

    Returns:
        `frames` indices into the video.

    >>> frame_indices(3, 8, frames=4, stride=2)
    [3, 5, 7, 7]
    """
    return [min(start + frame * stride, count - 1) for frame in range(frames)]
