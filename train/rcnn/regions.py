"""Proposals of a whole set, what they overlap, and the warped images that the CNN sees."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train.data.detection.selective_search import SourceWithProposals
from train.data.permutation import uniform_draws
from train.data.source import SourceWrapper
from train.metrics.detection import pairwise_iou
from train.rcnn.warp import warp_region

BACKGROUND = "background"  # class 0 of the CNN; the set's classes count from 1 there
POSITIVE = 0.5  # IoU from which on a region trains as the object's class
POSITIVE_FRACTION = 4  # a quarter of a batch is positive: 32 of 128
SAMPLE_STREAM = 14  # ends the key of a draw, so that it is never that of an epoch's order


class Regions(NamedTuple):
    """R regions of a set: proposals and the objects' own boxes, picture after picture.

    image [R] int32 is the picture's place in the source, box [R, 4] float32. iou [R, K] float32 is
    the highest with an object of each class, nearest [R, K, 4] that object's box, and truth [R]
    int32 the class of an object's own box, else -1. crowd [R] tells what lies on objects that
    neither train nor count.
    """

    image: np.ndarray
    box: np.ndarray
    iou: np.ndarray
    nearest: np.ndarray
    truth: np.ndarray
    crowd: np.ndarray


def collect_regions(source: SourceWithProposals, *, objects: bool = True) -> Regions:
    """A source with proposals -> its Regions; `objects`: with the objects' own boxes."""
    parts = [
        regions_of_image(i, source[i], classes=len(source.classes), objects=objects)
        for i in range(len(source))
    ]
    return Regions(*map(np.concatenate, zip(*parts, strict=True)))


def regions_of_image(
    i: int, example: dict[str, np.ndarray], *, classes: int, objects: bool
) -> Regions:
    there = example["box_valid"] & ~example["crowd"]
    boxes, labels = example["boxes"][there], example["labels"][there]
    proposals = example["proposals"][example["proposal_valid"]]
    box = np.concatenate([boxes, proposals] if objects else [proposals])
    truth = np.full(len(box), -1, np.int32)
    truth[: len(labels) if objects else 0] = labels if objects else ()
    iou, nearest = np.zeros((len(box), classes), np.float32), np.zeros((len(box), classes, 4))
    for label in np.unique(labels):
        same = boxes[labels == label]
        found = pairwise_iou(box, same)
        iou[:, label], nearest[:, label] = found.max(1), same[found.argmax(1)]
    hidden = example["boxes"][example["box_valid"] & example["crowd"]]
    crowd = (pairwise_iou(box, hidden) >= POSITIVE).any(1) & (iou.max(1) < POSITIVE)
    image = np.full(len(box), i, np.int32)
    return Regions(image, box, iou, nearest.astype(np.float32), truth, crowd)


def recall(source: SourceWithProposals, *, iou: float = 0.5) -> float:
    """A source with proposals -> the share of its objects that a proposal overlaps by `iou`."""
    found = []
    for i in range(len(source)):
        example = source[i]
        boxes = example["boxes"][example["box_valid"] & ~example["crowd"]]
        proposals = example["proposals"][example["proposal_valid"]]
        found.append((pairwise_iou(boxes, proposals) >= iou).any(1))
    return float(np.concatenate(found).mean())


@dataclasses.dataclass(frozen=True, eq=False)
class WarpedRegions(SourceWrapper):
    """The regions of a source as images: {"image" [size, size, C] uint8, "label"}, in their order.

    The label is 0 where they overlap no object by 0.5, else 1 + the class of the one they overlap most.
    """

    regions: Regions
    size: int
    context: int
    fill: Sequence[int]

    @property
    def classes(self) -> tuple[str, ...]:
        return (BACKGROUND, *self.source.classes)

    @property
    def labels(self) -> np.ndarray:
        best = self.regions.iou.argmax(1).astype(np.int32) + 1
        return np.where(self.regions.iou.max(1) >= POSITIVE, best, 0).astype(np.int32)

    def __len__(self) -> int:
        return len(self.regions.box)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        iou = self.regions.iou[i]
        label = int(iou.argmax()) + 1 if iou.max() >= POSITIVE else 0
        example = self.source[int(self.regions.image[i])]
        height, width = example["size"].tolist()
        image = warp_region(
            example["image"][:height, :width],
            self.regions.box[i],
            size=self.size,
            context=self.context,
            fill=self.fill,
        )
        return {"image": image, "label": np.array(label, np.int32)}


@dataclasses.dataclass(frozen=True, eq=False)
class SampledRegions(SourceWrapper):
    """`length` regions drawn from a Warped, of every `batch` the first quarter with an object.

    Number n of a run is a pure function of (seed, n). source[i] is number i of seed 0, for
    evaluation. Raises ValueError where there are no regions with an object, or none without.

    Source: Girshick et al. 2014, R-CNN, section 2.3: 32 positives, 96 of the background.
    """

    source: WarpedRegions
    length: int
    batch: int
    pools: tuple[np.ndarray, np.ndarray] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        labels, crowd = self.source.labels, self.source.regions.crowd
        pools = np.flatnonzero((labels > 0) & ~crowd), np.flatnonzero((labels == 0) & ~crowd)
        for pool, what in zip(pools, ("no proposal overlaps", "every proposal overlaps")):
            if not len(pool):
                raise ValueError(f"{self.name}: {what} an object by {POSITIVE}: nothing to train")
        object.__setattr__(self, "pools", pools)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        return self.draw(i, number=i, seed=0)

    def draw(self, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
        pool = self.pools[number % self.batch >= max(1, self.batch // POSITIVE_FRACTION)]
        (place,) = uniform_draws(1, seed, number, SAMPLE_STREAM)
        return self.source[int(pool[int(place * len(pool))])]
