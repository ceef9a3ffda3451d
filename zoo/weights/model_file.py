"""Models to files and back, every tensor accounted for."""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from zoo.layers.residual import unstack_blocks
from zoo.preprocess import JAX_METHODS, Preprocessing, with_channels
from zoo.registry import create_model, input_spec, nearest_variant
from zoo.weights.adapt import (
    LoadedModel,
    adapt_weights,
    check_tensors,
    flatten_variables,
    to_tuples,
    trace_shapes,
    unflatten_variables,
)
from zoo.weights.formats import safetensors
from zoo.weights.publishers import fetch_preprocessing, locate_file
from zoo.weights.readers import read_tensors

PREPROCESSING_FIELDS = Preprocessing._fields  # mean std size crop interpolation sides frames stride
CLIP_DEFAULTS = dict(frames=0, stride=1)  # not written of images, so that older versions read those
MAX_SIDE = 1 << 16  # pixels

# Fields that say how a model is computed, not what it is: a file does not keep them.
RUNTIME_FIELDS = ("axis_name", "dtype", "name", "parent", "remat", "scan")


def find_file(source: str | pathlib.Path, name: str | None = None) -> pathlib.Path:
    """A weights file, the folder of a run, or the address of published weights, to the file."""
    if "://" in str(source):
        return locate_file(str(source), name=name)
    path = pathlib.Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{source} holds no model.safetensors: expected a finished run's folder or a file"
            )
    if not path.is_file():
        raise FileNotFoundError(f"no file {source}: expected weights or a finished run's folder")
    return path


def read_weights(
    source: str | pathlib.Path, name: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What find takes, to arrays by name and the file's card (see read_tensors)."""
    return read_tensors(find_file(source, name))


def read_card(source: str | pathlib.Path, name: str | None = None) -> dict[str, Any]:
    """A weights file, a run's folder or an address, to the card that save_model wrote: name,
    fields, input [H, W, C], preprocessing, and what its `extra` added. Of published weights, of
    `name` for a tag of torchvision's, it says the preprocessing; of other files nothing: {}.
    """
    if "://" in str(source) and (told := fetch_preprocessing(str(source), name=name)):
        return told
    return read_weights(source, name)[1]


def is_valid_preprocessing(content: Any) -> bool:
    """Whether a card's "preprocessing" is one: positive sizes, as many deviations as means."""
    if not isinstance(content, dict) or not {"mean", "std", "size"} <= set(content) <= set(
        PREPROCESSING_FIELDS
    ):
        return False
    mean, std, size, crop = (content.get(key, 1.0) for key in PREPROCESSING_FIELDS[:4])
    sides = size if content.get("sides") is None else content["sides"]
    lists = all(isinstance(each, list | tuple) and each for each in (mean, std, size, sides))
    if not lists or len(mean) != len(std) or not len(size) == len(sides) == 2:
        return False
    numbers = all(type(value) in (int, float) for value in (*mean, *std, crop))
    clips = {key: content.get(key, usual) for key, usual in CLIP_DEFAULTS.items()}
    if not all(
        type(clips[key]) is int and clips[key] >= least for key, least in CLIP_DEFAULTS.items()
    ):
        return False
    return (
        numbers
        and min(std) > 0
        and all(type(side) is int and 0 < side <= MAX_SIDE for side in (*size, *sides))
        and MAX_SIDE**-1 < crop <= 1
        and content.get("interpolation", "bilinear") in JAX_METHODS
    )


def card_preprocessing(
    name: str, source: str | pathlib.Path, card: Mapping[str, Any] | None = None
) -> Preprocessing | None:
    """What the file's card, else its publisher, says of preprocessing; None where neither does.

    `card` spares reading the file where it is at hand. ValueError for strange ones.
    """
    described = fetch_preprocessing(str(source), name=name) if "://" in str(source) else {}
    if card is None:
        card = described or read_weights(source, name)[1]
    told = {**described, **card}.get("preprocessing")
    if told is None:
        return None
    if not is_valid_preprocessing(told):
        raise ValueError(f"{source} tells a preprocessing that is none: {told!r:.200}")
    fields: dict[str, Any] = {key: to_tuples(value) for key, value in told.items()}
    return Preprocessing(**fields)


def read_preprocessing(
    name: str,
    source: str | pathlib.Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
) -> Preprocessing:
    """Name of a variant and what load_model loads it from, to what its images go through.

    The file's card tells it, else the publisher, else the variant's own card. `image_size` and
    `in_channels` are load_model's.

    >>> read_preprocessing("resnet18", "torchvision://IMAGENET1K_V1", in_channels=1).size
    (224, 224)
    """
    shape, own = input_spec(name, image_size=image_size, in_channels=in_channels)
    told = card_preprocessing(name, source)
    if told is None:
        return own
    told = told if image_size is None else told._replace(size=shape[-3:-1])
    return told if in_channels is None else with_channels(told, in_channels)


def to_json(value: Any) -> Any:
    """A field's value as JSON can hold it; ValueError where it cannot.

    A backbone is its variant's name, with {"name": ..., "fields": ...} where it has fields of its own.
    """
    if isinstance(value, nn.Module):
        name, fields = nearest_variant(value)
        own = {key: to_json(each) for key, each in fields.items() if key not in RUNTIME_FIELDS}
        return name if own == {"num_classes": 0} else {"name": name, "fields": own}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a card cannot hold {value!r}: expected numbers, words and tuples of them")


def is_different(ours: Any, own: Any) -> bool:
    """Whether a file has to keep a field: backbones are compared as it would hold them."""
    return to_json(ours) != to_json(own) if isinstance(ours, nn.Module) else ours != own


def preprocessing_to_json(preprocessing: Preprocessing) -> dict[str, Any]:
    """Preprocessing to what a card says of it."""
    every = preprocessing._asdict().items()
    return {key: each for key, each in every if each is not None and each != CLIP_DEFAULTS.get(key)}


def save_model(
    name: str,
    path: str | pathlib.Path,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes the variables of `model`, a variant called `name`, to a safetensors file.

    Keys are the paths; the header's card tells name, fields, input [H, W, C] and preprocessing,
    so that load_model needs no more. `extra` goes into the card over these, as JSON: the names of
    the classes, say. A model trained on images of another size or number of channels than its
    card's gives its "preprocessing" (a Preprocessing) there, and the input follows from it.
    Equal variables give equal bytes; those of a scanned model are written block by block, as the
    unrolled one's. Variables that do not fit raise ValueError, and a disk that is full OSError;
    then the file that was there before is still there.

    Source: the format is safetensors'; keys and card are this project's.

    >>> import tempfile, jax, jax.numpy as jnp
    >>> model = create_model("perceptron", num_classes=3)
    >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model("perceptron", f"{folder}/a.safetensors", model, variables)
    ...     same, loaded = load_model("perceptron", f"{folder}/a.safetensors")
    >>> same == model, jax.tree.all(jax.tree.map(jnp.array_equal, loaded, variables))
    (True, True)
    """
    original = create_model(name)
    if type(model) is not type(original):
        raise ValueError(f"{name} is a {type(original).__name__}, got a {type(model).__name__}")
    if getattr(model, "scan", False):
        model, variables = model.clone(scan=False), unstack_blocks(variables)
    fields = {
        field.name: to_json(getattr(model, field.name))
        for field in dataclasses.fields(model)
        if field.name not in RUNTIME_FIELDS
        if is_different(getattr(model, field.name), getattr(original, field.name))
    }
    extra = dict(extra or {})
    own = extra.pop("preprocessing", None)
    image, preprocessing = input_spec(
        name,
        image_size=getattr(model, "image_size", None),
        backbone=getattr(model, "backbone", None) if "backbone" in fields else None,
    )
    preprocessing = preprocessing if own is None else own
    if own is not None:
        frames = (preprocessing.frames,) if len(image) == 4 and preprocessing.frames else image[:-3]
        image = (*frames, *preprocessing.size, len(preprocessing.mean))
    tensors = {key: np.asarray(value) for key, value in flatten_variables(variables).items()}
    check_tensors(
        tensors,
        trace_shapes(model, image),
        where=f"{name} with images of {image} (extra's preprocessing)",
    )
    card = dict(input=image, preprocessing=preprocessing_to_json(preprocessing), **extra)
    safetensors.write_safetensors(
        pathlib.Path(path), tensors, {**card, "name": name, "fields": fields}
    )


def open_model(
    name: str | None,
    source: str | pathlib.Path,
    fields: Mapping[str, Any] | None = None,
    *,
    in_channels: int | None = None,
) -> LoadedModel:
    """load_model with all that it learns on its way; a `name` of None is the file's own."""
    if name is not None:  # before the file: an unknown name is told with the nearest ones
        input_spec(name, in_channels=in_channels)
    tensors, card = read_weights(source, name)
    own = card.get("name", name)
    if own is None:
        raise ValueError(f"{source} does not say which model it is for: give its name")
    if own != (name or own) or not isinstance(own, str):
        raise ValueError(f"{source} holds {own!s:.80}, not {name}: load it by its own name")
    return adapt_weights(
        own, tensors, card, fields or {}, in_channels=in_channels, source=str(source)
    )


def loaded_preprocessing(loaded: LoadedModel, source: str | pathlib.Path) -> Preprocessing:
    """What open_model opened, to what its images go through: told, or the variant's own."""
    channels = loaded.image[-1]
    told = card_preprocessing(loaded.name, source, loaded.card)
    if told is not None:
        return with_channels(told, channels)
    size = getattr(loaded.model, "image_size", None)
    return input_spec(loaded.name, image_size=size, in_channels=channels)[1]


def load_model(
    name: str, source: str | pathlib.Path, *, in_channels: int | None = None, **fields: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """Name of a variant and a weights file, a run's folder or an address, to (model, variables).

    The file is ours, or torchvision's, timm's, … as safetensors, npz or torch wrote it: told by
    content, renamed by the tables of zoo.weights, and nothing in it is ever run. An address is
    `https://…`, `hf://ORG/REPO[/FILE]` or `torchvision://TAG`; see zoo.weights.cache.fetch.

    Fields not given are those of the file's card. `num_classes` other than the file's makes a
    fresh head from key 0, `in_channels` other than the file's a first kernel out of the file's:
    the sum of its channels for one, else these over and over, scaled. A warning says so, once.
    num_classes=0 drops the head. A family whose card has `refit` takes the weights to another
    `image_size` than the file's; where no card says these three, shapes do. Every tensor is
    accounted for before: one ValueError lists the unused, the missing and the misshapen. A file
    that is missing raises FileNotFoundError, one that is empty, cut short or foreign ValueError.

    Source: see save_model, whose example runs both.
    """
    loaded = open_model(name, source, fields, in_channels=in_channels)
    if loaded.notes:
        warnings.warn(f"{name}: {'; '.join(loaded.notes)}", stacklevel=2)
    return loaded.model, unflatten_variables(loaded.variables)
