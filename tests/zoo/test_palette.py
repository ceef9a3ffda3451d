"""Colours of masks are those of Pascal VOC."""

import numpy as np
import pytest

from zoo.palette import box_palette, voc_palette

PUBLISHED = {  # VOC 2012's class colours, and its 255
    1: (128, 0, 0),
    5: (128, 0, 128),
    8: (64, 0, 0),
    15: (192, 128, 128),
    20: (0, 64, 128),
    255: (224, 224, 192),
}


def test_published_colours():
    palette = voc_palette(256)
    assert {number: tuple(palette[number].tolist()) for number in PUBLISHED} == PUBLISHED


def test_no_more_than_a_byte_tells():
    with pytest.raises(ValueError, match="256"):
        voc_palette(257)


def test_boxes_of_ninety_classes_differ():
    colours = box_palette(90).astype(int)
    far = np.abs(colours[:, None] - colours).sum(-1) + 999 * np.eye(90, dtype=int)
    assert far.min() > 5 and np.abs(np.diff(colours, axis=0)).sum(-1).min() > 150
    assert colours.max(-1).min() > 180 and box_palette(0).shape == (0, 3)
