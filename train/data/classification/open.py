"""The data that a recipe's `source` names, and a held-out part of any source."""

import difflib
import os
from collections.abc import Mapping

import numpy as np

from train.data.classification.digits import open_digits
from train.data.classification.folder import open_folder
from train.data.classification.idx import open_idx
from train.data.image_files import Crop, Size
from train.data.permutation import permutation, stratified_split
from train.data.source import Source, Subset, labels_of
from train.data.tfds import open_tfds

SOURCE_FORMS = {
    "digits": "digits",
    "idx": "idx:PATH",
    "folder": "folder:PATH",
    "tfds": "tfds:NAME or tfds:NAME:CONFIG",
}


def open_source(
    spec: str, *, size: Size | None = None, seed: int = 0, crop: Crop | None = None
) -> Mapping[str, Source]:
    """ "digits", "idx:PATH", "folder:PATH" or "tfds:NAME[:CONFIG]" -> {"train", "val", "test"}.

    Not every source has all three. `size` = (H, W, C) is what photographs of many sizes are
    brought to; sets of one shape keep theirs. `seed` draws the validation part of a folder that
    has none; the split of the digits is fixed.

    `crop`: from photographs of many sizes in "train", `train_batches` gets a fresh random part of
    each, resized to `size`, in place of the center (which source[i] and `eval_batches` still give).
    It saves decoding what is thrown away; for sets of one shape there is augment.resized_crop.

    Raises FileNotFoundError or ValueError in one line.

    >>> open_source("digit")
    Traceback (most recent call last):
    ValueError: unknown source digit: did you mean digits?
    """
    scheme, _, where = spec.partition(":")
    if scheme not in SOURCE_FORMS:
        raise ValueError(f"unknown source {spec}: {suggest_source(spec)}")
    if bool(where) != (scheme != "digits"):
        raise ValueError(f"source {spec}: expected the form {SOURCE_FORMS[scheme]}")
    match scheme:
        case "digits":
            return open_digits()
        case "idx":
            return open_idx(os.path.expanduser(where))
        case "folder":
            return open_folder(os.path.expanduser(where), size=size, seed=seed, crop=crop)
        case _:
            return open_tfds(where.replace(":", "/"), size=size, crop=crop)


def suggest_source(spec: str) -> str:
    """What was likely meant by a source of no known form."""
    if os.path.isdir(os.path.expanduser(spec)):
        return f"for a folder of class folders write folder:{spec}"
    near = difflib.get_close_matches(spec.partition(":")[0], SOURCE_FORMS, n=1)
    if near:
        return f"did you mean {SOURCE_FORMS[near[0]]}?"
    return f"choose one of {', '.join(SOURCE_FORMS.values())}"


def split_source(source: Source, fraction: float, *, seed: int) -> tuple[Source, Source]:
    """(the rest, the `fraction` held out), drawn by `seed`, stratified where there are labels.

    Raises ValueError where either part would be empty.

    >>> import numpy as np
    >>> from train.data.source import Arrays
    >>> ten = Arrays(np.zeros([10, 2, 2, 1]), np.arange(10) // 5, "ten", ("a", "b"))
    >>> rest, held = split_source(ten, 0.2, seed=0)
    >>> len(rest), [int(held[i]["label"]) for i in range(len(held))]
    (8, [0, 1])
    """
    held = round(fraction * len(source))
    if not 0 < held < len(source):
        raise ValueError(
            f"{source.name}: a fraction of {fraction} holds out {held} of {len(source)} examples; "
            "both parts need at least one"
        )
    if "label" in source[0]:
        rest, out = stratified_split(labels_of(source), held, seed=seed)
    else:
        drawn = permutation(len(source), seed)
        rest, out = np.sort(drawn[held:]), np.sort(drawn[:held])
    # A source that stands in for broken examples must find the stand-ins in the same part.
    select = getattr(source, "select", lambda indices: Subset(source, indices))
    return select(rest), select(out)
