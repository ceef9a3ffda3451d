"""Selective search: where in a picture there might be an object, whatever it is."""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from train.data.disk_cache import cached_arrays
from train.data.permutation import permutation
from train.data.source import Source, SourceWrapper
from zoo.files import cache_folder

VERSION = 1  # of what is computed: another one makes the files in the cache anew
logger = logging.getLogger("train")


class SearchParameters(NamedTuple):
    """How proposals are searched.

    width: pixels to which pictures are brought (R-CNN: 500); no picture is enlarged.
    scale: of the first segmentation into regions; the second's is twice that.
    sigma: of the blur before it.
    smallest: a box's shorter side, in pixels of the picture so brought.
    distinct: of boxes of a higher IoU than this one stays (R-CNN: 1).
    count: boxes of a picture, at most; R-CNN keeps all, about 2,000.
    """

    width: int = 320
    scale: int = 50
    sigma: float = 0.8
    smallest: int = 10
    distinct: float = 0.75
    count: int = 600


FAST_SEARCH = SearchParameters()


def selective_search(image: np.ndarray, search: SearchParameters = FAST_SEARCH) -> np.ndarray:
    """Picture [h, w, 1 or 3] uint8 -> boxes [N, 4] float32 in its pixels, N up to `search.count`.

    The "fast mode": regions of two segmentations in two color spaces, joined by two measures of
    likeness. The boxes stand in an order that the picture alone draws, so that the first of them
    are a fair sample: OpenCV's own order is another one in each process.

    Raises ValueError where OpenCV is missing, or comes without its contrib.

    Source: Uijlings et al. 2013, Selective Search for Object Recognition; van de Sande's
    selective_search_rcnn.m, whose scales of 50 and 100 these are, as OpenCV computes it.
    """
    cv2 = import_contrib()
    shrink = min(1.0, search.width / image.shape[1])
    size = tuple(max(1, round(side * shrink)) for side in (image.shape[1], image.shape[0]))
    small = np.ascontiguousarray(np.broadcast_to(image[..., ::-1], (*image.shape[:2], 3)))
    if shrink < 1:
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    searcher = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    searcher.setBaseImage(small)
    searcher.switchToSelectiveSearchFast(search.scale, search.scale, search.sigma)
    found = np.unique(np.asarray(searcher.process(), np.int64).reshape(-1, 4), axis=0)
    found = found[(found[:, 2:] >= search.smallest).all(1)]
    found = found[permutation(len(found), 0)]
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
    corners = corners[suppress_duplicates(corners, search.distinct)[: search.count]]
    there = np.array([image.shape[1] / size[0], image.shape[0] / size[1]] * 2)
    return (corners * there).astype(np.float32)


def import_contrib() -> Any:
    """OpenCV with its contrib; ValueError in one line without."""
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            "selective search is OpenCV's, which is not installed: "
            "pip install opencv-contrib-python-headless"
        ) from error
    if not hasattr(cv2, "ximgproc"):
        raise ValueError(
            f"selective search is in the contrib of OpenCV, which {cv2.__version__} here lacks: "
            "pip uninstall opencv-python opencv-python-headless, then pip install "
            "opencv-contrib-python-headless"
        )
    return cv2


def suppress_duplicates(boxes: np.ndarray, iou: float) -> np.ndarray:
    """Boxes [N, 4] -> indices of those that no box before them overlaps by more than `iou`.

    >>> suppress_duplicates(np.array([[0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 2, 2]]), 0.7).tolist()
    [0, 2]
    """
    kept: list[int] = []
    left = np.arange(len(boxes)) if iou < 1 else np.arange(0)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    while len(left):
        first, left = left[0], left[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[left, :2])
        high = np.minimum(boxes[first, 2:], boxes[left, 2:])
        shared = np.prod(np.maximum(high - low, 0), 1)
        left = left[shared <= iou * (areas[first] + areas[left] - shared)]
    return np.array(kept, int) if iou < 1 else np.arange(len(boxes))


def cached_search(
    image: np.ndarray, search: SearchParameters = FAST_SEARCH, *, folder: pathlib.Path | None = None
) -> np.ndarray:
    """`selective_search`, of each picture and each way to search once: boxes [N, 4] float32.

    They lie as npz in `folder`, `cache_folder()`/selective_search unless given, under a name made
    of the pixels and of `search`. A file that is damaged is made anew. Raises ValueError where the
    folder cannot be written.
    """
    cv2 = import_contrib()
    told = [VERSION, cv2.__version__, list(image.shape), search._asdict()]
    key = hashlib.sha256(json.dumps(told).encode() + np.ascontiguousarray(image).tobytes())
    file = (folder or cache_folder() / "selective_search") / f"{key.hexdigest()[:40]}.npz"
    try:
        return cached_arrays(file, lambda: {"boxes": selective_search(image, search)})["boxes"]
    except OSError as error:
        raise ValueError(
            f"proposals cannot be kept in {file.parent} ({error}): name another folder in the "
            "environment variable FLAX_ZOO_CACHE"
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class SourceWithProposals(SourceWrapper):
    """A detection `source` whose examples have "proposals" [P, 4] float32, "proposal_valid" [P] too.

    `proposals` are those of each picture, [n, 4]; P = `count`, n or more.
    """

    proposals: Sequence[np.ndarray]
    count: int

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        boxes = self.proposals[i]
        padding = ((0, self.count - len(boxes)), (0, 0))
        return self.source[i] | {
            "proposals": np.pad(boxes, padding),
            "proposal_valid": np.arange(self.count) < len(boxes),
        }


def attach_proposals(source: Source, search: SearchParameters = FAST_SEARCH) -> SourceWithProposals:
    """A detection source -> the same with proposals, searched on all cores, or read from the cache.

    Each picture is searched as it lies on its canvas, without what is beyond it.
    """
    import_contrib()  # before the first picture is decoded
    began = time.monotonic()

    def of_one(i: int) -> np.ndarray:
        example = source[i]
        height, width = example["size"].tolist()
        return cached_search(example["image"][:height, :width], search)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(of_one, range(len(source))))
    each = np.mean([len(boxes) for boxes in found])
    seconds = time.monotonic() - began
    logger.info("%s: %.0f proposals a picture (%.0f s)", source.name, each, seconds)
    return SourceWithProposals(source, found, search.count)
