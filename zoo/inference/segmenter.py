"""Segmentation with a weight file, on images of any size."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.inference import tiling
from zoo.inference.classifier import resolve_class_names
from zoo.media.colormap import voc_colormap
from zoo.preprocess import Preprocessing, preprocess
from zoo.weights.adapt import LoadedModel, unflatten_variables
from zoo.weights.model_file import loaded_preprocessing

MAX_CLASSES = 255  # a mask has one byte per pixel, and 255 means ignored


class Segmenter(NamedTuple):
    """A segmenter with weights.

    Attributes:
        name: name of the variant.
        predict: function from tiles [B, *window, C] of uint8 to probabilities, smaller by `margin`
            on every side.
        window: height and width of a tile.
        margin: rows and columns that valid convolutions remove.
        resize: preprocessing that resizes images; None keeps their size.
        channels: channels of the input.
        classes: K class names.
        palette: colors [256, 3].
        note: why the classes have no names, or empty.
    """

    name: str
    predict: Callable[[Any], Any]
    window: tuple[int, int]
    margin: tuple[int, int]
    resize: Preprocessing | None
    channels: int
    classes: list[str]
    palette: np.ndarray
    note: str


def card_palette(rows: Any, count: int, *, source: str) -> np.ndarray:
    """Returns the colors [256, 3] of a card's palette, else Pascal VOC's."""
    palette = voc_colormap(256)
    if rows is not None:
        try:
            colors = np.asarray(rows)
            if colors.shape != (count, 3) or colors.dtype.kind not in "iu":
                raise ValueError("of another shape")
            if colors.min() < 0 or colors.max() > 255:
                raise ValueError("out of 0 to 255")
        except ValueError as error:
            raise ValueError(
                f"invalid palette in the card of {source}: expected {count} rows of red, green, "
                f"blue from 0 to 255, got {rows!r:.80}"
            ) from error
        palette[:count] = colors
    return palette


def count_classes(loaded: LoadedModel, source: str) -> int:
    """Counts the classes of a model that segments image files.

    Args:
        loaded: the loaded model.
        source: its source, for messages.

    Returns:
        The number of classes.

    Raises:
        ValueError: if a mask file cannot hold the classes, or the model does not take gray or RGB
            images.
    """
    channels = loaded.image[-1]
    count = getattr(loaded.model, "num_classes", 0)
    if not 2 <= count <= MAX_CLASSES:
        raise ValueError(
            f"{loaded.name} of {source} has {count} classes: expected 2 to {MAX_CLASSES}"
        )
    if channels not in (1, 3):
        raise ValueError(
            f"expected a model of 1 or 3 channels for image files, got {channels} in {source}"
        )
    return count


def create_segmenter(
    loaded: LoadedModel,
    source: str,
    *,
    classes: str | None = None,
    tile: int | None = None,
    flips: bool = False,
    short: int | None = None,
) -> Segmenter:
    """Creates a segmenter from a loaded model.

    Args:
        loaded: the loaded model.
        source: its source.
        classes: a file of class names.
        tile: side of the tiles; the preprocessing's size if not given.
        flips: average over mirror images.
        short: short side to which images are resized; the publisher's for published weights if not
            given, else images keep their size.

    Returns:
        The segmenter.

    Raises:
        ValueError: if an option is invalid or the model is not a segmenter.
    """
    model, channels = loaded.model, loaded.image[-1]
    count = count_classes(loaded, source)
    for option, value in (("--tile", tile), ("--size", short)):
        if value is not None and value < 1:
            raise ValueError(f"expected {option} to be at least 1 pixel, got {value}")
    names, note = resolve_class_names(loaded, source, classes)
    preprocessing = loaded_preprocessing(loaded, source)
    window = preprocessing.size if tile is None else (tile, tile)
    resize = preprocessing if "://" in source else None
    if short is not None:
        resize = preprocessing._replace(size=(short, short), crop=1.0)

    @jax.jit
    def probabilities(variables: Any, image: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, preprocess(image, normalization))
        return jax.nn.softmax(outputs["logits"].astype(jnp.float32))

    # Images are already resized and cropped.
    normalization = preprocessing._replace(size=window, crop=1.0)
    variables = unflatten_variables(loaded.variables)
    example = jax.ShapeDtypeStruct((1, *window, channels), jnp.uint8)
    try:
        output_shape = jax.eval_shape(probabilities, variables, example).shape
    except (TypeError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{loaded.name} does not take tiles of {window}: {reason}") from error
    if min(output_shape) < 1:
        raise ValueError(
            f"expected larger tiles than {window} for {loaded.name}; use a larger --tile"
        )
    margin = (window[0] - output_shape[1]) // 2, (window[1] - output_shape[2]) // 2
    predict = functools.partial(probabilities, variables)
    return Segmenter(
        name=loaded.name,
        predict=functools.partial(tiling.average_flips, predict) if flips else predict,
        window=window,
        margin=margin,
        resize=resize,
        channels=channels,
        classes=names,
        palette=card_palette(loaded.card.get("palette"), count, source=source),
        note=note,
    )


def segment(
    model: Segmenter, image: np.ndarray, *, finish: Callable = lambda rows: rows
) -> np.ndarray:
    """Segments an image in tiles.

    Windows overlap by half. Models with a margin use tiles whose centers touch or overlap a little.

    Args:
        model: the segmenter.
        image: image [H, W, C] of uint8.
        finish: function applied to rows of probabilities [1, n, w, K]; `argmax_classes` limits
            memory to one byte per pixel.

    Returns:
        Results [H, W, K].
    """
    if max(model.margin) > 0:
        # The stride is a multiple of the deepest map's stride (five poolings at most); otherwise
        # the prediction of a U-Net would depend on the position of a pixel in its tile.
        inner = [w - 2 * m for w, m in zip(model.window, model.margin, strict=True)]
        stride = inner[0] - inner[0] % 32 or inner[0], inner[1] - inner[1] % 32 or inner[1]
        return tiling.overlap_tile(
            lambda pieces: finish(np.asarray(model.predict(pieces))),
            image[None],
            tile=model.window,
            margin=model.margin,
            stride=stride,
        )[0]
    stride = (-(-model.window[0] // 2), -(-model.window[1] // 2))
    return tiling.sliding_window(
        model.predict, image[None], window=model.window, stride=stride, finish=finish
    )[0]


def argmax_classes(rows: np.ndarray) -> np.ndarray:
    """Returns the index of the largest value [..., 1] as uint8.

    Args:
        rows: probabilities [..., K].

    Returns:
        Class indices.

    >>> argmax_classes(np.array([[0.2, 0.7, 0.1]])).tolist()
    [[1]]
    """
    return np.argmax(rows, -1)[..., None].astype(np.uint8)


def class_shares(mask: np.ndarray, classes: Sequence[str]) -> list[tuple[int, float, str]]:
    """Returns (class, share of the pixels, name) of the classes in a mask, largest first.

    Args:
        mask: class indices [H, W].
        classes: K class names.

    Returns:
        The classes that occur.

    >>> class_shares(np.array([[1, 1, 0]]), ["sky", "road", "car"])
    [(1, 0.6666666666666666, 'road'), (0, 0.3333333333333333, 'sky')]
    """
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    order = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
    plain = ["".join(c if c.isprintable() else " " for c in name) for name in classes]
    return [(number, float(counts[number] / mask.size), plain[number]) for number in order]
