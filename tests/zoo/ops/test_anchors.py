"""Anchors against the published nine, py-faster-rcnn's rule and torchvision."""

import jax
import numpy as np

from tests.golden import roi_fixtures
from zoo.ops.anchors import cell_anchors, grid_anchors, paper_anchors
from zoo.ops.boxes import box_area

NINE = [
    [-83, -39, 100, 56],
    [-175, -87, 192, 104],
    [-359, -183, 376, 200],
    [-55, -55, 72, 72],
    [-119, -119, 136, 136],
    [-247, -247, 264, 264],
    [-35, -79, 52, 96],
    [-79, -167, 96, 184],
    [-167, -343, 184, 360],
]


def test_the_nine_of_the_paper():
    assert paper_anchors().tolist() == NINE
    assert (paper_anchors(first=0) == np.array(NINE) - 1).all()


def test_their_areas():
    """128², 256² and 512² by the paper, as near as the rounded sides of the base come."""
    root = np.sqrt(jax.jit(lambda: box_area(paper_anchors(), pixel_offset=1.0))()).reshape(3, 3)
    np.testing.assert_allclose(root, [[128, 256, 512]] * 3, rtol=0.04)


def test_as_torchvision():
    golden = roi_fixtures.golden("anchors")
    cell = cell_anchors((32, 50), (0.5, 1.0, 2.0))
    assert cell.dtype == np.float32
    np.testing.assert_array_equal(cell, golden["cell"])
    grid = jax.jit(lambda: grid_anchors(cell, (3, 2), (16, 8)))()
    np.testing.assert_array_equal(grid, golden["grid"])


def test_order_is_that_of_a_head():
    """[h, w, A, 4], flattened: the anchor of row 1, column 2, of the cell's second."""
    cell = cell_anchors((8, 16), (1.0,))
    grid = jax.jit(lambda: grid_anchors(cell, (3, 4), (10, 20)))()
    row, column, which = 1, 2, 1
    expected = cell[which] + np.array([column * 20, row * 10] * 2)
    np.testing.assert_array_equal(grid.reshape(3, 4, 2, 4)[row, column, which], expected)
