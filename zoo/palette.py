"""Colours of classes in masks."""

import colorsys

import numpy as np


def voc_palette(classes: int) -> np.ndarray:
    """Number of classes -> [K, 3] uint8, red, green and blue of each; at most 256.

    Class 0 is black, and 255, the value of ignored pixels, a pale grey-yellow: the same whatever K.

    Source: the colour map of Pascal VOC's development kit (VOClabelcolormap.m): the bits of the
    class, three by three, are the bits of the colours from the highest down.

    >>> voc_palette(4).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    if not 0 <= classes <= 256:
        raise ValueError(f"a palette has 0 to 256 colours; got {classes}")
    numbers = np.arange(classes)
    colours = np.zeros((classes, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (numbers >> (3 * place + channel)) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours


def box_palette(classes: int) -> np.ndarray:
    """Number of classes -> [K, 3] uint8, bright colours of boxes, which masks' dark ones are not.

    Hues by the golden section, so that neighbours lie far apart; every other one a little darker.

    >>> box_palette(3).tolist()
    [[255, 25, 25], [19, 69, 191], [159, 255, 25]]
    """
    section = (5**0.5 - 1) / 2
    colours = [
        colorsys.hsv_to_rgb(k * section % 1, 0.9, 1.0 if k % 2 == 0 else 0.75)
        for k in range(classes)
    ]
    return np.round(255 * np.array(colours).reshape(-1, 3)).astype(np.uint8)
