"""Labels that a mirror changes: what goes left goes right in it."""

import re

import numpy as np

SIDE_WORDS = {"left": "right", "right": "left"}


def mirror_label_map(classes: tuple[str, ...]) -> np.ndarray:
    """Names of K classes -> [K] int32: the class that a mirrored clip of each has.

    Names that differ in left and right alone are exchanged; the others stay.

    >>> mirror_label_map(("left", "right up", "right", "left up", "jump", "lefty")).tolist()
    [2, 3, 0, 1, 4, 5]
    """
    number = {name: k for k, name in enumerate(classes)}

    def exchanged(name: str) -> str:
        return re.sub(r"(?<![a-z])(left|right)(?![a-z])", lambda found: SIDE_WORDS[found[0]], name)

    return np.array([number.get(exchanged(name), k) for k, name in enumerate(classes)], np.int32)
