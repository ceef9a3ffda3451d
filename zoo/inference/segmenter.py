"""A segmenter out of a weights file, and masks of images of any size."""

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

MAX_CLASSES = 255  # classes: a mask has a byte a pixel, and 255 is for ignored ones


class Segmenter(NamedTuple):
    """`predict` takes uint8 [B, *window, C] to probabilities, `margin` less on every side.

    `resize` says how large the model wants images, None as they are. `classes` are the names of
    its K, `palette` [256, 3] their colors, and `note` says why they have no names, or is empty.
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
    """A card's "palette", or None, to [256, 3] uint8: Pascal VOC's where it tells none."""
    palette = voc_colormap(256)
    if rows is not None:
        try:
            own = np.asarray(rows)
            if own.shape != (count, 3) or own.dtype.kind not in "iu":
                raise ValueError("of another shape")
            if own.min() < 0 or own.max() > 255:
                raise ValueError("out of 0 to 255")
        except ValueError as error:
            raise ValueError(
                f"the card of {source} has a palette that is none: expected {count} rows of red, "
                f"green, blue from 0 to 255, got {rows!r:.80}"
            ) from error
        palette[:count] = own
    return palette


def create_segmenter(
    loaded: LoadedModel,
    source: str,
    *,
    classes: str | None = None,
    tile: int | None = None,
    flips: bool = False,
    short: int | None = None,
) -> Segmenter:
    """What open_model has opened of `source`, which segments, to a Segmenter.

    `classes` is a file of names, `tile` the side of its windows (the size of the preprocessing),
    `flips` averages over mirror images, `short` is the short side that images are resized to: of
    published weights their publisher's if not given, of others none. ValueError for one of these
    that is out of range, and for a model of no use.
    """
    model, channels = loaded.model, loaded.image[-1]
    count = getattr(model, "num_classes", 0)
    if not 2 <= count <= MAX_CLASSES:
        raise ValueError(
            f"{loaded.name} of {source} has {count} classes: expected 2 to {MAX_CLASSES}"
        )
    if channels not in (1, 3):
        raise ValueError(f"{source} is for images of {channels} channels, files have 1 or 3")
    for option, value in (("--tile", tile), ("--size", short)):
        if value is not None and value < 1:
            raise ValueError(f"{option} is a number of pixels from 1, got {value}")
    names, note = resolve_class_names(loaded, source, classes)
    seen = loaded_preprocessing(loaded, source)
    window = seen.size if tile is None else (tile, tile)
    resize = seen if "://" in source else None
    if short is not None:
        resize = seen._replace(size=(short, short), crop=1.0)

    @jax.jit
    def probabilities(variables: Any, image: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, preprocess(image, cut))
        return jax.nn.softmax(outputs["logits"].astype(jnp.float32))

    cut = seen._replace(size=window, crop=1.0)  # images come resized and cut
    variables = unflatten_variables(loaded.variables)
    example = jax.ShapeDtypeStruct((1, *window, channels), jnp.uint8)
    try:
        given = jax.eval_shape(probabilities, variables, example).shape
    except (TypeError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{loaded.name} does not take tiles of {window}: {reason}") from error
    if min(given) < 1:
        raise ValueError(f"{loaded.name} gives nothing for tiles of {window}: say a larger --tile")
    margin = (window[0] - given[1]) // 2, (window[1] - given[2]) // 2
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
    """uint8 [H, W, C] -> what `finish` makes of probabilities [1, n, w, K], as [H, W, K].

    In windows that overlap by half; of a model that takes its margin, in tiles whose middles
    touch or overlap a little. `finish` is applied part by part: `argmax_classes` keeps memory at a byte a pixel.
    """
    if max(model.margin) > 0:
        # From tile to tile whole pixels of the deepest map, of five poolings at most: else what a
        # U-Net says of a pixel depends on where in its tile it lies.
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
    """[..., K] -> [..., 1] uint8, the place of the largest.

    >>> argmax_classes(np.array([[0.2, 0.7, 0.1]])).tolist()
    [[1]]
    """
    return np.argmax(rows, -1)[..., None].astype(np.uint8)


def class_shares(mask: np.ndarray, classes: Sequence[str]) -> list[tuple[int, float, str]]:
    """[H, W] and K names -> (class, its share of the pixels, its name), the largest first.

    Classes that are nowhere are left out.

    >>> class_shares(np.array([[1, 1, 0]]), ["sky", "road", "car"])
    [(1, 0.6666666666666666, 'road'), (0, 0.3333333333333333, 'sky')]
    """
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    order = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
    plain = ["".join(c if c.isprintable() else " " for c in name) for name in classes]
    return [(number, float(counts[number] / mask.size), plain[number]) for number in order]
