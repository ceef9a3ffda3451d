"""The colors of masks equal the colors of Pascal VOC."""

import pytest

from zoo.media.colormap import voc_colormap

PUBLISHED = {  # VOC 2012's class colors, and its 255
    1: (128, 0, 0),
    5: (128, 0, 128),
    8: (64, 0, 0),
    15: (192, 128, 128),
    20: (0, 64, 128),
    255: (224, 224, 192),
}


def test_published_colors():
    palette = voc_colormap(256)
    assert {number: tuple(palette[number].tolist()) for number in PUBLISHED} == PUBLISHED


def test_no_more_than_a_byte_tells():
    with pytest.raises(ValueError, match="256"):
        voc_colormap(257)
