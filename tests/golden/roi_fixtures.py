"""What torchvision's detection operators are given for the golden files, and ours in the tests."""

import pathlib

import numpy as np

from tests.golden.fill import uniform

FOLDER = pathlib.Path(__file__).parent / "ops"
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
SIZE = (64, 96)  # height and width of the picture
THRESHOLDS = (0.3, 0.5, 0.7)
SHARES = (0.5, 0.3)  # of IoU, above which a match is one and below which it is none
ROI_SIZE, ROI_SCALE = (3, 4), 0.25
ROI_ALIGN = [(2, False), (2, True), (-1, False), (-1, True)]  # sampling, aligned
LEVELS = (96, 24, 6)  # anchors
BEFORE, AFTER, KEPT = 30, 25, 0.7


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays that `python -m tests.golden.make_ops` wrote."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def boxes(name: str, count: int, *, whole: bool = False) -> np.ndarray:
    """`-> [count, 4]` of all sizes about the picture, some past its edge; `whole`: at whole pixels."""
    numbers = uniform(name, (count, 4)) / 2 + 0.5
    height, width = SIZE
    center = numbers[:, :2] * (width, height)
    half = 1 + numbers[:, 2:] ** 2 * 24
    found = np.concatenate([center - half, center + half], 1)
    return (found.round() if whole else found).astype(np.float32)


def crowded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`-> [N, 4], [N], [N]`: boxes, scores, labels; equal scores, equal boxes, boxes of no area,
    and IoU of one half and other thresholds exactly."""
    found = boxes("crowded", 240, whole=True)
    found[40:80] = found[:40] + 1
    found[80:120] = found[:40]
    found[80:120, 3] = (found[:40, 1] + found[:40, 3]) // 2
    found[120:124, 2:] = found[120, :2]
    found[120:124, :2] = found[120, :2]
    scores = np.round(uniform("scores", (240,)) * 8 + 8) / 16
    return found, scores.astype(np.float32), (uniform("labels", (240,)) * 2 + 2).astype(np.int32)


def features() -> np.ndarray:
    """`-> [H, W, C]`, the map of the picture at ROI_SCALE."""
    return uniform("features", (SIZE[0] // 4, SIZE[1] // 4, 2))


def regions() -> np.ndarray:
    """`-> [R, 4]`: within the picture, past its edges, all around it, beside it, and without area."""
    height, width = SIZE
    special = [
        (0, 0, width, height),
        (-20, -20, width + 20, height + 20),
        (width + 9, 0, width + 30, 20),
        (-30, -30, -9, -9),
        (10, 10, 10, 10),
        (40, 20, 30, 10),
        (12.5, 7.5, 13, 40),
        (2, 6, 90, 10),
    ]
    return np.concatenate([boxes("regions", 6), np.asarray(special, np.float32)])


def slope(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """`-> [*shape]`: what a result's elements count in the sum whose gradient is compared."""
    return uniform(f"slope of {name}", shape)


def overlaps() -> np.ndarray:
    """`-> [N, A]` of IoU in steps of 0.1, so that there are ties; row 3 has nothing above 0.2."""
    iou = np.round(np.maximum(uniform("overlaps", (5, 60)), 0) * 8) / 10
    iou[3] = np.minimum(iou[3], 0.2)
    return iou.astype(np.float32)


def levels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`-> [A], [A, 4], [A, 4]`: logits, offsets and anchors of three levels."""
    total = sum(LEVELS)
    anchors = np.concatenate(
        [boxes(f"level {k}", count, whole=True) for k, count in enumerate(LEVELS)]
    )
    anchors[:3] += 2000  # beside the picture: nothing is left of them, and they score best
    logits = uniform("logits", (total,)) * 4
    logits[:3] = 5
    return logits, uniform("deltas", (total, 4)) / 2, anchors
