"""Photographs of any size and mode -> images of one fixed shape."""

import os
from typing import IO

import numpy as np
from PIL import Image, ImageOps

FORMATS = {  # Pillow's names, and the endings that people give them
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
LARGEST = 89_478_485  # pixels, Pillow's own bound against decompression bombs: 256 MiB of RGB

Size = tuple[int, ...]  # height, width, channels


def photograph(file: str | os.PathLike | IO[bytes], *, size: Size) -> np.ndarray:
    """A JPEG, PNG, WebP or BMP file -> uint8 [H, W, C], `size` = (H, W, C) with C 1 or 3.

    Turned upright as its EXIF says, laid on white where it is transparent, made grey or RGB,
    resized (bilinear, antialiased) until it just covers H x W, and cut to its centre.

    Raises ValueError in one line, whatever is wrong with the file.
    """
    height, width, channels = size
    try:
        with Image.open(file, formats=list(FORMATS)) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels are more than {LARGEST}")
            whole = flat(ImageOps.exif_transpose(image), mode="L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(whole, (width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # each of Pillow's decoders has its own: OSError, SyntaxError, ...
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from error
    return np.asarray(fitted).reshape(size)


def flat(image: Image.Image, *, mode: str) -> Image.Image:
    """The image in `mode` "L" or "RGB": 16 bits become 8, transparent pixels white."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips at 255
        values = np.asarray(image).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def looks_readable(file: str) -> bool:
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
