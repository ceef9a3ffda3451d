"""Photographs as ImageNet's nets are trained and evaluated on them."""

from train.data.arrays import Source
from train.data.sources import open_source
from zoo.preprocess import Preprocessing, uncropped


def open_cropped(
    spec: str,
    preprocessing: Preprocessing,
    *,
    size: tuple[int, int] | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    seed: int = 0,
) -> dict[str, Source]:
    """A source of open_source -> {"train", "val", "test"}, for a model of that preprocessing.

    Photographs of many sizes train as random parts, of `scale` of the area and 3/4 to 4/3 wide,
    resized to `size` (the preprocessing's unless given), and are evaluated whole, so that
    `preprocess` has only to cut the centre out. Sets of one shape keep it, and have no such parts.
    """
    shape = (*(size or preprocessing.size), len(preprocessing.mean))
    train = open_source(spec, size=shape, seed=seed)["train"]
    rest = open_source(spec, size=uncropped(preprocessing), seed=seed)
    return {**rest, "train": train}
