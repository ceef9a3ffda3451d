"""Weights that others publish: where they are, what their tensors are called, what they expect."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.lookup import lookup
from zoo.pretrained import ADDRESSES, IMAGENET_NORM, TORCHVISION
from zoo.registry import FAMILIES
from zoo.weights.cache import fetch
from zoo.weights.names import akamaster, huggingface, pytorchvideo, timm, torchvision
from zoo.weights.names.rename import Table, choose_table, to_names, to_paths

SOURCES: dict[str, dict[str, list[Table]]] = {
    "torchvision": torchvision.NAMES,
    "timm": timm.NAMES,
    "akamaster": akamaster.NAMES,
    "huggingface": huggingface.NAMES,
    "pytorchvideo": pytorchvideo.NAMES,
}
PATH_PREFIXES = ("params/", "batch_stats/")
PILLOW_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


PREPROCESSING_BY_TAG = {  # by what a tag begins with
    "IMAGENET1K": "ImageNet top-1",
    "COCO_WITH_VOC_LABELS": "COCO val2017, VOC's classes: mean IoU",
    "COCO_V": "COCO val2017: box AP",
    "KINETICS400": "Kinetics-400 top-1",
}


def published_row(name: str, tag: str) -> tuple[str, float, dict[str, Any]]:
    """A variant and torchvision's tag to (file, % as MEASURES say, preprocessing); ValueError if none."""
    if name not in TORCHVISION:
        raise ValueError(f"torchvision publishes no weights of {name}")
    file, percent, *other = lookup(TORCHVISION[name], tag, kind=f"weights of {name}")
    seen: dict[str, Any] = {**IMAGENET_NORM, **(other[0] if other else {})}
    side, short = seen.pop("side"), seen.pop("short")
    size = side if isinstance(side, tuple) else (side, side)
    return file, percent, {**seen, "size": size, "crop": min(size) / short}


def locate_file(source: str, *, name: str | None = None) -> pathlib.Path:
    """`https://…`, `hf://ORG/REPO[/FILE]` or `torchvision://TAG` to the file, downloaded if need be.

    A tag is one of `name`'s, a variant. See zoo.weights.cache.fetch for the errors.
    """
    scheme, _, rest = source.partition("://")
    if scheme != "torchvision":
        return fetch(source)
    if name is None:
        raise ValueError(f"{source} is a tag of a model's: say which model's")
    return fetch(ADDRESSES["torchvision"] + published_row(name, rest)[0])


def timm_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's config.json says of preprocessing, as zoo.preprocess.Preprocessing's fields."""
    seen = config["pretrained_cfg"]
    _, height, width = seen["input_size"]
    return dict(
        mean=tuple(map(float, seen["mean"])),
        std=tuple(map(float, seen["std"])),
        size=(int(height), int(width)),
        crop=float(seen["crop_pct"]),
        interpolation=str(seen["interpolation"]),
    )


def transformers_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers' preprocessor_config.json says of it."""
    size = config["size"]
    if isinstance(size, int):
        size = {"height": size, "width": size}
    side = size.get("shortest_edge")
    height, width = (side, side) if side else (size["height"], size["width"])
    crop = config.get("crop_pct") or 1.0
    if config.get("do_center_crop") and "crop_size" in config:
        inner = config["crop_size"]
        inner = inner if isinstance(inner, int) else inner["height"]
        crop, height, width = inner / height, inner, inner
    return dict(
        mean=tuple(map(float, config["image_mean"])),
        std=tuple(map(float, config["image_std"])),
        size=(int(height), int(width)),
        crop=float(crop),
        interpolation=PILLOW_RESAMPLING[config["resample"]],
    )


CONFIG_ERRORS = (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError)
CONFIG_READERS = {
    "config.json": timm_preprocessing,
    "preprocessor_config.json": transformers_preprocessing,
}


def fetch_preprocessing(source: str, *, name: str | None = None) -> dict[str, Any]:
    """What its publisher says of a source, as a card: {"preprocessing": {…}}, or {} for nothing.

    >>> fetch_preprocessing("torchvision://IMAGENET1K_V2", name="resnet50")["preprocessing"]["crop"] == 224 / 232
    True
    """
    scheme, _, rest = source.partition("://")
    if scheme == "torchvision" and name is not None:
        _, percent, preprocessing = published_row(name, rest)
        measure = next(text for tag, text in PREPROCESSING_BY_TAG.items() if rest.startswith(tag))
        return {"preprocessing": preprocessing, "reported": f"{measure} {percent} %"}
    if scheme == "hf":
        repository = "/".join(rest.split("/")[:2])
        for file, read in CONFIG_READERS.items():
            try:
                config = json.loads(fetch(f"hf://{repository}/{file}").read_bytes())
                return {"preprocessing": read(config)}
            except (FileNotFoundError, *CONFIG_ERRORS):
                continue
    return {}


def name_tables(name: str) -> list[Table]:
    """Every source's tables of a variant's family."""
    family = next(key for key, family in FAMILIES.items() if name in family.VARIANTS)
    return [table for source in SOURCES.values() for table in source.get(family, [])]


def rename_tensors(
    name: str, tensors: Mapping[str, np.ndarray], expected: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Tensors under their publisher's names to arrays by our paths; those without one keep theirs.

    The source is told by the names: it is the one that brings most of them to paths that are
    `expected`. Tensors by path come back as they are.
    """
    known = name_tables(name)
    if not known or all(key.startswith(PATH_PREFIXES) for key in tensors):
        return dict(tensors)
    paths, unused = to_paths(tensors, choose_table(tensors, known, expected=expected))
    return paths | {key: tensors[key] for key in unused}


def export_tensors(
    name: str, paths: Mapping[str, np.ndarray], *, source: str
) -> dict[str, np.ndarray]:
    """Arrays by path to tensors as `source`, "torchvision" say, names and lays them out.

    ValueError where it has no such model, or no name for some path.

    >>> export_tensors("lenet5", {}, source="timm")
    Traceback (most recent call last):
    ValueError: timm has no names for lenet5
    """
    lookup(SOURCES, source, kind="source")
    family = next(key for key, family in FAMILIES.items() if name in family.VARIANTS)
    known = [to_names(paths, table) for table in SOURCES[source].get(family, [])]
    if not known:
        raise ValueError(f"{source} has no names for {name}")
    tensors, unused = min(known, key=lambda pair: len(pair[1]))
    if unused:
        raise ValueError(f"{source} has no names for {', '.join(unused)} of {name}")
    return tensors
