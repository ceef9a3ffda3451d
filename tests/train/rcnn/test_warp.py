"""Warping against its definition, pixel by pixel."""

import numpy as np
import pytest

from train.rcnn.warp import warp_region

FILL = [7, 80, 200]


def oracle(image, box, *, size, context, fill):
    """R-CNN's rcnn_im_crop, in continuous coordinates and one loop."""
    scale = size / (size - 2 * context)
    window = []  # first and one past the last pixel, along x and y
    for axis in (0, 1):
        middle, half = (box[axis] + box[axis + 2]) / 2, (box[axis + 2] - box[axis]) / 2
        window.append((int(np.rint(middle - half * scale)), int(np.rint(middle + half * scale))))
    out = np.tile(np.float64(fill), (size, size, 1))
    places = []
    for (first, last), length in zip(window, image.shape[1::-1], strict=True):
        lower, upper = max(first, 0), min(last, length)
        before = round((lower - first) * size / (last - first))
        count = min(round((upper - lower) * size / (last - first)), size - before)
        places.append((lower, upper, before, count))
    (x0, x1, left, wide), (y0, y1, top, high) = places
    part = image[y0:y1, x0:x1].astype(float)

    def sample(k, count, length):
        at = np.clip((k + 0.5) * length / count - 0.5, 0, length - 1)
        low = int(at)
        return low, min(low + 1, length - 1), at - low

    for j in range(high):
        above, below, v = sample(j, high, y1 - y0)
        for i in range(wide):
            before, after, u = sample(i, wide, x1 - x0)
            upper = part[above, before] * (1 - u) + part[above, after] * u
            lower = part[below, before] * (1 - u) + part[below, after] * u
            out[top + j, left + i] = upper * (1 - v) + lower * v
    return out


@pytest.mark.parametrize(
    ("box", "size", "context"),
    [
        ((12, 9, 30, 25), 24, 3),
        ((12.4, 9.3, 30.8, 25.6), 24, 3),
        ((0, 0, 14, 20), 27, 2),  # beyond the upper left corner
        ((30, 20, 40, 32), 24, 4),  # beyond the lower right one
        ((0, 0, 40, 32), 24, 2),  # beyond all four
        ((5, 3, 6, 30), 20, 2),  # thin
        ((11, 11, 12, 12), 16, 0),  # a pixel
        ((8, 8, 24, 24), 16, 0),  # as it is
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_against_the_definition(box, size, context, channels):
    image = np.random.default_rng(0).integers(0, 256, (32, 40, channels)).astype(np.uint8)
    fields = dict(size=size, context=context, fill=FILL[:channels])
    found = warp_region(image, np.float32(box), **fields)
    assert found.shape == (size, size, channels) and found.dtype == np.uint8
    # OpenCV blends bytes in fixed point
    assert np.abs(found - oracle(image, box, **fields)).max() <= 1.01


def test_the_box_fills_all_but_the_context():
    image = np.zeros((300, 300, 1), np.uint8)
    image[100:165, 80:275] = 255  # 65 x 195 pixels: thirds of what is inside of the context
    found = warp_region(image, (80, 100, 275, 165), fill=[0])[..., 0]
    assert found.shape == (227, 227)
    for across in (found[113], found[:, 113]):
        inside = np.flatnonzero(across > 127)
        assert abs(inside[0] - 16) <= 2 and abs(inside[-1] - 210) <= 2


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (0, 0, 0, 9), (39.9, 31.9, 40, 32)])
def test_boxes_of_no_size(box):
    found = warp_region(
        np.full((32, 40, 3), 9, np.uint8), np.float32(box), size=8, context=1, fill=FILL
    )
    assert found.shape == (8, 8, 3)
