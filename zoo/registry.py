"""The table of model families, and functions that look up names in it."""

import dataclasses
import fnmatch
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from zoo import pretrained
from zoo.lookup import lookup
from zoo.models import (
    alexnet,
    autoencoder,
    c3d,
    cnn3d,
    conv_autoencoder,
    densenet,
    fast_rcnn,
    faster_rcnn,
    fcn,
    lenet,
    mobilenet_v1,
    mobilenet_v2,
    perceptron,
    preact_resnet,
    resnet,
    resnet3d,
    slowfast,
    two_stream,
    unet,
    vgg,
    vit,
    yolo,
)
from zoo.preprocess import Preprocessing, with_channels
from zoo.profile import count_batchnorms, trace_features, trace_modules

FAMILIES = {
    "alexnet": alexnet,
    "autoencoder": autoencoder,
    "c3d": c3d,
    "cnn3d": cnn3d,
    "conv_autoencoder": conv_autoencoder,
    "densenet": densenet,
    "fast_rcnn": fast_rcnn,
    "faster_rcnn": faster_rcnn,
    "fcn": fcn,
    "lenet": lenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "perceptron": perceptron,
    "preact_resnet": preact_resnet,
    "resnet": resnet,
    "resnet3d": resnet3d,
    "slowfast": slowfast,
    "two_stream": two_stream,
    "unet": unet,
    "vgg": vgg,
    "vit": vit,
    "yolo": yolo,
}

TASKS = ("classification", "segmentation", "detection", "video", "reconstruction")


MODEL_FIELDS = ("backbone", "spatial", "temporal")  # fields that contain models


class ModelCard(NamedTuple):
    """The facts about a variant; counts and shapes come from tracing the model itself.

    Attributes:
        name: name of the variant.
        task: learning problem.
        parameters: number of parameters.
        macs: multiply-adds of convolutions and dense layers for one input.
        input: (height, width, channels) of an image, with the frames first for clips.
        features: (stride, channels) of each stage.
        frame_strides: stride of each stage along time, for clips.
        pathways: multiply-adds of each pathway, for models with pathways.
        preprocessing: the default preprocessing.
        paper: the paper.
        reported: published accuracy.
        weights: sources of published weights, as `load_model` takes them.
        batchnorms: numbers of BatchNorms that `fold_batchnorm` folds and that it leaves as affine.
    """

    name: str
    task: str
    parameters: int
    macs: int
    input: tuple[int, ...]
    features: dict[str, tuple[int, int]]
    frame_strides: dict[str, int]
    pathways: dict[str, int]
    preprocessing: Preprocessing
    paper: str
    reported: str | None
    weights: tuple[str, ...]
    batchnorms: dict[str, int]


def variant_card(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the family's CARD with the variant's own entries, and the variant's fields."""
    rows = {row: family for family in FAMILIES.values() for row in family.VARIANTS}
    family = lookup(rows, name, kind="model")
    fields = dict(family.VARIANTS[name])
    return {**family.CARD, **fields.pop("card", {})}, fields


def create_model(name: str, **fields: Any) -> nn.Module:
    """Creates the module of a variant.

    The number of input channels is that of the image at initialization, so `in_channels` is not a
    field.

    Args:
        name: name of the variant.
        **fields: fields that replace the variant's. `num_classes=0` removes the head. `backbone`,
            `spatial` and `temporal` may be variant names; with a backbone, defaults come from
            `CARD["backbone_defaults"]`.

    Returns:
        A flax.linen module.

    Raises:
        ValueError: if a name or field is unknown; the message suggests the nearest ones.

    >>> create_model("lenet5_modern", num_classes=7).num_classes
    7
    """
    card, row_fields = variant_card(name)
    module = card["module"]
    defaults = card.get("backbone_defaults", {}) if fields.get("backbone") is not None else {}
    fields = {**row_fields, **defaults, **fields}
    valid_fields = {field.name: field for field in dataclasses.fields(module)}
    valid_fields = {key: valid_fields[key] for key in valid_fields if key not in ("parent", "name")}
    if "in_channels" in fields and "in_channels" not in valid_fields:
        raise ValueError(
            f"{name} has no field in_channels: a model takes the channels of the image that it is "
            "initialized with; pass in_channels to model_card or load_model"
        )
    for field in fields:
        lookup(valid_fields, field, kind=f"field of {name}")
    classes = fields.get("num_classes", 0)
    if not isinstance(classes, int) or classes < 0:
        raise ValueError(f"expected num_classes to be an int of at least 0, got {classes!r}")
    for field in MODEL_FIELDS:
        if isinstance(fields.get(field), str):
            fields[field] = create_model(fields[field], num_classes=0)
    return module(**fields)


def nearest_variant(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Returns the variant that is nearest to a module, and the fields that differ.

    Args:
        module: a module of a family.

    Returns:
        Name of the variant and the differing fields.

    Raises:
        ValueError: if the module belongs to no family.

    >>> nearest_variant(create_model("lenet5_modern", num_classes=0))
    ('lenet5_modern', {'num_classes': 0})
    """
    names = [name for name in list_models() if variant_card(name)[0]["module"] is type(module)]
    if not names:
        raise ValueError(f"expected a module of a family, got a {type(module).__name__}")
    fields = [field.name for field in dataclasses.fields(module)]
    fields = [field for field in fields if field not in ("parent", "name")]

    def difference(name: str) -> dict[str, Any]:
        default = create_model(name)
        values = {field: getattr(module, field) for field in fields}
        return {field: value for field, value in values.items() if getattr(default, field) != value}

    differences = {name: difference(name) for name in names}
    nearest = min(names, key=lambda name: len(differences[name]))
    return nearest, differences[nearest]


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Lists the names of variants.

    Args:
        pattern: shell pattern, for example "resnet*".
        task: only variants of this task.

    Returns:
        Sorted names.

    Raises:
        ValueError: if the task is unknown.

    >>> list_models("lenet*")
    ['lenet5', 'lenet5_modern']
    """
    names = sorted(row for family in FAMILIES.values() for row in family.VARIANTS)
    if task is not None:
        lookup(dict.fromkeys(TASKS), task, kind="task")
        names = [name for name in names if variant_card(name)[0]["task"] == task]
    return fnmatch.filter(names, pattern)


def input_spec(
    name: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    backbone: str | nn.Module | None = None,
) -> tuple[tuple[int, ...], Preprocessing]:
    """Returns input shape and preprocessing of a variant without tracing it.

    Args:
        name: name of the variant.
        image_size: side, or (height, width), instead of the variant's.
        in_channels: number of channels instead of the variant's.
        backbone: a variant name or module. If the family accepts a backbone, its input size and
            preprocessing are used with crop=1.0.

    Returns:
        Shape of one image or clip, and the preprocessing.

    >>> shape, preprocessing = input_spec("resnet18", image_size=64, in_channels=1)
    >>> shape, preprocessing.size, [round(value, 3) for value in preprocessing.mean]
    ((64, 64, 1), (64, 64), [0.449])
    """
    card, _ = variant_card(name)
    if backbone is None or "backbone_defaults" not in card:
        pass  # the family defines its input, whatever the backbone
    elif isinstance(backbone, str):
        backbone_card, _ = variant_card(backbone)
        card = {
            **card,
            "input": backbone_card["input"],
            "preprocessing": {**backbone_card["preprocessing"], "crop": 1.0},
        }
    else:
        return input_spec(
            name,
            image_size=image_size,
            in_channels=in_channels,
            backbone=nearest_variant(backbone)[0],
        )
    *frame_axis, height, width, channels = card["input"]
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    frames = frame_axis[0] if frame_axis else 0
    preprocessing = Preprocessing(
        **{"size": (height, width), "frames": frames, **card["preprocessing"]}
    )
    if in_channels is not None:
        if not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(
                f"expected in_channels to be an int of at least 1, got {in_channels!r}"
            )
        channels = in_channels
        preprocessing = with_channels(preprocessing, channels)
    return (*frame_axis, height, width, channels), preprocessing


def model_card(name: str, *, in_channels: int | None = None, **fields: Any) -> ModelCard:
    """Returns the card of a variant by tracing it; nothing is computed.

    Args:
        name: name of the variant.
        in_channels: number of input channels.
        **fields: fields that replace the variant's; `image_size` and `backbone` change the input.

    Returns:
        The card.

    Raises:
        ValueError: if a name or field is unknown.

    >>> card = model_card("lenet5_modern")
    >>> card.parameters, card.features["stage2"]
    (61706, (4, 16))
    """
    card, _ = variant_card(name)
    model = create_model(name, **fields)
    image, preprocessing = input_spec(
        name,
        image_size=fields.get("image_size"),
        in_channels=in_channels,
        backbone=fields.get("backbone"),
    )
    outputs, variables, macs = trace_modules(model, image)
    features, frame_strides = trace_features(model, image, outputs)
    sizes = [weight.size for weight in jax.tree.leaves(variables.get("params", {}))]
    return ModelCard(
        name=name,
        task=card["task"],
        parameters=sum(sizes),
        macs=sum(macs.values()),
        input=image,
        features=features,
        frame_strides=frame_strides,
        pathways={
            pathway: sum(n for path, n in macs.items() if path[:1] and path[0].startswith(pathway))
            for pathway in card.get("pathways", ())
        },
        preprocessing=preprocessing,
        paper=card["paper"],
        reported=card.get("reported"),
        weights=pretrained.published_sources(name),
        batchnorms=count_batchnorms(variables),
    )
