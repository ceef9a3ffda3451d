"""Mask files of any mode -> class indices; image and mask brought to one fixed shape together."""

import dataclasses
import io
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from train.data.image_files import (
    EXIF_ORIENTATION,
    IMAGE_FORMATS,
    MAX_IMAGE_PIXELS,
    Size,
    convert_mode,
)
from zoo.errors import one_line

IGNORE_LABEL = 255
UNKNOWN_VALUE = 254  # in a table: a value that names no class
MAX_CLASSES = 254  # classes that fit beside the two
MASK_FORMATS = {  # those that keep every pixel's value
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
MASK_ENDINGS = tuple(ending for endings in MASK_FORMATS.values() for ending in endings)
# Pillow spreads gray values of few bits over 0..255.
MIN_SPREAD = {"L;2": 85, "L;4": 17}

logger = logging.getLogger("train")

File = str | os.PathLike | IO[bytes]
Value = int | tuple[int, ...]  # a gray value or a palette's index; red, green, blue


class ImageMask(NamedTuple):
    """An image with its mask [h, w] of class indices uint8, as large as the files are."""

    image: Image.Image
    mask: np.ndarray
    instances: np.ndarray | None = None  # [h, w] int32, 0 = none


@dataclasses.dataclass(frozen=True, eq=False)
class MaskEncoding:
    """What the pixels of a mask mean: index by value, and index by 0xRRGGBB where it has colors.

    A table's last entry stands for all greater values.
    """

    classes: int
    indices: np.ndarray | None
    colors: np.ndarray | None = None
    spread: bool = False  # low-bit gray and black-and-white count as Pillow shows them, up to 255


def infer_encoding(
    classes: int, *, values: Sequence[Value] | None = None, ignore: Value | None = None
) -> MaskEncoding:
    """Number of classes, pixel value of each in class order -> what masks mean.

    Without `values` the value is the index. A value may be a color (red, green, blue); then all
    are. 255 is ignored unless it is a class's value, and so is `ignore`.

    >>> infer_encoding(2, values=(0, 255)).indices.take([0, 255]).tolist()
    [0, 1]
    """
    values = tuple(
        to_plain_value(value) for value in (range(classes) if values is None else values)
    )
    ignore = None if ignore is None else to_plain_value(ignore)
    if not 2 <= classes <= MAX_CLASSES:
        raise ValueError(f"masks have 2 to {MAX_CLASSES} classes; got {classes}")
    if len(values) != classes or len(set(values)) != classes:
        raise ValueError(f"values has one value for each of {classes} classes; got {values}")
    if ignore in values:
        raise ValueError(f"ignore={ignore} is the value of class {values.index(ignore)} too")
    named = [*values] if ignore is None else [*values, ignore]
    colored = [isinstance(value, Sequence) for value in named]
    if any(colored) != all(colored):
        raise ValueError(f"values and ignore are all numbers or all colors; got {named}")
    table = (dict.fromkeys(named, IGNORE_LABEL)) | {v: i for i, v in enumerate(values)}
    if all(colored):
        return MaskEncoding(classes, None, fill_table({color_code(v): i for v, i in table.items()}))
    spread = values != tuple(range(classes)) and 1 not in values
    return MaskEncoding(classes, fill_table({IGNORE_LABEL: IGNORE_LABEL} | table), None, spread)


def to_plain_value(value: Any) -> Value:
    """A number, or a color of whatever sequence, as Python's own."""
    return tuple(map(int, value)) if np.ndim(value) else int(value)


def color_code(color: Value) -> int:
    """A color (red, green, blue) as one number."""
    parts = color if isinstance(color, Sequence) else ()
    if len(parts) != 3 or not all(0 <= part <= 255 for part in parts):
        raise ValueError(f"a color is three numbers of 0 to 255; got {color}")
    return parts[0] << 16 | parts[1] << 8 | parts[2]


def fill_table(entries: dict) -> np.ndarray:
    """{value: index} as a table [V] uint8, UNKNOWN elsewhere."""
    if any(not 0 <= value < 2**24 for value in entries):
        raise ValueError(f"the values of masks are 0 or more; got {min(entries)}")
    table = np.full(max(entries) + 2, UNKNOWN_VALUE, np.uint8)
    table[list(entries)] = list(entries.values())
    return table


def mask_values(file: File, *, encoding: MaskEncoding | None, name: str) -> tuple[np.ndarray, bool]:
    """A mask file -> (what its tables take [h, w], whether these are colors).

    Of a palette the indices, unless the classes are known by their colors alone. Raises ValueError
    in one line that begins with `name`, whatever is wrong with the file.
    """
    try:
        with Image.open(file, formats=list(MASK_FORMATS)) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than {MAX_IMAGE_PIXELS}"
                )
            raw = str(image.tile[0][3]) if image.format == "PNG" and image.tile else ""
            image.load()
            if index_by_color(encoding, image.mode):
                red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), -1, 0)
                return red << 16 | green << 8 | blue, True
            pixels, mode = np.asarray(image), image.mode
    except Exception as error:  # each of Pillow's decoders has its own: OSError, SyntaxError, ...
        reason = one_line(error)
        raise ValueError(f"{name} is unreadable as a mask ({reason})") from error
    if mode in ("LA", "PA"):
        pixels = pixels[..., 0]
    elif mode not in ("1", "L", "P", "I") and not mode.startswith("I;16"):
        raise ValueError(
            f"{name} is a mask of mode {mode}, expected class indices (gray or palette): for colors "
            "say values=((red, green, blue), ...), one for each class"
        )
    if mode == "1":
        return pixels * np.uint8(255 if encoding is not None and encoding.spread else 1), False
    as_shown = raw not in MIN_SPREAD or (encoding is not None and encoding.spread)
    return pixels if as_shown else pixels // MIN_SPREAD[raw], False


def index_by_color(encoding: MaskEncoding | None, mode: str) -> bool:
    """Whether a mask of that mode is looked up by its colors."""
    if encoding is None or encoding.colors is None:
        return False
    return encoding.indices is None or mode in ("RGB", "RGBA")


def read_mask(file: File, *, encoding: MaskEncoding, name: str) -> np.ndarray:
    """A mask file -> class indices [h, w] uint8, 255 = ignored.

    Raises ValueError in one line that begins with `name`: a file that cannot be read, colors
    where indices are expected, a value of no class, nothing but ignored pixels.
    """
    pixels, colored = mask_values(file, encoding=encoding, name=name)
    table = encoding.colors if colored else encoding.indices
    assert table is not None
    mask = table[np.clip(pixels.astype(np.int64), -1, len(table) - 1)]
    if (wrong := np.argwhere(mask == UNKNOWN_VALUE)).size:
        y, x = wrong[0].tolist()
        value = f"color #{pixels[y, x]:06x}" if colored else f"value {pixels[y, x]}"
        raise ValueError(
            f"{name}: {value} at row {y}, column {x} is that of none of the {encoding.classes} "
            "classes, nor one to ignore: say values, ignore or the right number of classes"
        )
    if (mask == IGNORE_LABEL).all():
        raise ValueError(f"{name} is an empty mask: all its pixels are ignored")
    return mask


def read_image(file: File, *, of: tuple[int, ...], name: str) -> Image.Image:
    """An image file -> upright, if that is of the shape `of` = (h, w), else as it is stored.

    Raises ValueError in one line that begins with `name` where it is unreadable.
    """
    try:
        with Image.open(file, formats=list(IMAGE_FORMATS)) as opened:
            width, height = opened.size
            if width * height > MAX_IMAGE_PIXELS:
                raise ValueError(f"{width} x {height} pixels are more than {MAX_IMAGE_PIXELS}")
            opened.load()
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
            upright = (width, height) if turned else (height, width)
            image = ImageOps.exif_transpose(opened) if upright == of else opened.copy()
    except Exception as error:
        reason = one_line(error)
        raise ValueError(f"{name} is unreadable as an image ({reason})") from error
    return image


def check_same_size(image: tuple[int, ...], of: tuple[int, ...], *, name: str, mask: str) -> None:
    """Raises ValueError where (h, w) of an image and of its mask differ."""
    if image != of:
        raise ValueError(
            f"{mask}: the mask has {of[1]} x {of[0]} pixels, its image {name} "
            f"{image[1]} x {image[0]}"
        )


def fit_pair(pair: ImageMask, size: Size) -> dict[str, np.ndarray]:
    """A pair -> its entries of shape `size` = (H, W, C): "image", "mask", "instances".

    Resized to fit in, its proportions kept (image bilinear and antialiased, mask nearest), and
    filled up on the right and below: image 0, mask 255, instances 0. Nothing is cut off, and a
    position is carried back by one factor.
    """
    height, width, channels = size
    image = convert_mode(pair.image, mode="L" if channels == 1 else "RGB")
    scale = min(height / image.height, width / image.width)
    new = (
        min(width, max(1, round(image.width * scale))),
        min(height, max(1, round(image.height * scale))),
    )
    pixels = np.asarray(image.resize(new, Image.Resampling.BILINEAR)).reshape(*new[::-1], channels)
    entries = {
        "image": pad_array(pixels, size, 0),
        "mask": resize_nearest(pair.mask, new, size, IGNORE_LABEL),
    }
    if pair.instances is not None:
        entries["instances"] = resize_nearest(pair.instances, new, size, 0)
    return entries


def resize_nearest(mask: np.ndarray, new: tuple[int, int], size: Size, fill: int) -> np.ndarray:
    """A mask [h, w] -> [H, W] through `new` = (width, height), each pixel one of the old."""
    rows = (np.arange(new[1]) * 2 + 1) * mask.shape[0] // (2 * new[1])
    columns = (np.arange(new[0]) * 2 + 1) * mask.shape[1] // (2 * new[0])
    return pad_array(mask[rows[:, None], columns], size[:2], fill)


def pad_array(array: np.ndarray, shape: Size, fill: int) -> np.ndarray:
    """The array in the upper left of one of that shape, the rest `fill`."""
    whole = np.full(shape, fill, array.dtype)
    whole[: array.shape[0], : array.shape[1]] = array
    return whole


@dataclasses.dataclass(frozen=True, eq=False)
class FilePairReader:
    """Reads (image, mask, instances or None), paths or the bytes of files, as a Pair.

    A mask without any class but the first is told in the log, once each and the first ten alone:
    an error in most sets, in some an image without an object.
    """

    encoding: MaskEncoding
    has_empty: set[str] = dataclasses.field(default_factory=set)

    def __call__(self, record: tuple) -> ImageMask:
        image, mask, instances, *names = record
        of_image, of_mask = names or (image, mask)
        indices = read_mask(open_mask(mask), encoding=self.encoding, name=of_mask)
        found = read_image(open_mask(image), of=indices.shape, name=of_image)
        check_same_size(found.size[::-1], indices.shape, name=of_image, mask=of_mask)
        if not ((indices > 0) & (indices != IGNORE_LABEL)).any():
            self.read_values(of_mask)
        if instances is None:
            return ImageMask(found, indices)
        numbers = mask_values(open_mask(instances), encoding=None, name=instances)[0].astype(
            np.int32
        )
        check_same_size(found.size[::-1], numbers.shape, name=of_image, mask=instances)
        return ImageMask(found, indices, np.where(numbers == IGNORE_LABEL, 0, numbers))

    def read_values(self, mask: str) -> None:
        if mask not in self.has_empty:
            self.has_empty.add(mask)
            if len(self.has_empty) <= 10:
                logger.warning("%s is an empty mask: nothing but the first class", mask)


def open_mask(file: str | pathlib.Path | bytes) -> File:
    return io.BytesIO(file) if isinstance(file, bytes) else file
