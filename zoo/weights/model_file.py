"""Saving and loading of models, with an account of every tensor."""

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

PREPROCESSING_FIELDS = Preprocessing._fields
CLIP_DEFAULTS = dict(frames=0, stride=1)  # omitted for images, which older versions can read
MAX_SIDE = 1 << 16  # pixels of an image

# Fields that change how a model is computed, not what it computes; files do not store them.
RUNTIME_FIELDS = ("axis_name", "dtype", "name", "parent", "remat", "scan")


def find_file(source: str | pathlib.Path, name: str | None = None) -> pathlib.Path:
    """Returns the weight file of a path, a run's folder or an address."""
    if "://" in str(source):
        return locate_file(str(source), name=name)
    path = pathlib.Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"expected the folder of a finished run or a file, got {source} without "
                "model.safetensors"
            )
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {source}; expected a weight file or the folder of a finished run"
        )
    return path


def read_weights(
    source: str | pathlib.Path, name: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays by name and the card of a weight file; see `read_tensors`."""
    return read_tensors(find_file(source, name))


def read_card(source: str | pathlib.Path, name: str | None = None) -> dict[str, Any]:
    """Reads the card that `save_model` wrote: name, fields, input, preprocessing and extras.

    Args:
        source: a weight file, a run's folder or an address.
        name: name of the variant, for a tag of torchvision.

    Returns:
        The card. For published weights it holds the preprocessing alone; for other files it is
        empty.
    """
    if "://" in str(source) and (published := fetch_preprocessing(str(source), name=name)):
        return published
    return read_weights(source, name)[1]


def is_valid_preprocessing(content: Any) -> bool:
    """Returns whether a card's preprocessing has positive sizes and as many means as stds."""
    if not isinstance(content, dict) or not {"mean", "std", "size"} <= set(content) <= set(
        PREPROCESSING_FIELDS
    ):
        return False
    mean, std, size, crop = (content.get(key, 1.0) for key in PREPROCESSING_FIELDS[:4])
    sides = size if content.get("sides") is None else content["sides"]
    lists = all(isinstance(item, list | tuple) and item for item in (mean, std, size, sides))
    if not lists or len(mean) != len(std) or not len(size) == len(sides) == 2:
        return False
    numbers = all(type(value) in (int, float) for value in (*mean, *std, crop))
    clips = {key: content.get(key, required) for key, required in CLIP_DEFAULTS.items()}
    if not all(
        type(clips[key]) is int and clips[key] >= minimum for key, minimum in CLIP_DEFAULTS.items()
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
    """Returns the preprocessing in the file's card, else its publisher's, else None.

    Args:
        name: name of the variant.
        source: a weight file, a run's folder or an address.
        card: the card, if it has already been read.

    Returns:
        The preprocessing or None.

    Raises:
        ValueError: if it is invalid.
    """
    described = fetch_preprocessing(str(source), name=name) if "://" in str(source) else {}
    if card is None:
        card = described or read_weights(source, name)[1]
    content = {**described, **card}.get("preprocessing")
    if content is None:
        return None
    if not is_valid_preprocessing(content):
        raise ValueError(f"invalid preprocessing in {source}: {content!r:.200}")
    fields: dict[str, Any] = {key: to_tuples(value) for key, value in content.items()}
    return Preprocessing(**fields)


def read_preprocessing(
    name: str,
    source: str | pathlib.Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
) -> Preprocessing:
    """Returns the preprocessing of a model that is loaded from a source.

    It comes from the file's card, else from the publisher, else from the variant's card.

    Args:
        name: name of the variant.
        source: the argument of `load_model`.
        image_size: as in `load_model`.
        in_channels: as in `load_model`.

    Returns:
        The preprocessing.

    >>> read_preprocessing("resnet18", "torchvision://IMAGENET1K_V1", in_channels=1).size
    (224, 224)
    """
    shape, default = input_spec(name, image_size=image_size, in_channels=in_channels)
    stored = card_preprocessing(name, source)
    if stored is None:
        return default
    stored = stored if image_size is None else stored._replace(size=shape[-3:-1])
    return stored if in_channels is None else with_channels(stored, in_channels)


def to_json(value: Any) -> Any:
    """Converts a field's value to JSON; raises ValueError if that is not possible.

    A backbone becomes its variant's name, with {"name": ..., "fields": ...} if fields differ.
    """
    if isinstance(value, nn.Module):
        name, fields = nearest_variant(value)
        changed = {
            key: to_json(field) for key, field in fields.items() if key not in RUNTIME_FIELDS
        }
        return name if changed == {"num_classes": 0} else {"name": name, "fields": changed}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"expected numbers, strings and tuples of them in a card, got {value!r}")


def is_different(value: Any, default: Any) -> bool:
    """Returns whether a field differs from the variant's and must be stored."""
    return to_json(value) != to_json(default) if isinstance(value, nn.Module) else value != default


def preprocessing_to_json(preprocessing: Preprocessing) -> dict[str, Any]:
    """Converts a preprocessing to its JSON in a card."""
    content = preprocessing._asdict().items()
    return {
        key: value
        for key, value in content
        if value is not None and value != CLIP_DEFAULTS.get(key)
    }


def save_model(
    name: str,
    path: str | pathlib.Path,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes the variables of a model to a safetensors file.

    Keys are parameter paths, and the header has a card with name, fields, input and preprocessing,
    so `load_model` needs no more. Equal variables give equal bytes. Scanned models are written
    block by block, like unrolled ones. On an error an existing file is unchanged.

    Args:
        name: name of the variant.
        path: the file.
        model: the module.
        variables: its variables.
        extra: further JSON entries of the card, such as `classes`. For another image size or number
            of channels than the variant's, pass `preprocessing` (a `Preprocessing`); the input
            follows from it.

    Raises:
        ValueError: if the variables do not fit the model.
        OSError: if the file cannot be written.

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
        raise ValueError(
            f"expected a {type(original).__name__} for {name}, got a {type(model).__name__}"
        )
    if getattr(model, "scan", False):
        model, variables = model.clone(scan=False), unstack_blocks(variables)
    fields = {
        field.name: to_json(getattr(model, field.name))
        for field in dataclasses.fields(model)
        if field.name not in RUNTIME_FIELDS
        if is_different(getattr(model, field.name), getattr(original, field.name))
    }
    extra = dict(extra or {})
    default = extra.pop("preprocessing", None)
    image, preprocessing = input_spec(
        name,
        image_size=getattr(model, "image_size", None),
        backbone=getattr(model, "backbone", None) if "backbone" in fields else None,
    )
    preprocessing = preprocessing if default is None else default
    if default is not None:
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
    """Loads a model with all details; see `load_model`. A name of None takes the file's."""
    if name is not None:  # an unknown name is reported before the file is read
        input_spec(name, in_channels=in_channels)
    tensors, card = read_weights(source, name)
    model_name = card.get("name", name)
    if model_name is None:
        raise ValueError(f"{source} does not name its model; pass a name")
    if model_name != (name or model_name) or not isinstance(model_name, str):
        raise ValueError(
            f"expected weights of {name}, got {model_name!s:.80} in {source}; load it by that name"
        )
    return adapt_weights(
        model_name, tensors, card, fields or {}, in_channels=in_channels, source=str(source)
    )


def loaded_preprocessing(loaded: LoadedModel, source: str | pathlib.Path) -> Preprocessing:
    """Returns the preprocessing of a loaded model: its file's or the variant's."""
    channels = loaded.image[-1]
    stored = card_preprocessing(loaded.name, source, loaded.card)
    if stored is not None:
        return with_channels(stored, channels)
    size = getattr(loaded.model, "image_size", None)
    return input_spec(loaded.name, image_size=size, in_channels=channels)[1]


def load_model(
    name: str, source: str | pathlib.Path, *, in_channels: int | None = None, **fields: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a variant with weights from a file, a run's folder or an address.

    The file may be ours or from torchvision, timm, ... as safetensors, npz or torch wrote it. The
    format is detected from the content, tensors are renamed by the tables of `zoo.weights.names`,
    and nothing in the file is executed. Fields that are not given come from the file's card, or
    from the shapes. Adaptations give one warning.

    Args:
        name: name of the variant.
        source: a path, a run's folder, `https://...`, `hf://ORG/REPO[/FILE]` or
            `torchvision://TAG`.
        in_channels: number of input channels. If it differs from the file's, the first kernel is
            adapted: channels are summed for gray, otherwise tiled and rescaled.
        **fields: fields of the model. Another `num_classes` gets a fresh head from key 0 (0 removes
            it); another `image_size` is adapted if the family supports it.

    Returns:
        The module and its variables.

    Raises:
        ValueError: if tensors are unused, missing or misshapen (all in one message), or the file is
            empty, truncated or of unknown format.
        FileNotFoundError: if the file is missing.

    Source: see save_model, whose example runs both.
    """
    loaded = open_model(name, source, fields, in_channels=in_channels)
    if loaded.notes:
        warnings.warn(f"{name}: {'; '.join(loaded.notes)}", stacklevel=2)
    return loaded.model, unflatten_variables(loaded.variables)
