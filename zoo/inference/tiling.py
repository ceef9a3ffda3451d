"""Dense prediction over images of any size, in pieces of one size: memory is the piece's.

`predict` takes [B, h, w, C] to something for each pixel, [B, h', w', K]: logits, probabilities, or
classes where nothing is averaged. Hand in a compiled one that takes its variables as an argument,
`functools.partial(jax.jit(f), variables)`: it is called with one shape alone, and so is compiled
once whatever the images. These stay in the host's memory, and so do the results.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

Corner = tuple[int, int]  # (row, column), or (height, width)
Predict = Callable[[Any], Any]


def to_pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """A number for both axes, or one for each, to (along the rows, along the columns)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def check_image(image: Any) -> np.ndarray:
    """[B, H, W, C] -> the same in the host's memory; ValueError where it has no pixels."""
    image = np.asarray(image)
    if image.ndim != 4 or not image.size:
        raise ValueError(f"expected images [B, H, W, C] with pixels in them, got {image.shape}")
    return image


def average_flips(predict: Predict, image: Any) -> Any:
    """`[B, H, W, C] -> [B, h, w, K]`: the mean of what `predict` says of the image, of it mirrored
    left to right, upside down and both, each turned back.

    Of logits where predict gives logits, of probabilities where it ends in a softmax: the mean of
    probabilities lets no single view outvote the others. Takes four times as long; outside of jit
    predict is compiled once. Logits smaller than the image must be centered in it.

    Source: test-time augmentation as in Ciresan et al. 2012; `average_rotations` has the turned ones too.

    >>> average_flips(lambda image: image, jnp.arange(6.0).reshape(1, 2, 3, 1))[0, ..., 0].tolist()
    [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    total = predict(image)
    for axes in ((2,), (1,), (1, 2)):
        total = total + jnp.flip(predict(jnp.flip(image, axes)), axes)
    return total / 4


def average_rotations(predict: Predict, image: Any) -> Any:
    """`[B, H, W, C] -> [B, h, w, K]`: `average_flips` of the image and of it turned by a quarter.

    These eight are all that a square has: for pictures that have no up and no down, as slices under
    the microscope. Of an image that is not square predict is compiled twice. Else as `average_flips`.

    Source: Ciresan et al. 2012; the rotated versions of Ronneberger et al. 2015, section 4.

    >>> average_rotations(lambda image: image, jnp.arange(6.0).reshape(1, 2, 3, 1))[0, ..., 0].tolist()
    [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    swapped = average_flips(predict, jnp.swapaxes(image, 1, 2))
    return (average_flips(predict, image) + jnp.swapaxes(swapped, 1, 2)) / 2


def overlap_tile(
    predict: Predict,
    image: Any,
    *,
    tile: int | tuple[int, int],
    margin: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    batch_size: int = 1,
) -> np.ndarray:
    """`[B, H, W, C] -> [B, H, W, K]`: tiles whose middles cover the image, mirrored at its borders.

    A tile of `tile` pixels a side loses `margin` on each side: that is what valid convolutions
    take from it; of a model that gives more, the rest is cut off. With the margin of the model's
    receptive field this equals the model on the whole mirrored image, provided that it is one
    function at every place of a tile: after pooling by 16 in all, `stride`, from tile to tile
    (tile - 2 margin), is to be a multiple of 16. `batch_size` tiles are predicted at a time.
    Errors: ValueError for a tile that is all margin, a stride beyond what a tile gives, and a
    predict that gives less.

    Source: Ronneberger et al. 2015, figure 2.

    >>> def valid(image):  # a 3 x 3 mean without padding
    ...     rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    ...     return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
    >>> overlap_tile(valid, np.ones((1, 7, 9, 1), np.float32), tile=6, margin=1).shape
    (1, 7, 9, 1)
    """
    tile, margin = to_pair(tile), to_pair(margin)
    inner = tile[0] - 2 * margin[0], tile[1] - 2 * margin[1]
    step = inner if stride is None else to_pair(stride)
    if min(margin) < 0 or any(not 1 <= s <= n for s, n in zip(step, inner, strict=True)):
        raise ValueError(
            f"tile {tile} less twice the margin {margin} leaves {inner}: expected at least one "
            f"pixel, and a stride from 1 to it, got {step}"
        )
    image = check_image(image)
    height, width = image.shape[1:3]
    tops, lefts = range(0, height, step[0]), range(0, width, step[1])
    corners = [(top, left) for top in tops for left in lefts]
    starts = [(top - margin[0], left - margin[1]) for top, left in corners]
    pieces = predict_tiles(predict, image, starts, tile, batch_size)
    whole = np.empty((0,))
    for number, (top, left) in enumerate(corners):
        piece = center_of_tile(next(pieces), inner)
        if number == 0:
            whole = np.empty((*image.shape[:3], piece.shape[-1]), piece.dtype)
        place = whole[:, top : top + inner[0], left : left + inner[1]]
        place[:] = piece[:, : place.shape[1], : place.shape[2]]
    return whole


def sliding_window(
    predict: Predict,
    image: Any,
    *,
    window: int | tuple[int, int],
    stride: int | tuple[int, int],
    blend: str = "gaussian",
    batch_size: int = 1,
    finish: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
) -> np.ndarray:
    """`[B, H, W, C] -> [B, H, W, K]`: the weighted mean of the windows that see a pixel.

    The last window of a row, and of a column, is shifted to lie within the image. An image that is
    smaller than the window is mirrored up to it. `blend` weighs a window's pixels: "gaussian" those
    in its middle most, which see most around them, "uniform" all alike. What is averaged is what
    predict gives, see `average_flips`. `finish` takes rows [B, n, W, K] that no further window changes to
    what is kept of them, so that the sums are of a window's height, not of the image's: an argmax
    for a mask. `batch_size` windows are predicted at a time.
    Errors: ValueError for a stride beyond the window, another blend, and a predict whose output is
    smaller than the window.

    Source: Isensee et al. 2021, nnU-Net, the Gaussian of an eighth of the window; the evaluation
    by sliding window of Chen et al. 2018 and others is uniform.

    >>> image = np.arange(60.0, dtype=np.float32).reshape(1, 6, 10, 1)
    >>> np.abs(sliding_window(lambda x: x, image, window=4, stride=3) - image).max() < 1e-5
    np.True_
    """
    window, stride = to_pair(window), to_pair(stride)
    if any(not 1 <= s <= n for s, n in zip(stride, window, strict=True)):
        raise ValueError(f"a stride is from 1 to the window {window}, got {stride}")
    weights = blend_weights(window, blend)
    image = check_image(image)
    height, width = image.shape[1:3]
    tops, lefts = (
        tile_positions(length, each, step)
        for length, each, step in zip((height, width), window, stride, strict=True)
    )
    corners = [(top, left) for top in tops for left in lefts]
    pieces = predict_tiles(predict, image, corners, window, batch_size)
    before = max(0, -tops[0]), max(0, -lefts[0])  # mirrored pixels of an image that is smaller
    columns = slice(before[1], before[1] + width)
    sums = mass = np.zeros((1, window[0], max(width, window[1]), 1), np.float32)
    kept = []
    for top, below in zip(tops, [*tops[1:], None], strict=True):
        for left in lefts:
            piece = center_of_tile(next(pieces), window)
            if not kept and left == lefts[0]:
                sums = np.zeros((len(image), *mass.shape[1:3], piece.shape[-1]), np.float32)
            place = slice(left + before[1], left + before[1] + window[1])
            sums[:, :, place] += weights * piece
            mass[:, :, place] += weights
        done = window[0] if below is None else below - top
        rows = slice(before[0], min(done, before[0] + height))
        kept.append(finish(sums[:, rows, columns] / mass[:, rows, columns]))
        for each in (sums, mass):
            each[:, : window[0] - done] = each[:, done:]
            each[:, window[0] - done :] = 0
    return np.concatenate(kept, 1)


def tile_positions(length: int, window: int, stride: int) -> list[int]:
    """Where along `length` windows begin, the last at the border: before 0 where it is shorter.

    >>> tile_positions(10, 4, 3), tile_positions(11, 4, 3), tile_positions(2, 4, 3)
    ([0, 3, 6], [0, 3, 6, 7], [-1])
    """
    last = length - window
    return [*range(0, last, stride), last] if last > 0 else [last // 2]


def blend_weights(window: Corner, blend: str) -> np.ndarray:
    """-> [h, w, 1] float32, the weight of each pixel of a window; none is 0."""
    if blend not in ("gaussian", "uniform"):
        raise ValueError(f"blend is 'gaussian' or 'uniform', got {blend!r}")
    if blend == "uniform":
        return np.ones((*window, 1), np.float32)
    rows, columns = (
        np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) for side in window
    )
    return np.outer(rows, columns)[..., None].astype(np.float32)  # 1e-7 in the corners


def predict_tiles(
    predict: Predict, image: np.ndarray, corners: list[Corner], size: Corner, batch_size: int
) -> Iterator[np.ndarray]:
    """[B, H, W, C] and where pieces begin -> what `predict` says of each, [B, h, w, K] in turn.

    The last batch repeats its last piece, to be of the size of the others.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is how many pieces are predicted at once, got {batch_size}")
    for start in range(0, len(corners), batch_size):
        some = corners[start : start + batch_size]
        full = some + some[-1:] * (batch_size - len(some))
        answers = np.asarray(
            predict(np.concatenate([extract_tile(image, each, size) for each in full]))
        )
        yield from np.split(answers, batch_size)[: len(some)]


def extract_tile(image: np.ndarray, corner: Corner, size: Corner) -> np.ndarray:
    """[B, H, W, C] -> [B, *size, C] from a corner on, which may be anywhere: mirrored outside."""
    rows, columns = (
        reflect_index(np.arange(first, first + side), length)
        for first, side, length in zip(corner, size, image.shape[1:3], strict=True)
    )
    return image[:, rows[:, None], columns]


def reflect_index(place: np.ndarray, length: int) -> np.ndarray:
    """Whole numbers to those from 0 to length - 1 that they are mirrored to, as by numpy.pad.

    >>> reflect_index(np.arange(-3, 6), 3).tolist()
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    last = max(length - 1, 1)
    return np.minimum(last - np.abs(place % (2 * last) - last), length - 1)


def center_of_tile(piece: np.ndarray, size: Corner) -> np.ndarray:
    """[B, h, w, K] -> its middle [B, *size, K]; ValueError where it is smaller."""
    beyond = piece.shape[1] - size[0], piece.shape[2] - size[1]
    if piece.ndim != 4 or min(beyond) < 0:
        raise ValueError(f"expected predictions [B, h, w, K] of {size} or more, got {piece.shape}")
    top, left = beyond[0] // 2, beyond[1] // 2
    return piece[:, top : top + size[0], left : left + size[1]]
