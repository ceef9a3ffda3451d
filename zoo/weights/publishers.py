"""Published weights: their addresses, tensor names and preprocessing."""

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
PILLOW_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}


PREPROCESSING_BY_TAG = {  # by prefix of the tag
    "IMAGENET1K": "ImageNet top-1",
    "COCO_WITH_VOC_LABELS": "COCO val2017, VOC's classes: mean IoU",
    "COCO_V": "COCO val2017: box AP",
    "KINETICS400": "Kinetics-400 top-1",
}


def published_row(name: str, tag: str) -> tuple[str, float, dict[str, Any]]:
    """Returns file, reported accuracy and preprocessing of torchvision's weights."""
    if name not in TORCHVISION:
        raise ValueError(f"torchvision publishes no weights of {name}")
    file, percent, *others = lookup(TORCHVISION[name], tag, kind=f"weights of {name}")
    preprocessing: dict[str, Any] = {**IMAGENET_NORM, **(others[0] if others else {})}
    side, short = preprocessing.pop("side"), preprocessing.pop("short")
    size = side if isinstance(side, tuple) else (side, side)
    return file, percent, {**preprocessing, "size": size, "crop": min(size) / short}


def locate_file(source: str, *, name: str | None = None) -> pathlib.Path:
    """Returns the local file of an address, downloading it if needed.

    Args:
        source: `https://...`, `hf://ORG/REPO[/FILE]` or `torchvision://TAG`.
        name: name of the variant, for a tag.

    Returns:
        Path of the file; see `zoo.weights.cache.fetch` for errors.
    """
    scheme, _, address = source.partition("://")
    if scheme != "torchvision":
        return fetch(source)
    if name is None:
        raise ValueError(f"expected a model name with the tag {source}")
    return fetch(ADDRESSES["torchvision"] + published_row(name, address)[0])


def timm_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the preprocessing in timm's config.json to the fields of `Preprocessing`."""
    fields = config["pretrained_cfg"]
    _, height, width = fields["input_size"]
    return dict(
        mean=tuple(map(float, fields["mean"])),
        std=tuple(map(float, fields["std"])),
        size=(int(height), int(width)),
        crop=float(fields["crop_pct"]),
        interpolation=str(fields["interpolation"]),
    )


def transformers_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Converts transformers' preprocessor_config.json to the fields of `Preprocessing`."""
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
    """Returns a card with the publisher's preprocessing, or an empty one.

    Args:
        source: address of the weights.
        name: name of the variant, for a tag of torchvision.

    Returns:
        `{"preprocessing": {...}}` or `{}`.

    >>> card = fetch_preprocessing("torchvision://IMAGENET1K_V2", name="resnet50")
    >>> card["preprocessing"]["crop"] == 224 / 232
    True
    """
    scheme, _, address = source.partition("://")
    if scheme == "torchvision" and name is not None:
        _, percent, preprocessing = published_row(name, address)
        measure = next(
            text for tag, text in PREPROCESSING_BY_TAG.items() if address.startswith(tag)
        )
        return {"preprocessing": preprocessing, "reported": f"{measure} {percent} %"}
    if scheme == "hf":
        repository = "/".join(address.split("/")[:2])
        for file, read in CONFIG_READERS.items():
            try:
                config = json.loads(fetch(f"hf://{repository}/{file}").read_bytes())
                return {"preprocessing": read(config)}
            except (FileNotFoundError, *CONFIG_ERRORS):
                continue
    return {}


def name_tables(name: str) -> list[Table]:
    """Returns the name tables of all publishers for a variant's family."""
    family = next(key for key, family in FAMILIES.items() if name in family.VARIANTS)
    return [table for source in SOURCES.values() for table in source.get(family, [])]


def rename_tensors(
    name: str, tensors: Mapping[str, np.ndarray], expected: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Renames a publisher's tensors to parameter paths.

    The publisher is the one whose table maps most tensors to expected paths. Tensors without an
    entry keep their names, and tensors that already have paths are returned unchanged.

    Args:
        name: name of the variant.
        tensors: tensors by the publisher's names.
        expected: variables of the model by path.

    Returns:
        Arrays by path.
    """
    tables = name_tables(name)
    if not tables or all(key.startswith(PATH_PREFIXES) for key in tensors):
        return dict(tensors)
    paths, unused = to_paths(tensors, choose_table(tensors, tables, expected=expected))
    return paths | {key: tensors[key] for key in unused}


def export_tensors(
    name: str, paths: Mapping[str, np.ndarray], *, source: str
) -> dict[str, np.ndarray]:
    """Renames arrays by path to a publisher's names and layouts.

    Args:
        name: name of the variant.
        paths: arrays by path.
        source: the publisher, for example "torchvision".

    Returns:
        Tensors by the publisher's names.

    Raises:
        ValueError: if the publisher has no such model or lacks a name.

    >>> export_tensors("lenet5", {}, source="timm")
    Traceback (most recent call last):
    ValueError: timm has no names for lenet5
    """
    lookup(SOURCES, source, kind="source")
    family = next(key for key, family in FAMILIES.items() if name in family.VARIANTS)
    tables = [to_names(paths, table) for table in SOURCES[source].get(family, [])]
    if not tables:
        raise ValueError(f"{source} has no names for {name}")
    tensors, unused = min(tables, key=lambda pair: len(pair[1]))
    if unused:
        raise ValueError(f"{source} has no names for {', '.join(unused)} of {name}")
    return tensors
