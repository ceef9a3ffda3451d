"""The images with masks that a recipe's `source` names."""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from train.data.image_files import Size, check_size
from train.data.segmentation.coco import find_coco
from train.data.segmentation.mask_files import (
    IGNORED,
    MOST,
    FilePair,
    Value,
    code,
    filled,
    meaning,
    opened,
    values_of,
)
from train.data.segmentation.mask_folder import check_headers, find_parts, one_size
from train.data.segmentation.masked_images import Kept, Pairs, keep
from train.data.segmentation.tfds import KNOWN, find_tfds
from train.data.segmentation.voc import CLASSES, find_voc
from train.data.splits import cut
from train.data.synthetic.digit_scenes import open_digit_scenes
from zoo.media.colormap import voc_palette

FORMS = {
    "digit_scenes": "digit_scenes",
    "folder": "folder:PATH",
    "voc": "voc:PATH",
    "coco": "coco:PATH",
    "tfds": "tfds:NAME or tfds:NAME:CONFIG",
}


def open_masks(
    spec: str,
    *,
    size: Size | None = None,
    classes: Sequence[str] | None = None,
    values: Sequence[Value] | None = None,
    ignore: Value | None = None,
    parts: float | str | None = None,
    instances: bool = False,
    seed: int = 0,
) -> dict[str, Kept]:
    """ "digit_scenes", "folder:PATH", "voc:PATH", "coco:PATH", "tfds:NAME" -> {"train", "val", "test"}.

    Each example has "image" [H, W, C] uint8 and "mask" [H, W] uint8, 255 = ignored; `instances`
    adds "instances" [H, W] int32 from VOC and COCO, and digit_scenes have them and boxes always.
    `size` = (H, W, C): see `fitted`, which brings an image and its mask to it without distortion;
    not needed where all images are of one. Sources carry `palette` [K, 3]. What has been decoded
    stays in memory up to `pairs.KEPT` bytes.

    Of folders and TFDS one says what the masks mean: names of the `classes` (else numbers), the
    pixel `values` of each, numbers or colours (else the value is the index), and what to `ignore`
    besides 255. Without names and values, every mask is read once to count the classes.

    `parts` cuts "train": a fraction, drawn by `seed`, becomes "val"; or blocks of positions for
    neighbours that are alike, "0-19 / 20-24" for train / val, a third for test. Without it, a fifth
    where there is neither val nor test. No source has parts that it does not have or is given.

    Raises FileNotFoundError or ValueError in one line that names the file; contents that turn out
    wrong raise at reading.

    >>> scenes = open_masks("digit_scenes")
    >>> len(scenes["train"]), scenes["val"][0]["mask"].shape, len(scenes["test"].classes)
    (1000, (128, 128), 11)
    """
    told = {"classes": classes, "values": values, "ignore": ignore}
    scheme, where = form_of(spec, told)
    if instances and scheme in ("folder", "tfds"):
        raise ValueError(f"{spec} has no instances: leave them out")
    folder = pathlib.Path(os.path.expanduser(where))
    match scheme:
        case "digit_scenes":
            sources: dict[str, Any] = open_digit_scenes(size=size, seed=seed)
        case "folder":
            sources = folder_pairs(folder, spec, size=size, **told)
        case "voc":
            sources = voc_pairs(folder, spec, size=size, instances=instances)
        case "coco":
            sources = coco_pairs(folder, spec, size=size, instances=instances)
        case _:
            sources = tfds_pairs(where.replace(":", "/"), spec, size=size, **told)
    if "train" not in sources:
        raise ValueError(f"{spec} has {' and '.join(sources)} but nothing to train on")
    return keep(cut(sources, parts, seed=seed, spec=spec))


def form_of(spec: str, told: dict[str, Any]) -> tuple[str, str]:
    """The scheme of a source and what follows; raises ValueError where it is no form of a source.

    >>> form_of("vok:devkit", {})
    Traceback (most recent call last):
    ValueError: unknown source of masks vok:devkit: did you mean voc:PATH?
    """
    scheme, _, where = spec.partition(":")
    if scheme not in FORMS:
        near = difflib.get_close_matches(scheme, FORMS, n=1)
        forms = FORMS[near[0]] if near else ", ".join(FORMS.values())
        hint = f"did you mean {forms}?" if near else f"choose one of {forms}"
        raise ValueError(f"unknown source of masks {spec}: {hint}")
    if bool(where) != (scheme != "digit_scenes"):
        raise ValueError(f"source {spec}: expected the form {FORMS[scheme]}")
    if scheme not in ("folder", "tfds") and any(given is not None for given in told.values()):
        named = next(name for name, given in told.items() if given is not None)
        raise ValueError(f"{spec} knows its classes itself: leave {named} out")
    return scheme, where


def folder_pairs(folder: pathlib.Path, spec: str, *, size: Size | None, **told: Any) -> dict:
    """Images beside masks in one of `mask_folder.LAYOUTS`."""
    found = find_parts(folder)
    sizes = check_headers([record for records in found.values() for record in records])
    masks = [record[1] for records in found.values() for record in records]
    names, wanted = classes_of(masks, spec, **told)
    size = check_size(size or one_size(sizes), source=spec)
    common = (FilePair(wanted), folder.resolve().name, names, palette_of(names, told["values"]))
    return {part: Pairs(records, *common, size) for part, records in found.items()}


def voc_pairs(folder: pathlib.Path, spec: str, *, size: Size | None, instances: bool) -> dict:
    """Pascal VOC; its masks as palette, or in the palette's colours."""
    found = find_voc(folder, instances=instances)
    sizes = check_headers([record for records in found.values() for record in records])
    size = check_size(size or one_size(sizes), source=spec)
    wanted = meaning(len(CLASSES))
    colours = [tuple(colour) for colour in voc_palette(256).tolist()]
    known = [*range(len(CLASSES)), IGNORED]
    both = dataclasses.replace(wanted, colours=filled({code(colours[i]): i for i in known}))
    common = (FilePair(both), folder.resolve().name, CLASSES, voc_palette(len(CLASSES)))
    return {part: Pairs(records, *common, size) for part, records in found.items()}


def coco_pairs(folder: pathlib.Path, spec: str, *, size: Size | None, instances: bool) -> dict:
    """COCO's instances as masks of classes."""
    found = find_coco(folder, instances=instances)
    sizes = [(r.height, r.width, 3) for records in found.records.values() for r in records]
    size = check_size(size or one_size(sizes), source=spec)
    common = (folder.resolve().name, found.classes, voc_palette(len(found.classes)), size)
    return {
        part: Pairs(records, found.readers[part], *common)
        for part, records in found.records.items()
    }


def tfds_pairs(name: str, spec: str, *, size: Size | None, **told: Any) -> dict:
    """A set of TFDS with the features "image" and "segmentation_mask"."""
    full, found, own = find_tfds(name)
    known = KNOWN.get(name.split("/")[0])
    if known and not any(given is not None for given in told.values()):
        told["classes"], told["values"] = known
    masks = (records[i][1] for records in found.values() for i in range(len(records)))
    names, wanted = classes_of(masks, spec, **told)
    size = check_size(size or own, source=spec)
    common = (FilePair(wanted), full, names, palette_of(names, told["values"]))
    return {part: Pairs(records, *common, size) for part, records in found.items()}


def classes_of(masks: Any, spec: str, *, classes, values, ignore) -> tuple[tuple[str, ...], Any]:
    """(names of the classes, what masks mean); looks into `masks` where neither is said."""
    if classes is None and values is None:
        highest, mask = highest_of(masks, ignore)
        if not 1 <= highest < MOST:
            raise ValueError(
                f"{spec}: the highest index in its masks is {highest}{mask}, expected 1 to "
                f"{MOST - 1} (255 is ignored): say values, (0, 255) for masks in black and white"
            )
        count = highest + 1
    else:
        count = len(classes or values or ())
    names = tuple(map(str, classes or range(count)))
    try:
        return names, meaning(len(names), values=values, ignore=ignore)
    except ValueError as error:
        raise ValueError(f"{spec}: {error}") from error


def highest_of(masks: Any, ignore: Value | None) -> tuple[int, str]:
    """(the highest index that is not ignored, " in FILE"); (0, "") where there is none above 0."""

    def of_one(mask: str | bytes) -> tuple[int, str]:
        name = mask if isinstance(mask, str) else "one of the masks"
        found = np.unique(values_of(opened(mask), wanted=None, name=name)[0]).tolist()
        return max((v for v in found if v not in (IGNORED, ignore)), default=0), f" in {name}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        highest = max(pool.map(of_one, masks), key=lambda found: found[0])
    return highest if highest[0] else (0, "")


def palette_of(names: tuple[str, ...], values: Sequence[Value] | None) -> np.ndarray:
    """The classes' own colours, where masks are of colours, else VOC's: [K, 3] uint8."""
    if values is not None and np.ndim(values[0]):
        return np.array(values, np.uint8)
    return voc_palette(len(names))
