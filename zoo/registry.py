"""Names to models: the one table of families, and what a card says of each variant."""

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

TASKS = ("classification", "segmentation", "detection", "video", "captioning", "reconstruction")


MODEL_FIELDS = ("backbone", "spatial", "temporal")  # fields that hold models


class ModelCard(NamedTuple):
    """The facts of a variant.

    `parameters` counts the weights, `macs` the multiply-adds of convolutions and dense layers for
    one image of `input` (height, width, channels), or clip (frames before them); `features` is
    {stage: (stride, channels)}, `frame_strides` of clips {stage: frames of the clip for one of the
    map}; `pathways` of models that have some {pathway: its share of `macs`, in multiply-adds};
    `weights` are sources of published weights, as load_model takes them. `batchnorms` are {"folded":
    how many fold_batchnorm puts into the convolution before, "affine": how many it leaves as a
    scale and a bias}.

    Source: parameters, macs, strides, channels and batchnorms are measured on the model itself, weights are those of
    zoo.pretrained, the rest is its family's CARD.
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
    """Name to (its family's CARD with the row's own entries over it, the row's fields)."""
    rows = {row: family for family in FAMILIES.values() for row in family.VARIANTS}
    family = lookup(rows, name, kind="model")
    fields = dict(family.VARIANTS[name])
    return {**family.CARD, **fields.pop("card", {})}, fields


def create_model(name: str, **fields: Any) -> nn.Module:
    """Name of a variant, and fields over the variant's own, to a flax.linen Module.

    `num_classes=0` leaves the head out; a `backbone` that is a name is looked up here too (so are
    `spatial` and `temporal`), and over one the defaults are what the family's CARD calls "backbone_defaults". A model has the channels of the images that it is initialized with, so that `in_channels` is none of
    its fields. An unknown name or field raises ValueError with the nearest ones.

    Source: the VARIANTS at the foot of each family's file.

    >>> create_model("lenet5_modern", num_classes=7).num_classes
    7
    """
    card, own = variant_card(name)
    module = card["module"]
    defaults = card.get("backbone_defaults", {}) if fields.get("backbone") is not None else {}
    fields = {**own, **defaults, **fields}
    known = {field.name: field for field in dataclasses.fields(module)}
    known = {key: known[key] for key in known if key not in ("parent", "name")}
    if "in_channels" in fields and "in_channels" not in known:
        raise ValueError(
            f"in_channels is no field of {name}: a model takes the channels of the images that it "
            "is initialized with; model_card and load_model have in_channels"
        )
    for field in fields:
        lookup(known, field, kind=f"field of {name}")
    classes = fields.get("num_classes", 0)
    if not isinstance(classes, int) or classes < 0:
        raise ValueError(f"num_classes is a whole number, 0 for no head, got {classes!r}")
    for field in MODEL_FIELDS:
        if isinstance(fields.get(field), str):
            fields[field] = create_model(fields[field], num_classes=0)
    return module(**fields)


def nearest_variant(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """A Module to (the variant that is nearest to it, the fields in which it differs from that).

    ValueError where no variant is of its class.

    >>> nearest_variant(create_model("lenet5_modern", num_classes=0))
    ('lenet5_modern', {'num_classes': 0})
    """
    names = [name for name in list_models() if variant_card(name)[0]["module"] is type(module)]
    if not names:
        raise ValueError(f"expected a module of a family, got a {type(module).__name__}")
    fields = [field.name for field in dataclasses.fields(module)]
    fields = [field for field in fields if field not in ("parent", "name")]

    def difference(name: str) -> dict[str, Any]:
        own = create_model(name)
        values = {field: getattr(module, field) for field in fields}
        return {field: value for field, value in values.items() if getattr(own, field) != value}

    differences = {name: difference(name) for name in names}
    nearest = min(names, key=lambda name: len(differences[name]))
    return nearest, differences[nearest]


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Shell pattern, and a task, to the sorted names of the variants that match both.

    Source: the VARIANTS at the foot of each family's file.

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
    """Name of a variant to its images' shape and preprocessing; nothing is traced.

    Those of another size or number of channels than the variant's where these are given; where the
    family's CARD has "backbone_defaults", those of a `backbone`, uncropped, a variant or nearest to one.

    >>> shape, preprocessing = input_spec("resnet18", image_size=64, in_channels=1)
    >>> shape, preprocessing.size, [round(value, 3) for value in preprocessing.mean]
    ((64, 64, 1), (64, 64), [0.449])
    """
    card, _ = variant_card(name)
    if backbone is None or "backbone_defaults" not in card:
        pass  # a family of pictures of its own, whatever it stands on
    elif isinstance(backbone, str):
        under, _ = variant_card(backbone)
        card = {
            **card,
            "input": under["input"],
            "preprocessing": {**under["preprocessing"], "crop": 1.0},
        }
    else:
        return input_spec(
            name,
            image_size=image_size,
            in_channels=in_channels,
            backbone=nearest_variant(backbone)[0],
        )
    *before, height, width, channels = card["input"]
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    frames = before[0] if before else 0
    preprocessing = Preprocessing(
        **{"size": (height, width), "frames": frames, **card["preprocessing"]}
    )
    if in_channels is not None:
        if not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f"in_channels is a whole number from 1, got {in_channels!r}")
        channels = in_channels
        preprocessing = with_channels(preprocessing, channels)
    return (*before, height, width, channels), preprocessing


def model_card(name: str, *, in_channels: int | None = None, **fields: Any) -> ModelCard:
    """Name of a variant, and fields over the variant's own, to its card.

    Nothing is computed: shapes are traced. A field image_size is the card's input too; over a
    `backbone` that is given the images are the backbone's; `in_channels`, the images' channels, is
    of the input alone. An unknown name or field raises
    ValueError.

    Source: see ModelCard.

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
