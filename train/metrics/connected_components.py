"""Instances, and how much the loss of a pixel between two of them counts. On the host."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

MAX_DISTANCE = (
    6  # sigmas; past it the border's term is below 2e-8 of w0, less than a float32 tells apart
)


def connected_components(mask: np.ndarray) -> np.ndarray:
    """[H, W], cells where it is not 0 -> [H, W] int32: the connected cells 1 ... N, 0 elsewhere.

    Pixels touch by their sides, as the ISBI 2012 challenge counts neurites: diagonal ones may
    have a border of one pixel between them.

    >>> connected_components(np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1]])).tolist()
    [[1, 0, 2], [1, 0, 0], [0, 3, 3]]
    """
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    return labels


def border_weights(
    instances: np.ndarray,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] | None = None,
) -> np.ndarray:
    """[H, W], 0 = background -> [H, W] float32: w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    d1 and d2 are a background pixel's distances in pixels to the nearest and the second nearest
    instance; cells, and backgrounds with fewer than two near, have w_c alone. class_weights:
    (background, cells); None: those with which both make up half of this image, 1 on average.
    Errors: ValueError for class weights that are not two numbers from 0 on.

    The two smallest distances alone are held, whatever the number N of instances: each one's are
    computed in its bounding box and `MAX_DISTANCE` sigmas around, and merged there; beyond that the term
    is nothing. Time grows with the area of these boxes together.

    Source: Ronneberger et al. 2015, U-Net, equation 2; the border's term on the background alone,
    as its figure 3 draws it.

    >>> row = np.array([[1, 0, 0, 2]])
    >>> border_weights(row, class_weights=(1.0, 2.0)).round(2).tolist()  # d1 + d2 = 1 + 2
    [[2.0, 9.350000381469727, 9.350000381469727, 2.0]]
    """
    inside = instances != 0
    background, cell = (
        class_frequency_weights(inside)
        if class_weights is None
        else check_class_weights(class_weights)
    )
    nearest, second = two_nearest_distances(instances, reach=MAX_DISTANCE * sigma)
    near = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(inside, cell, background + near).astype(np.float32)


def class_frequency_weights(inside: np.ndarray) -> tuple[float, float]:
    """[H, W] bool -> weights of False and True whose sums over the image are equal, of mean 1.

    >>> class_frequency_weights(np.array([[False, True, True, True]]))
    (2.0, 0.6666666666666666)
    """
    share = float(inside.mean())
    return (1.0, 1.0) if share in (0.0, 1.0) else (0.5 / (1 - share), 0.5 / share)


def check_class_weights(class_weights: Sequence[float]) -> tuple[float, float]:
    """The weights of background and cells; raises ValueError in one line for anything else."""
    given = np.asarray(class_weights, np.float64)
    if given.shape != (2,) or not (np.isfinite(given) & (given >= 0)).all():
        raise ValueError(
            "class_weights of a border are 2 numbers, 0 or more, of background and cells; "
            f"got {given.tolist()!s:.80}"
        )
    return float(given[0]), float(given[1])


def two_nearest_distances(instances: np.ndarray, *, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """[H, W] -> distances [H, W] float32 to the nearest and the second nearest instance.

    inf where it is further than `reach`; 0 to the nearest within an instance.

    >>> [d.tolist() for d in two_nearest_distances(np.array([[7, 0, 0, 0, 3]]), reach=3.0)]
    [[[0.0, 1.0, 2.0, 1.0, 0.0]], [[inf, 3.0, 2.0, 3.0, inf]]]
    """
    _, places = np.unique(np.append(0, instances), return_inverse=True)
    labels = places[1:].reshape(instances.shape)  # 0, 1 ... N, however they are numbered
    nearest, second = (np.full(instances.shape, np.inf, np.float32) for _ in range(2))
    around = int(np.ceil(reach))
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        grown = tuple(slice(max(0, side.start - around), side.stop + around) for side in box)
        distance = np.asarray(ndimage.distance_transform_edt(labels[grown] != number), np.float32)
        distance[distance > reach] = np.inf
        further = np.maximum(nearest[grown], distance)
        second[grown] = np.minimum(second[grown], further)
        nearest[grown] = np.minimum(nearest[grown], distance)
    return nearest, second
