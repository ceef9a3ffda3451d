"""Photographs of any size and mode -> images of one fixed shape."""

import math
import os
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from train.data.permutation import uniform_draws
from zoo.errors import one_line
from zoo.media.image_io import convert_mode

IMAGE_FORMATS = {  # Pillow's names, and the endings that people give them
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
IMAGE_SUFFIXES = tuple(ending for endings in IMAGE_FORMATS.values() for ending in endings)
MAX_IMAGE_PIXELS = (
    89_478_485  # pixels, Pillow's own bound against decompression bombs: 256 MiB of RGB
)

EXIF_ORIENTATION = 0x0112  # EXIF's tag
CROP_ATTEMPTS = 10
CROP_STREAM = 1  # ends the key of a crop, so that it is never that of an epoch's order

Size = tuple[int, ...]  # height, width, channels


class Crop(NamedTuple):
    """A random part of a photograph: its share of the area, its width to its height.

    The share is uniform, the ratio uniform in its logarithm.

    Source: Szegedy et al. 2015, Going Deeper with Convolutions, section 6; torchvision's
    RandomResizedCrop, whose law this is.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


def read_image(
    file: str | os.PathLike | IO[bytes],
    *,
    size: Size,
    crop: Crop | None = None,
    key: tuple[int, ...] = (),
) -> np.ndarray:
    """A JPEG, PNG, WebP or BMP file -> uint8 [H, W, C], `size` = (H, W, C) with C 1 or 3.

    Turned upright as its EXIF says, laid on white where it is transparent, made gray or RGB,
    resized (bilinear, antialiased) until it just covers H x W, and cut to its center. With a `crop`
    a part that `key` names is resized instead, whatever its shape.

    Raises ValueError in one line, whatever is wrong with the file.
    """
    height, width, channels = size
    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(file, formats=list(IMAGE_FORMATS)) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than {MAX_IMAGE_PIXELS}"
                )
            if crop is None:
                whole = convert_mode(ImageOps.exif_transpose(image), mode=mode)
                fitted = ImageOps.fit(whole, (width, height), Image.Resampling.BILINEAR)
            else:
                fitted = crop_and_resize(image, (width, height), crop, mode=mode, key=key)
    except Exception as error:  # each of Pillow's decoders has its own: OSError, SyntaxError, ...
        raise ValueError(one_line(error)) from error
    return np.asarray(fitted).reshape(size)


def crop_and_resize(
    image: Image.Image, wanted: tuple[int, int], crop: Crop, *, mode: str, key: tuple[int, ...]
) -> Image.Image:
    """An opened image -> the part that `key` names, in `mode`, of `wanted` = (width, height).

    A JPEG is decoded at a half, a quarter or an eighth where the part still has all pixels wanted.
    """
    turned = image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    upright = (image.height, image.width) if turned else image.size
    left, top, width, height = sample_crop(*upright, crop, key=key)
    needed = max(wanted[0] / width, wanted[1] / height)
    if needed < 1:
        image.draft(None, (math.ceil(image.width * needed), math.ceil(image.height * needed)))
    whole = convert_mode(ImageOps.exif_transpose(image), mode=mode)
    across, down = whole.width / upright[0], whole.height / upright[1]
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return whole.resize(wanted, Image.Resampling.BILINEAR, box=box)


def sample_crop(
    width: int, height: int, crop: Crop, *, key: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """The part of a width x height image that `key` names: left, top, width, height in pixels.

    The first of ten draws that fits; else the largest part at the center whose shape is allowed.

    >>> sample_crop(100, 50, Crop(scale=(1.0, 1.0), ratio=(1.0, 1.0)), key=(0,))
    (25, 0, 50, 50)
    """
    shapes = uniform_draws(4 * CROP_ATTEMPTS, *key).reshape(CROP_ATTEMPTS, 4)
    low, high = map(math.log, crop.ratio)
    for share, ratio, across, down in shapes.tolist():
        area = width * height * (crop.scale[0] + share * (crop.scale[1] - crop.scale[0]))
        aspect = math.exp(low + ratio * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(across * (width - w + 1)), int(down * (height - h + 1)), w, h
    aspect = min(max(width / height, crop.ratio[0]), crop.ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return (width - w) // 2, (height - h) // 2, w, h


def has_image_header(file: str) -> bool:
    """Whether the file's first bytes are those of a JPEG, PNG, WebP or BMP; decodes nothing."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(12)
    except OSError:
        return False
    is_webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    return is_webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"))


def check_size(size: Size | None, *, source: str) -> Size:
    """The size, where it is one; raises ValueError otherwise.

    >>> check_size(None, source="folder:cats")
    Traceback (most recent call last):
    ValueError: folder:cats: its images differ in size, so say size=(height, width, channels)
    >>> check_size((8, 8, 2), source="folder:cats")
    Traceback (most recent call last):
    ValueError: folder:cats: size is (height, width, 1 or 3 channels), all positive; got (8, 8, 2)
    """
    if size is None:
        raise ValueError(
            f"{source}: its images differ in size, so say size=(height, width, channels)"
        )
    if len(size) != 3 or min(size) < 1 or size[2] not in (1, 3):
        raise ValueError(
            f"{source}: size is (height, width, 1 or 3 channels), all positive; got {size}"
        )
    return size
