"""Colors of classes in masks."""

import numpy as np


def voc_colormap(classes: int) -> np.ndarray:
    """Number of classes -> [K, 3] uint8, red, green and blue of each; at most 256.

    Class 0 is black, and 255, the value of ignored pixels, a pale gray-yellow: the same whatever K.

    Source: the color map of Pascal VOC's development kit (VOClabelcolormap.m): the bits of the
    class, three by three, are the bits of the colors from the highest down.

    >>> voc_colormap(4).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    if not 0 <= classes <= 256:
        raise ValueError(f"a palette has 0 to 256 colors; got {classes}")
    numbers = np.arange(classes)
    colors = np.zeros((classes, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (numbers >> (3 * place + channel)) & 1
            colors[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colors


def box_colormap(classes: int) -> np.ndarray:
    """Number of classes -> [K, 3] uint8, the colors of boxes, which recur from the 255th on.

    Those of `voc_colormap` from 1 on, where classes of Pascal VOC's masks begin, each a quarter of the
    way to white, for thin lines on dark pictures.

    >>> box_colormap(2).tolist()
    [[162, 66, 66], [66, 162, 66]]
    """
    dark = voc_colormap(256)[1 + np.arange(classes) % 254]
    return 255 - (255 - dark) // 4 * 3
