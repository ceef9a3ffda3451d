"""Training sets without a validation part, cut at random or in blocks."""

import logging
import re
from typing import Any

import numpy as np

from train.data.classification.open import split_source
from train.data.source import Source, Subset

VALIDATION_FRACTION = (
    0.2  # of the training images, for validation, where there is neither val nor test
)
SPLIT_NAMES = ("train", "val", "test")

logger = logging.getLogger("train")


def split_by_blocks(
    sources: dict[str, Any], splits: float | str | None, *, seed: int, spec: str
) -> dict[str, Source]:
    """The sources, "train" cut in the parts that are said, or by a fifth where it is alone."""
    if splits is None and len(sources) > 1:
        return sources
    whole = sources["train"]
    if isinstance(splits, str) and not re.fullmatch(r"\s*0?\.\d+\s*", splits):
        positions = parse_blocks(splits, len(whole), spec=spec)
        cuts: list[Source] = [Subset(whole, indices) for indices in positions]
    else:
        cuts = [
            *split_source(
                whole, VALIDATION_FRACTION if splits is None else float(splits), seed=seed
            )
        ]
        logger.info(
            "%s: split by seed %d into %d training and %d validation images",
            *(spec, seed, *map(len, cuts)),
        )
    named = dict(zip(SPLIT_NAMES, cuts, strict=False))
    if twice := (named.keys() & sources.keys()) - {"train"}:
        raise ValueError(f"{spec} has a part {twice.pop()} of its own: leave splits={splits} out")
    together = sources | named
    return {part: together[part] for part in SPLIT_NAMES if part in together}


def parse_blocks(text: str, length: int, *, spec: str) -> list[np.ndarray]:
    """ "0-19 / 20-24" -> positions of each part; ranges include their ends, commas join them.

    >>> [part.tolist() for part in parse_blocks("0-2, 6 / 3-5", 7, spec="folder:cells")]
    [[0, 1, 2, 6], [3, 4, 5]]
    """
    found = []
    for part in text.split("/"):
        ranges = [re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", piece) for piece in part.split(",")]
        if not all(ranges):
            raise ValueError(
                f"{spec}: parts is a fraction, or blocks such as '0-19 / 20-24' for train / val; "
                f"got {text!r}"
            )
        ends = [(int(r[1]), int(r[2] or r[1])) for r in ranges if r]
        if any(last < first or last >= length for first, last in ends):
            raise ValueError(f"{spec}: parts={text!r} is not within 0-{length - 1}, its images")
        found.append(np.concatenate([np.arange(first, last + 1) for first, last in ends]))
    together = np.concatenate(found)
    if not 2 <= len(found) <= len(SPLIT_NAMES) or len(np.unique(together)) != len(together):
        raise ValueError(
            f"{spec}: parts={text!r} is two or three blocks, train / val / test, that share nothing"
        )
    return found
