"""Connected components of masks, and weights of the pixels between them, on the host."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

MAX_DISTANCE = (
    6  # sigmas; past it the border's term is below 2e-8 of w0, less than a float32 tells apart
)


def connected_components(mask: np.ndarray) -> np.ndarray:
    """Labels the connected components of a mask.

    Pixels are connected by their sides, as in the ISBI 2012 challenge. Diagonal cells may have a
    border of one pixel between them.

    Args:
        mask: mask [H, W]; cells are not 0.

    Returns:
        Components 1 to N [H, W] int32; 0 elsewhere.

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
    """Computes the pixel weights w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    d1 and d2 are the distances of a background pixel to the nearest and second nearest instance, in
    pixels. Cells have the weight w_c, as do background pixels with fewer than two instances nearby.
    Distances are computed in the bounding box of each instance, enlarged by `MAX_DISTANCE` sigmas.
    Only the two smallest are kept, so that memory does not grow with the number of instances.

    Args:
        instances: instances [H, W]; 0 is background.
        w0: weight of the border.
        sigma: width of the border in pixels.
        class_weights: weights w_c of background and cells; None for weights that balance both in
            this image, 1 on average.

    Returns:
        Weights [H, W] float32.

    Raises:
        ValueError: if the class weights are not two numbers of at least 0.

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
    """Returns weights of False and True that balance both, with mean 1.

    >>> class_frequency_weights(np.array([[False, True, True, True]]))
    (2.0, 0.6666666666666666)
    """
    share = float(inside.mean())
    return (1.0, 1.0) if share in (0.0, 1.0) else (0.5 / (1 - share), 0.5 / share)


def check_class_weights(class_weights: Sequence[float]) -> tuple[float, float]:
    """Returns the weights of background and cells; raises ValueError if they are invalid."""
    given = np.asarray(class_weights, np.float64)
    if given.shape != (2,) or not (np.isfinite(given) & (given >= 0)).all():
        raise ValueError(
            "class_weights of a border are 2 numbers, 0 or more, of background and cells; "
            f"got {given.tolist()!s:.80}"
        )
    return float(given[0]), float(given[1])


def two_nearest_distances(instances: np.ndarray, *, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Computes the distances to the nearest and second nearest instance.

    Args:
        instances: instances [H, W]; 0 is background.
        reach: largest distance.

    Returns:
        Two distances [H, W] float32; infinite above `reach`, and 0 to the nearest within an
        instance.

    >>> [d.tolist() for d in two_nearest_distances(np.array([[7, 0, 0, 0, 3]]), reach=3.0)]
    [[[0.0, 1.0, 2.0, 1.0, 0.0]], [[inf, 3.0, 2.0, 3.0, inf]]]
    """
    _, places = np.unique(np.append(0, instances), return_inverse=True)
    labels = places[1:].reshape(instances.shape)  # numbered 0, 1 ... N
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
