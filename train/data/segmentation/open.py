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
from train.data.segmentation.coco import find_coco_masks
from train.data.segmentation.mask_files import (
    IGNORE_LABEL,
    MAX_CLASSES,
    FilePairReader,
    Value,
    color_code,
    fill_table,
    infer_encoding,
    mask_values,
    open_mask,
)
from train.data.segmentation.mask_folder import check_headers, common_size, find_parts
from train.data.segmentation.masked_images import Cached, MaskedImages, cache_in_memory
from train.data.segmentation.tfds import KNOWN_SETS, find_tfds_masks
from train.data.segmentation.voc import VOC_CLASSES, find_voc_masks
from train.data.splits import split_by_blocks
from train.data.synthetic.digit_scenes import open_digit_scenes
from zoo.media.colormap import voc_colormap

MASK_FORMS = {
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
    splits: float | str | None = None,
    instances: bool = False,
    seed: int = 0,
) -> dict[str, Cached]:
    """ "digit_scenes", "folder:PATH", "voc:PATH", "coco:PATH", "tfds:NAME" -> {"train", "val", "test"}.

    Each example has "image" [H, W, C] uint8 and "mask" [H, W] uint8, 255 = ignored; `instances`
    adds "instances" [H, W] int32 from VOC and COCO, and digit_scenes have them and boxes always.
    `size` = (H, W, C): see `fitted`, which brings an image and its mask to it without distortion;
    not needed where all images are of one. Sources carry `palette` [K, 3]. What has been decoded
    stays in memory up to `pairs.KEPT` bytes.

    Of folders and TFDS one says what the masks mean: names of the `classes` (else numbers), the
    pixel `values` of each, numbers or colors (else the value is the index), and what to `ignore`
    besides 255. Without names and values, every mask is read once to count the classes.

    `splits` cuts "train": a fraction, drawn by `seed`, becomes "val"; or blocks of positions for
    neighbors that are alike, "0-19 / 20-24" for train / val, a third for test. Without it, a fifth
    where there is neither val nor test. No source has parts that it does not have or is given.

    Raises FileNotFoundError or ValueError in one line that names the file; contents that turn out
    wrong raise at reading.

    >>> scenes = open_masks("digit_scenes")
    >>> len(scenes["train"]), scenes["val"][0]["mask"].shape, len(scenes["test"].classes)
    (1000, (128, 128), 11)
    """
    told = {"classes": classes, "values": values, "ignore": ignore}
    scheme, where = parse_mask_spec(spec, told)
    if instances and scheme in ("folder", "tfds"):
        raise ValueError(f"{spec} has no instances: leave them out")
    folder = pathlib.Path(os.path.expanduser(where))
    match scheme:
        case "digit_scenes":
            sources: dict[str, Any] = open_digit_scenes(size=size, seed=seed)
        case "folder":
            sources = open_folder_masks(folder, spec, size=size, **told)
        case "voc":
            sources = open_voc_masks(folder, spec, size=size, instances=instances)
        case "coco":
            sources = open_coco_masks(folder, spec, size=size, instances=instances)
        case _:
            sources = open_tfds_masks(where.replace(":", "/"), spec, size=size, **told)
    if "train" not in sources:
        raise ValueError(f"{spec} has {' and '.join(sources)} but nothing to train on")
    return cache_in_memory(split_by_blocks(sources, splits, seed=seed, spec=spec))


def parse_mask_spec(spec: str, told: dict[str, Any]) -> tuple[str, str]:
    """The scheme of a source and what follows; raises ValueError where it is no form of a source.

    >>> parse_mask_spec("vok:devkit", {})
    Traceback (most recent call last):
    ValueError: unknown source of masks vok:devkit: did you mean voc:PATH?
    """
    scheme, _, where = spec.partition(":")
    if scheme not in MASK_FORMS:
        near = difflib.get_close_matches(scheme, MASK_FORMS, n=1)
        forms = MASK_FORMS[near[0]] if near else ", ".join(MASK_FORMS.values())
        hint = f"did you mean {forms}?" if near else f"choose one of {forms}"
        raise ValueError(f"unknown source of masks {spec}: {hint}")
    if bool(where) != (scheme != "digit_scenes"):
        raise ValueError(f"source {spec}: expected the form {MASK_FORMS[scheme]}")
    if scheme not in ("folder", "tfds") and any(given is not None for given in told.values()):
        named = next(name for name, given in told.items() if given is not None)
        raise ValueError(f"{spec} knows its classes itself: leave {named} out")
    return scheme, where


def open_folder_masks(folder: pathlib.Path, spec: str, *, size: Size | None, **told: Any) -> dict:
    """Images beside masks in one of `mask_folder.LAYOUTS`."""
    found = find_parts(folder)
    sizes = check_headers([record for records in found.values() for record in records])
    masks = [record[1] for records in found.values() for record in records]
    names, wanted = resolve_classes(masks, spec, **told)
    size = check_size(size or common_size(sizes), source=spec)
    common = (
        FilePairReader(wanted),
        folder.resolve().name,
        names,
        mask_palette(names, told["values"]),
    )
    return {part: MaskedImages(records, *common, size) for part, records in found.items()}


def open_voc_masks(folder: pathlib.Path, spec: str, *, size: Size | None, instances: bool) -> dict:
    """Pascal VOC; its masks as palette, or in the palette's colors."""
    found = find_voc_masks(folder, instances=instances)
    sizes = check_headers([record for records in found.values() for record in records])
    size = check_size(size or common_size(sizes), source=spec)
    wanted = infer_encoding(len(VOC_CLASSES))
    colors = [tuple(color) for color in voc_colormap(256).tolist()]
    known = [*range(len(VOC_CLASSES)), IGNORE_LABEL]
    both = dataclasses.replace(wanted, colors=fill_table({color_code(colors[i]): i for i in known}))
    common = (
        FilePairReader(both),
        folder.resolve().name,
        VOC_CLASSES,
        voc_colormap(len(VOC_CLASSES)),
    )
    return {part: MaskedImages(records, *common, size) for part, records in found.items()}


def open_coco_masks(folder: pathlib.Path, spec: str, *, size: Size | None, instances: bool) -> dict:
    """COCO's instances as masks of classes."""
    found = find_coco_masks(folder, instances=instances)
    sizes = [(r.height, r.width, 3) for records in found.records.values() for r in records]
    size = check_size(size or common_size(sizes), source=spec)
    common = (folder.resolve().name, found.classes, voc_colormap(len(found.classes)), size)
    return {
        part: MaskedImages(records, found.readers[part], *common)
        for part, records in found.records.items()
    }


def open_tfds_masks(name: str, spec: str, *, size: Size | None, **told: Any) -> dict:
    """A set of TFDS with the features "image" and "segmentation_mask"."""
    full, found, own = find_tfds_masks(name)
    known = KNOWN_SETS.get(name.split("/")[0])
    if known and not any(given is not None for given in told.values()):
        told["classes"], told["values"] = known
    masks = (records[i][1] for records in found.values() for i in range(len(records)))
    names, wanted = resolve_classes(masks, spec, **told)
    size = check_size(size or own, source=spec)
    common = (FilePairReader(wanted), full, names, mask_palette(names, told["values"]))
    return {part: MaskedImages(records, *common, size) for part, records in found.items()}


def resolve_classes(
    masks: Any, spec: str, *, classes, values, ignore
) -> tuple[tuple[str, ...], Any]:
    """(names of the classes, what masks mean); looks into `masks` where neither is said."""
    if classes is None and values is None:
        highest, mask = max_mask_value(masks, ignore)
        if not 1 <= highest < MAX_CLASSES:
            raise ValueError(
                f"{spec}: the highest index in its masks is {highest}{mask}, expected 1 to "
                f"{MAX_CLASSES - 1} (255 is ignored): say values, (0, 255) for masks in black and white"
            )
        count = highest + 1
    else:
        count = len(classes or values or ())
    names = tuple(map(str, classes or range(count)))
    try:
        return names, infer_encoding(len(names), values=values, ignore=ignore)
    except ValueError as error:
        raise ValueError(f"{spec}: {error}") from error


def max_mask_value(masks: Any, ignore: Value | None) -> tuple[int, str]:
    """(the highest index that is not ignored, " in FILE"); (0, "") where there is none above 0."""

    def of_one(mask: str | bytes) -> tuple[int, str]:
        name = mask if isinstance(mask, str) else "one of the masks"
        found = np.unique(mask_values(open_mask(mask), encoding=None, name=name)[0]).tolist()
        return max((v for v in found if v not in (IGNORE_LABEL, ignore)), default=0), f" in {name}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        highest = max(pool.map(of_one, masks), key=lambda found: found[0])
    return highest if highest[0] else (0, "")


def mask_palette(names: tuple[str, ...], values: Sequence[Value] | None) -> np.ndarray:
    """The classes' own colors, where masks are of colors, else VOC's: [K, 3] uint8."""
    if values is not None and np.ndim(values[0]):
        return np.array(values, np.uint8)
    return voc_colormap(len(names))
