"""Sources of images with their masks: decoded when read, kept in memory, weighted by pixel."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from train.data.image_files import Size
from train.data.segmentation.mask_files import ImageMask, fit_pair
from train.data.source import Source, SourceWrapper

CACHE_BYTES = (
    10**9
)  # bytes of decoded examples that stay in memory, over the parts of a set together


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedImages:
    """Images with masks: `read(records[i])` -> Pair, brought to `size` = (H, W, C) by `fit_pair`.

    Gives "image" [H, W, C] uint8, "mask" [H, W] uint8 with 255 = ignored and, where they are read,
    "instances" [H, W] int32. `palette` [K, 3] uint8 are the colors of the classes.
    """

    records: Any
    read: Callable[[Any], ImageMask]
    name: str
    classes: tuple[str, ...]
    palette: np.ndarray
    size: Size

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        return fit_pair(self.read(self.records[i]), self.size)


@dataclasses.dataclass(frozen=True, eq=False)
class Cached(SourceWrapper):
    """The examples of `source`; the first `limit` of them to be read stay in memory.

    Which they are depends on the order of reading, what is read does not. Pickles without them.
    """

    limit: int
    cache: dict[int, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple:
        return type(self), (self.source, self.limit)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        found = self.cache.get(i)
        if found is None:
            found = self.source[i]
            if len(self.cache) < self.limit:
                for entry in found.values():
                    entry.setflags(write=False)  # it is handed out again
                self.cache[i] = found
        return dict(found)


def cache_in_memory(
    sources: Mapping[str, Source], *, limit: int = CACHE_BYTES
) -> dict[str, Cached]:
    """{part: source} -> the same, what is read kept in memory up to `limit` bytes together.

    The first part has the first claim. Beyond the limit examples are decoded at each reading.

    >>> from train.data.source import Arrays
    >>> two = Arrays(np.zeros([2, 4, 4, 1], np.uint8), np.int32([1, 0]), "two", ("no", "yes"))
    >>> {part: source.limit for part, source in cache_in_memory({"train": two, "val": two}, limit=60).items()}
    {'train': 2, 'val': 1}
    """
    left, kept = limit, {}
    for part, source in sources.items():
        each = sum(entry.nbytes for entry in source[0].values())
        kept[part] = Cached(source, min(len(source), left // each))
        left -= kept[part].limit * each
    return kept


@dataclasses.dataclass(frozen=True, eq=False)
class WithPixelWeights(SourceWrapper):
    """The examples of `source` and what `function` makes of each, "weight" [H, W] float32."""

    function: Callable[[dict[str, np.ndarray]], np.ndarray]

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        example = self.source[i]
        weight = np.asarray(self.function(example), np.float32)
        if weight.shape != example["mask"].shape:
            raise ValueError(
                f"{self.name}: weights of example {i} have the shape {weight.shape}, "
                f"its mask {example['mask'].shape}"
            )
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise ValueError(f"{self.name}: a weight of example {i} is negative or not finite")
        return {**example, "weight": weight}


def with_pixel_weights(
    source: Source, function: Callable[[dict[str, np.ndarray]], np.ndarray]
) -> Cached:
    """The source with "weight" [H, W] float32, function(example) -> the loss's weight per pixel.

    Computed when an example is first read and kept with it, up to `CACHE_BYTES` bytes. Raises ValueError
    at a weight map of another shape than the mask, negative or not finite.

    >>> from train.data.synthetic.digit_scenes import open_digit_scenes
    >>> scenes = open_digit_scenes(size=(64, 64, 1), seed=0)["val"]
    >>> weighted = with_pixel_weights(scenes, lambda example: 1 + 9.0 * (example["mask"] > 0))
    >>> sorted(set(weighted[0]["weight"].ravel().tolist()))
    [1.0, 10.0]
    """
    return cache_in_memory({"": WithPixelWeights(source, function)})[""]
