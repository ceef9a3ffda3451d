"""Reading, writing and drawing of images. Only this package imports Pillow."""

import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo.files import atomic_write
from zoo.lookup import lookup
from zoo.preprocess import Preprocessing, center_offset, resized_size

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_IMAGE_PIXELS = 89_478_485  # Pillow's bound against decompression bombs: 256 MiB of RGB
MAX_JPEG_SIDE = 65_500  # pixels
MIN_OVERLAY_SIDE = 384  # pixels; smaller overlays are enlarged so that the legend is readable
OVERLAY_ALPHA = 112  # of 255; borders of classes are opaque
MAX_LEGEND_ENTRIES = 48
MAX_LABEL_LENGTH = 32  # characters of a name in a legend and at a box
STRIP_FRAMES, STRIP_HEIGHT = (
    8,
    160,
)  # frames of a strip, and pixels of their height, or as many as a model sees
BRIGHT_LUMA = 140  # of 255; on brighter colors text is black


def import_pillow() -> tuple[Any, Any]:
    """Imports Pillow's Image and ImageOps; raises ValueError if Pillow is not installed."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ValueError(
            "images are read by Pillow, which is not installed: pip install 'flax-zoo[predict]'"
        ) from error
    return Image, ImageOps


def convert_mode(image: Any, mode: str) -> Any:
    """Converts a Pillow image to "L" or "RGB": 16 bits become 8, transparency becomes white."""
    Image, _ = import_pillow()
    if image.mode.startswith("I"):  # Pillow's own conversion of 16-bit gray clips at 255
        values = np.asarray(image).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def open_image(file: str, mode: str, read: Callable[[Any], Any]) -> np.ndarray:
    """Reads an image file through a function of its Pillow image.

    The image is rotated as its EXIF data require, and transparency becomes white.

    Args:
        file: the file.
        mode: "L" or "RGB".
        read: function from the Pillow image to an array or image.

    Returns:
        Image [h, w, C] of uint8.

    Raises:
        ValueError: if the file cannot be read, in one line.
    """
    Image, ImageOps = import_pillow()
    if not os.path.isfile(file):
        raise ValueError(f"no file {file}: expected an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # the limit is checked below
            image = Image.open(file, formats=IMAGE_FORMATS)
        with image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than {MAX_IMAGE_PIXELS:,}"
                )
            pixels = read(convert_mode(ImageOps.exif_transpose(image), mode))
    except Exception as error:  # each of Pillow's decoders has its own: OSError, SyntaxError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        if type(error).__name__ == "UnidentifiedImageError":
            reason = f"no image of a known kind: expected {', '.join(IMAGE_FORMATS)}"
        raise ValueError(f"{file}: {reason}") from error
    return np.asarray(pixels).reshape(pixels.height, pixels.width, -1)


def draft_and_resize(image: Any, preprocessing: Preprocessing) -> Any:
    """Resizes a Pillow image as `preprocessing` does before its center crop."""
    Image, _ = import_pillow()
    methods = {name.lower(): method for name, method in Image.Resampling.__members__.items()}
    method = lookup(methods, preprocessing.interpolation, kind="interpolation")
    large = resized_size((image.height, image.width), preprocessing)
    if large[0] * large[1] > MAX_IMAGE_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are too long and thin")
    return image.resize(large[::-1], method)


def read_image(file: str, preprocessing: Preprocessing) -> np.ndarray:
    """Reads an image file, resized and center-cropped by a preprocessing; see `open_image`.

    Args:
        file: the file.
        preprocessing: the preprocessing.

    Returns:
        Image [h, w, C] of uint8.
    """
    size, mode = preprocessing.size, "L" if len(preprocessing.mean) == 1 else "RGB"

    def read(image: Any) -> Any:
        resized = draft_and_resize(image, preprocessing)
        top, left = center_offset((resized.height, resized.width), size)
        return resized.crop((left, top, left + size[1], top + size[0]))

    return open_image(file, mode, read)


def resize_image(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Resizes an image [H, W, C] of uint8 as a preprocessing does before its center crop."""
    resized = draft_and_resize(to_pillow(image), preprocessing)
    return np.asarray(resized).reshape(resized.height, resized.width, -1)


def to_pillow(image: np.ndarray) -> Any:
    """Converts an image [H, W, 1 or 3] of uint8 to a Pillow image."""
    Image, _ = import_pillow()
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def to_gray(image: np.ndarray) -> np.ndarray:
    """Converts an image [H, W, 3] of uint8 to gray [H, W, 1]."""
    return np.asarray(convert_mode(to_pillow(image), "L"))[..., None]


def resize_probabilities(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the class of largest bilinearly resized probability per pixel.

    It processes one class after the other, so at most two maps of that size are in memory.

    Args:
        probabilities: probabilities [h, w, K].
        size: target size.

    Returns:
        Class indices of uint8.
    """
    Image, _ = import_pillow()
    largest, mask = np.full(size, -np.inf, np.float32), np.zeros(size, np.uint8)
    for number in range(probabilities.shape[-1]):
        layer = Image.fromarray(np.ascontiguousarray(probabilities[..., number], np.float32))
        layer = np.asarray(layer.resize(size[::-1], Image.Resampling.BILINEAR))
        larger = layer > largest
        mask[larger] = number
        largest[larger] = layer[larger]
    return mask


def colorize_mask(mask: np.ndarray, palette: np.ndarray) -> Any:
    """Returns a Pillow image of mode "P" whose values are the mask's."""
    Image, _ = import_pillow()
    image = Image.fromarray(mask)  # mode "L"
    image.putpalette(palette.astype(np.uint8).tobytes())  # mode "P"
    return image


def mask_borders(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels [H, W] that touch a pixel of another class."""
    edge = np.zeros(mask.shape, bool)
    below, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= below
    edge[:-1] |= below
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def draw_overlay(
    image: np.ndarray,
    mask: np.ndarray,
    palette: np.ndarray,
    entries: Sequence[tuple[int, float, str]],
) -> Any:
    """Draws a mask over an image, with a legend below.

    Classes with a black color, such as the background, are not drawn.

    Args:
        image: image [H, W, C] of uint8.
        mask: class indices [H, W].
        palette: colors [256, 3].
        entries: (class, share, name) of the legend.

    Returns:
        A Pillow image.
    """
    Image, _ = import_pillow()
    factor = max(1, round(MIN_OVERLAY_SIDE / max(mask.shape)))
    mask = mask.repeat(factor, 0).repeat(factor, 1)
    picture = to_pillow(image).convert("RGB")
    if factor > 1:
        picture = picture.resize(mask.shape[::-1], Image.Resampling.NEAREST)
    opacity = np.where(mask_borders(mask), 255, OVERLAY_ALPHA).astype(np.uint8)
    black = np.all(palette == 0, axis=-1)
    opacity[black[mask]] = 0
    is_colored = colorize_mask(mask, palette).convert("RGB")
    return draw_legend(
        Image.composite(is_colored, picture, Image.fromarray(opacity)), palette, entries
    )


def shorten_label(name: str) -> str:
    """Shortens a class name to the length that legends and boxes show."""
    return name if len(name) <= MAX_LABEL_LENGTH else f"{name[: MAX_LABEL_LENGTH - 1]}…"


def draw_legend(image: Any, palette: np.ndarray, entries: Sequence[tuple[int, float, str]]) -> Any:
    """Adds a legend below a Pillow image."""
    Image, _ = import_pillow()
    from PIL import ImageDraw, ImageFont

    em = int(min(48, max(14, image.width / 45)))
    font = ImageFont.load_default(em)
    rows = [
        (
            number,
            f"{shorten_label(name)}  {100 * share:.1f} %",
        )
        for number, share, name in entries[:MAX_LEGEND_ENTRIES]
    ]
    hidden = len(entries) - len(rows)
    cell = int(max(font.getlength(words) for _, words in rows)) + 3 * em
    columns = max(1, (image.width - em) // cell)
    lines = -(-(len(rows) + bool(hidden)) // columns)
    width = max(image.width, columns * cell + em)
    canvas = Image.new("RGB", (width, image.height + int(1.6 * em * lines) + em), "white")
    canvas.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (number, words) in enumerate(rows):
        left = em + cell * (row // lines)
        top = image.height + int(0.7 * em) + int(1.6 * em * (row % lines))
        color = tuple(palette[number].tolist())
        hollow = not any(color)  # black classes are not drawn over the image
        box = (left, top, left + em, top + em)
        draw.rectangle(box, fill="white" if hollow else color, outline="gray")
        draw.text((left + 1.5 * em, top + em / 2), words, "black", font=font, anchor="lm")
    if hidden:
        left = em + cell * (len(rows) // lines)
        top = image.height + int(1.2 * em) + int(1.6 * em * (len(rows) % lines))
        draw.text((left, top), f"and {hidden} more", "black", font=font, anchor="lm")
    return canvas


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    colors: np.ndarray,
    captions: Sequence[str],
) -> Any:
    """Draws boxes with captions, the first one on top.

    Args:
        image: image [H, W, C] of uint8.
        boxes: boxes [n, 4] in pixels.
        colors: colors [n, 3].
        captions: n captions.

    Returns:
        A Pillow image.
    """
    Image, _ = import_pillow()
    from PIL import ImageDraw, ImageFont

    factor = max(1, round(MIN_OVERLAY_SIDE / max(image.shape[:2])))
    picture = to_pillow(image).convert("RGB")
    size = (factor * picture.width, factor * picture.height)
    picture = picture.resize(size, Image.Resampling.NEAREST)
    em = int(min(48, max(11, max(size) / 60)))
    font = ImageFont.load_default(em)
    draw = ImageDraw.Draw(picture)
    rows = list(zip((factor * boxes).tolist(), colors.tolist(), captions, strict=True))
    for (x0, y0, x1, y1), color, text in reversed(rows):
        color = tuple(color)
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=color, width=em // 6 + 1)
        text = text if len(text) <= MAX_LABEL_LENGTH else f"{text[: MAX_LABEL_LENGTH - 1]}…"
        wide, high = font.getlength(text) + em // 2, int(1.3 * em)
        left = max(0, min(x0, size[0] - wide))
        top = y0 - high if y0 >= high else y0  # above the box where there is room
        draw.rectangle((left, top, left + wide, top + high), fill=color)
        dark = np.mean(color) > BRIGHT_LUMA
        position = (left + em / 4, top + high / 2)
        draw.text(position, text, "black" if dark else "white", font=font, anchor="lm")
    return picture


def draw_strip(clip: np.ndarray, lines: Sequence[str]) -> Any:
    """Draws frames of a clip side by side, over lines of text.

    Args:
        clip: frames [T, h, w, C] of uint8.
        lines: lines of text.

    Returns:
        A Pillow image.
    """
    Image, _ = import_pillow()
    from PIL import ImageDraw, ImageFont

    frames = clip[np.linspace(0, len(clip) - 1, min(STRIP_FRAMES, len(clip))).round().astype(int)]
    row = to_pillow(np.concatenate(list(frames), 1))
    factor = max(1, round(STRIP_HEIGHT / row.height))
    row = row.resize((row.width * factor, row.height * factor), Image.Resampling.NEAREST)
    em = max(14, row.height // 10)
    font = ImageFont.load_default(em)
    long = max((int(font.getlength(line)) for line in lines), default=0)
    size = (max(row.width, long + 2 * em), row.height + int(1.5 * em * len(lines)) + em)
    canvas = Image.new("RGB", size, "white")
    canvas.paste(row, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((em, row.height + em * (0.5 + 1.5 * number)), line, "black", font=font)
    return canvas


def write_image(image: Any, path: pathlib.Path) -> None:
    """Writes a Pillow image to a PNG or JPEG file, atomically.

    Args:
        image: the image.
        path: the file.

    Raises:
        ValueError: if the image is too large for a JPEG.
    """
    jpeg = path.suffix == ".jpg"
    if jpeg and max(image.size) > MAX_JPEG_SIDE:
        raise ValueError(f"{path}: {image.width} x {image.height} pixels exceed the limits of JPEG")
    options: dict[str, Any] = dict(format="JPEG", quality=92) if jpeg else dict(format="PNG")
    with atomic_write(path) as temporary:
        image.save(temporary, **options)
