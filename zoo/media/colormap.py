"""Colors of classes."""

import numpy as np


def voc_colormap(classes: int) -> np.ndarray:
    """Returns the colors [K, 3] uint8 of Pascal VOC's masks; at most 256.

    Class 0 is black and 255, the ignored label, is a pale yellow.

    Args:
        classes: number of classes.

    Returns:
        Colors as red, green, blue.

    Raises:
        ValueError: if there are more than 256 classes.

    Source: Pascal VOC's development kit (VOClabelcolormap.m): the bits of the class, three at a
    time, become the bits of the colors from the highest down.

    >>> voc_colormap(4).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    if not 0 <= classes <= 256:
        raise ValueError(f"expected 0 to 256 classes, got {classes}")
    numbers = np.arange(classes)
    colors = np.zeros((classes, 3), np.uint8)
    for shift in range(8):
        for channel in range(3):
            bit = (numbers >> (3 * shift + channel)) & 1
            colors[:, channel] |= (bit << (7 - shift)).astype(np.uint8)
    return colors


def box_colormap(classes: int) -> np.ndarray:
    """Returns colors [K, 3] uint8 for boxes: `voc_colormap` from class 1, blended with white.

    The colors repeat from the 255th class on.

    Args:
        classes: number of classes.

    Returns:
        Colors as red, green, blue.

    >>> box_colormap(2).tolist()
    [[162, 66, 66], [66, 162, 66]]
    """
    dark = voc_colormap(256)[1 + np.arange(classes) % 254]
    return 255 - (255 - dark) // 4 * 3
