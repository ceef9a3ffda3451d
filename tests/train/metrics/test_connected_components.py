"""U-Net's weight map against all distances to all instances, one by one."""

import numpy as np
import pytest
from scipy import ndimage

from train.metrics.connected_components import (
    border_weights,
    connected_components,
    two_nearest_distances,
)

RANDOM = np.random.default_rng(0)


def blobs(height: int, width: int, *, share: float) -> np.ndarray:
    """[H, W] bool: soft noise above a level."""
    noise = ndimage.gaussian_filter(RANDOM.normal(size=(height, width)), 2)
    return noise > np.quantile(noise, 1 - share)


def by_hand(instances: np.ndarray, *, w0: float, sigma: float, weights: tuple) -> np.ndarray:
    """Equation 2 from the distance of every pixel to every pixel of every instance."""
    places = np.stack(np.mgrid[: instances.shape[0], : instances.shape[1]], -1).astype(float)
    every = []
    for number in np.unique(instances[instances > 0]):
        own = places[instances == number]
        apart = np.linalg.norm(places[:, :, None] - own[None, None], axis=-1)
        every.append(apart.min(-1))
    d1, d2 = np.sort(every, 0)[:2]
    near = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    return np.where(instances > 0, weights[1], weights[0] + near)


@pytest.mark.parametrize("sigma", [1.0, 5.0])
def test_the_map_is_equation_2(sigma):
    instances = 7 * connected_components(blobs(40, 33, share=0.4))  # numbers with gaps
    assert len(np.unique(instances)) > 5
    found = border_weights(instances, w0=10.0, sigma=sigma, class_weights=(0.5, 1.5))
    assert found.dtype == np.float32 and found.shape == instances.shape
    expected = by_hand(instances, w0=10.0, sigma=sigma, weights=(0.5, 1.5))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.max() > 1.6, "some cells are near"


def test_distances_to_parts_of_one_instance_are_of_one():
    instances = np.array([[4, 0, 0, 4, 0, 0, 0, 9]])
    nearest, second = two_nearest_distances(instances, reach=9.0)
    np.testing.assert_array_equal(nearest, [[0, 1, 1, 0, 1, 2, 1, 0]])
    np.testing.assert_array_equal(second, [[7, 6, 5, 4, 3, 2, 3, 4]])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_background_and_cells_are_balanced(share):
    mask = blobs(30, 30, share=share) if 0 < share < 1 else np.full((30, 30), share == 1)
    found = border_weights(connected_components(mask), w0=0.0)
    assert found.mean() == pytest.approx(1, rel=1e-5)
    if 0 < share < 1:
        assert found[mask].sum() == pytest.approx(found[~mask].sum(), rel=1e-5)


def test_a_lonely_cell_has_no_border():
    assert np.all(border_weights(np.eye(9, dtype=np.int32), class_weights=(1, 1)) == 1)


@pytest.mark.parametrize("weights", [(1, 2, 3), (-1, 2), (np.nan, 1), 3])
def test_other_class_weights_are_one_line(weights):
    with pytest.raises(ValueError, match="2 numbers, 0 or more, of background and cells"):
        border_weights(np.zeros((2, 2), int), class_weights=weights)
