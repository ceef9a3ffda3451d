"""Photographs as ImageNet's nets are trained and evaluated on them."""

import dataclasses
from collections.abc import Mapping

from train.data.classification.open import open_source
from train.data.image_files import Crop
from train.data.source import Source
from zoo.preprocess import Preprocessing, uncropped_size


def open_cropped(
    spec: str,
    preprocessing: Preprocessing,
    *,
    size: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = (0.08, 1.0),
    seed: int = 0,
) -> Mapping[str, Source]:
    """A source of open_source -> {"train", "val", "test"}, for a model of that preprocessing.

    Photographs of many sizes train as random parts, of `scale` of the area and 3:4 to 4:3 in shape
    (None: as their middle), resized to `size`, the preprocessing's unless given. They are evaluated
    as `preprocess` wants them: it has only to cut the center out. Sets of one shape keep it; there
    are no such parts of them, but augment.resized_crop makes them.
    """
    shape = (*(size or preprocessing.size), len(preprocessing.mean))
    sources = open_source(spec, size=shape, seed=seed, crop=Crop(scale=scale or (1.0, 1.0)))
    if getattr(sources["train"], "crop", None) is None:  # a set of one shape
        return sources
    whole = {"size": uncropped_size(preprocessing)}
    changes = {"train": {} if scale else {"crop": None}}
    return {
        name: dataclasses.replace(source, **changes.get(name, whole))  # pyright: ignore[reportArgumentType]
        for name, source in sources.items()
    }


def evaluation_split(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Sources by part -> {"val": ...}, else {"test": ...}: what a training is measured on.

    Not both: the labels of a published test part, ImageNet's, are often hidden. Raises ValueError
    where there is neither.

    >>> evaluation_split({"train": "many", "test": "few"})
    {'test': 'few'}
    """
    for part in ("val", "test"):
        if part in sources:
            return {part: sources[part]}
    raise ValueError(
        f"{sources['train'].name} has neither a val nor a test part to measure the training on"
    )
