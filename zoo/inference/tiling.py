"""Dense prediction on images of any size in tiles of one size.

`predict` maps [B, h, w, C] to values per pixel [B, h', w', K]: logits, probabilities, or classes if
nothing is averaged. Pass a compiled function that takes its variables as an argument,
`functools.partial(jax.jit(f), variables)`: it is called with one shape alone and so is compiled
once. Images and results stay in host memory; device memory is that of a batch of tiles.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

Corner = tuple[int, int]  # (row, column), or (height, width)
Predict = Callable[[Any], Any]


def to_pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (rows, columns) of a number for both axes or of a pair."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def check_image(image: Any) -> np.ndarray:
    """Returns an image batch [B, H, W, C] in host memory; raises ValueError if it has no pixels."""
    image = np.asarray(image)
    if image.ndim != 4 or not image.size:
        raise ValueError(f"expected non-empty images [B, H, W, C], got {image.shape}")
    return image


def average_flips(predict: Predict, image: Any) -> Any:
    """Averages predictions over the image and its mirror images.

    The average is over logits if `predict` returns logits, and over probabilities if it ends in a
    softmax, so that no view outvotes the others. It takes four times as long; outside of jit
    `predict` is compiled once. Outputs smaller than the image must be centered.

    Args:
        predict: function [B, H, W, C] -> [B, h, w, K].
        image: images [B, H, W, C].

    Returns:
        Predictions [B, h, w, K].

    Source: Test-time augmentation as in Ciresan et al. 2012.

    >>> average_flips(lambda image: image, jnp.arange(6.0).reshape(1, 2, 3, 1))[0, ..., 0].tolist()
    [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    total = predict(image)
    for axes in ((2,), (1,), (1, 2)):
        total = total + jnp.flip(predict(jnp.flip(image, axes)), axes)
    return total / 4


def average_rotations(predict: Predict, image: Any) -> Any:
    """Averages predictions over the eight symmetries of a square.

    It suits images without orientation, such as microscope slices. For images that are not square
    `predict` is compiled twice.

    Args:
        predict: see `average_flips`.
        image: images [B, H, W, C].

    Returns:
        Predictions [B, h, w, K].

    Source: Ciresan et al. 2012; the rotated versions of Ronneberger et al. 2015, section 4.

    >>> image = jnp.arange(6.0).reshape(1, 2, 3, 1)
    >>> average_rotations(lambda image: image, image)[0, ..., 0].tolist()
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
    """Predicts in tiles whose centers cover the image, mirrored at its borders.

    With the margin of the model's receptive field this equals the model on the complete mirrored
    image, provided that the model is translation invariant on the tile: after pooling by 16 in all,
    `stride` (tile - 2 margin) must be a multiple of 16.

    Args:
        predict: function [B, h, w, C] -> [B, h', w', K]; larger outputs are cropped.
        image: images [B, H, W, C].
        tile: side of a tile, or (height, width).
        margin: pixels that a tile loses on each side, as valid convolutions do.
        stride: distance of the tiles; tile - 2 margin if not given.
        batch_size: tiles that are predicted at once.

    Returns:
        Predictions [B, H, W, K].

    Raises:
        ValueError: if the tile has no center, the stride exceeds it, or outputs are too small.

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
            f"expected a tile {tile} larger than twice the margin {margin}, and a stride from 1 to "
            f"{inner}, got {step}"
        )
    image = check_image(image)
    height, width = image.shape[1:3]
    tops, lefts = range(0, height, step[0]), range(0, width, step[1])
    corners = [(top, left) for top in tops for left in lefts]
    starts = [(top - margin[0], left - margin[1]) for top, left in corners]
    pieces = predict_tiles(predict, image, starts, tile, batch_size)
    result = np.empty((0,))
    for number, (top, left) in enumerate(corners):
        piece = center_of_tile(next(pieces), inner)
        if number == 0:
            result = np.empty((*image.shape[:3], piece.shape[-1]), piece.dtype)
        corner = result[:, top : top + inner[0], left : left + inner[1]]
        corner[:] = piece[:, : corner.shape[1], : corner.shape[2]]
    return result


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
    """Averages the predictions of overlapping windows.

    The last window of a row or column is shifted into the image. An image smaller than the window
    is mirrored.

    Args:
        predict: function [B, h, w, C] -> [B, h, w, K].
        image: images [B, H, W, C].
        window: side of a window, or (height, width).
        stride: distance of the windows.
        blend: "gaussian" weights the center of a window most, "uniform" weights all pixels equally.
        batch_size: windows that are predicted at once.
        finish: function applied to completed rows [B, n, W, K], so that sums have the height of a
            window: for example an argmax.

    Returns:
        Predictions [B, H, W, K].

    Raises:
        ValueError: if stride or blend is invalid, or outputs are too small.

    Source: Isensee et al. 2021, nnU-Net, the Gaussian of an eighth of the window; the evaluation by
    sliding window of Chen et al. 2018 and others is uniform.

    >>> image = np.arange(60.0, dtype=np.float32).reshape(1, 6, 10, 1)
    >>> np.abs(sliding_window(lambda x: x, image, window=4, stride=3) - image).max() < 1e-5
    np.True_
    """
    window, stride = to_pair(window), to_pair(stride)
    if any(not 1 <= s <= n for s, n in zip(stride, window, strict=True)):
        raise ValueError(f"expected a stride from 1 to the window {window}, got {stride}")
    weights = blend_weights(window, blend)
    image = check_image(image)
    height, width = image.shape[1:3]
    tops, lefts = (
        tile_positions(length, prediction, step)
        for length, prediction, step in zip((height, width), window, stride, strict=True)
    )
    corners = [(top, left) for top in tops for left in lefts]
    pieces = predict_tiles(predict, image, corners, window, batch_size)
    mirrored = max(0, -tops[0]), max(0, -lefts[0])  # mirrored rows and columns of a small image
    columns = slice(mirrored[1], mirrored[1] + width)
    sums = mass = np.zeros((1, window[0], max(width, window[1]), 1), np.float32)
    results = []
    for top, next_top in zip(tops, [*tops[1:], None], strict=True):
        for left in lefts:
            piece = center_of_tile(next(pieces), window)
            if not results and left == lefts[0]:
                sums = np.zeros((len(image), *mass.shape[1:3], piece.shape[-1]), np.float32)
            corner = slice(left + mirrored[1], left + mirrored[1] + window[1])
            sums[:, :, corner] += weights * piece
            mass[:, :, corner] += weights
        done = window[0] if next_top is None else next_top - top
        rows = slice(mirrored[0], min(done, mirrored[0] + height))
        results.append(finish(sums[:, rows, columns] / mass[:, rows, columns]))
        for prediction in (sums, mass):
            prediction[:, : window[0] - done] = prediction[:, done:]
            prediction[:, window[0] - done :] = 0
    return np.concatenate(results, 1)


def tile_positions(length: int, window: int, stride: int) -> list[int]:
    """Returns the starts of windows along an axis, the last one at the border.

    A negative start means that the axis is shorter than the window.

    Args:
        length: length of the axis.
        window: length of a window.
        stride: distance of the windows.

    Returns:
        The starts.

    >>> tile_positions(10, 4, 3), tile_positions(11, 4, 3), tile_positions(2, 4, 3)
    ([0, 3, 6], [0, 3, 6, 7], [-1])
    """
    last = length - window
    return [*range(0, last, stride), last] if last > 0 else [last // 2]


def blend_weights(window: Corner, blend: str) -> np.ndarray:
    """Returns the weight of each pixel of a window [h, w, 1] float32; none is 0."""
    if blend not in ("gaussian", "uniform"):
        raise ValueError(f"expected blend 'gaussian' or 'uniform', got {blend!r}")
    if blend == "uniform":
        return np.ones((*window, 1), np.float32)
    rows, columns = (
        np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) for side in window
    )
    return np.outer(rows, columns)[..., None].astype(np.float32)  # 1e-7 in the corners


def predict_tiles(
    predict: Predict, image: np.ndarray, corners: list[Corner], size: Corner, batch_size: int
) -> Iterator[np.ndarray]:
    """Yields the prediction of each tile; the last batch is padded by repetition."""
    if batch_size < 1:
        raise ValueError(f"expected a batch_size of at least 1, got {batch_size}")
    for start in range(0, len(corners), batch_size):
        batch = corners[start : start + batch_size]
        full = batch + batch[-1:] * (batch_size - len(batch))
        answers = np.asarray(
            predict(np.concatenate([extract_tile(image, prediction, size) for prediction in full]))
        )
        yield from np.split(answers, batch_size)[: len(batch)]


def extract_tile(image: np.ndarray, corner: Corner, size: Corner) -> np.ndarray:
    """Extracts a tile [B, *size, C] from any corner, mirrored outside of the image."""
    rows, columns = (
        reflect_index(np.arange(first, first + side), length)
        for first, side, length in zip(corner, size, image.shape[1:3], strict=True)
    )
    return image[:, rows[:, None], columns]


def reflect_index(index: np.ndarray, length: int) -> np.ndarray:
    """Reflects indices into 0 ... length - 1, like numpy.pad.

    Args:
        index: indices.
        length: length of the axis.

    Returns:
        Reflected indices.

    >>> reflect_index(np.arange(-3, 6), 3).tolist()
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    last = max(length - 1, 1)
    return np.minimum(last - np.abs(index % (2 * last) - last), length - 1)


def center_of_tile(piece: np.ndarray, size: Corner) -> np.ndarray:
    """Returns the center [B, *size, K] of a prediction; raises ValueError if it is too small."""
    beyond = piece.shape[1] - size[0], piece.shape[2] - size[1]
    if piece.ndim != 4 or min(beyond) < 0:
        raise ValueError(f"expected predictions [B, h, w, K] of {size} or more, got {piece.shape}")
    top, left = beyond[0] // 2, beyond[1] // 2
    return piece[:, top : top + size[0], left : left + size[1]]
