"""Models to files and back, every tensor accounted for."""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from zoo.registry import create_model, model_card, variant
from zoo.weights import safetensors
from zoo.weights.sources import describe, locate, rename
from zoo.weights.tensors import read_tensors

ODD = 7919  # a number of classes that is no other side of any model

SIZES = ("num_classes", "image_size")  # fields that load_model fits a file's weights to

# Fields that say how a model is computed, not what it is: a file does not keep them.
COMPUTED = ("axis_name", "dtype", "name", "parent")


def find(source: str | pathlib.Path, name: str | None = None) -> pathlib.Path:
    """A weights file, the folder of a run, or the address of published weights, to the file."""
    if "://" in str(source):
        return locate(str(source), name=name)
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


def read(
    source: str | pathlib.Path, name: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What find takes, to arrays by name and the file's card (see read_tensors)."""
    return read_tensors(find(source, name))


def read_card(source: str | pathlib.Path, name: str | None = None) -> dict[str, Any]:
    """A weights file, a run's folder or an address, to the card that save_model wrote: name,
    fields, input [H, W, C], preprocessing, and what its `extra` added. Of published weights, of
    `name` for a tag of torchvision's, it says the preprocessing; of other files nothing: {}.
    """
    if "://" in str(source) and (told := describe(str(source), name=name)):
        return told
    return read(source, name)[1]


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """{"params": {"c1": {"kernel": a}}} to {"params/c1/kernel": a}."""
    return traverse_util.flatten_dict(dict(variables), sep="/")


def shapes(model: nn.Module, image: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """The variables that a model has for images of a shape, by path; nothing is computed."""
    example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    return flatten(jax.eval_shape(model.init, jax.random.key(0), example))


def fits(array: Any, expected: Any) -> bool:
    """Whether shapes agree, and both are floats or neither is."""
    floats = [jnp.issubdtype(each.dtype, jnp.floating) for each in (array, expected)]
    return array.shape == expected.shape and floats[0] == floats[1]


def account(tensors: Mapping[str, Any], expected: Mapping[str, Any], *, where: str) -> None:
    """One ValueError that lists every unused, missing and misshapen tensor, if there are any."""

    def say(array: Any) -> str:
        return f"{array.dtype}{list(array.shape)}"

    faults = {
        "unused": sorted(tensors.keys() - expected.keys()),
        "missing": sorted(expected.keys() - tensors.keys()),
        "misshapen": [
            f"{path} ({say(tensors[path])} for {say(expected[path])})"
            for path in sorted(tensors.keys() & expected.keys())
            if not fits(tensors[path], expected[path])
        ],
    }
    if any(faults.values()):
        lists = [f"{fault}: {', '.join(paths)}" for fault, paths in faults.items() if paths]
        raise ValueError(f"the tensors do not fit {where}; {'; '.join(lists)}")


def plain(value: Any) -> Any:
    """A field's value as JSON can hold it; ValueError where it cannot."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a card cannot hold {value!r}: expected numbers, words and tuples of them")


def frozen(value: Any) -> Any:
    """What `plain` made, with lists as the tuples that fields are; ValueError for an object."""
    if type(value) is dict:
        raise ValueError(f"the file's card has a field {value!s:.80}: expected no object")
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value


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
    Equal variables give equal bytes. Variables that do not fit raise ValueError, and a disk that
    is full OSError; then the file that was there before is still there.

    Source: the format is safetensors'; keys and card are this project's.

    >>> import tempfile
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
    fields = {
        field.name: plain(getattr(model, field.name))
        for field in dataclasses.fields(model)
        if field.name not in COMPUTED
        if getattr(model, field.name) != getattr(original, field.name)
    }
    card = model_card(name)
    extra = dict(extra or {})
    own = extra.pop("preprocessing", None)
    preprocessing = card.preprocessing if own is None else own
    image = card.input
    if own is not None:
        image = (*image[:-3], *preprocessing.size, len(preprocessing.mean))
    tensors = {key: np.asarray(value) for key, value in flatten(variables).items()}
    account(tensors, shapes(model, image), where=f"{name} with images of {image}")
    card = dict(input=image, preprocessing=preprocessing._asdict(), **extra)
    safetensors.write(pathlib.Path(path), tensors, {**card, "name": name, "fields": fields})


def configuration(name: str, card: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """A file's card to (fields, input); ValueError where they are of no use."""
    fields, image = card.get("fields", {}), card.get("input", variant(name)[0]["input"])
    sizes = isinstance(image, list | tuple) and all(type(n) is int and n > 0 for n in image)
    if not isinstance(fields, dict) or not sizes or len(image) < 3:
        raise ValueError(f"the file's card has fields {fields!r:.80} and input {image!r:.80}")
    return {key: frozen(value) for key, value in fields.items()}, tuple(image)


def draw(model: nn.Module, image: tuple[int, ...], paths: list[str]) -> dict[str, jax.Array]:
    """Fresh values, from key 0, of the variables at some paths."""

    def some(key: jax.Array) -> dict[str, jax.Array]:
        values = flatten(model.init(key, jnp.zeros((1, *image))))
        return {path: values[path] for path in paths}

    return jax.jit(some)(jax.random.key(0))


def traced(model: nn.Module, image: tuple[int, ...], *, where: str) -> dict[str, Any]:
    """shapes, with whatever flax makes of impossible fields as a ValueError."""
    try:
        return shapes(model, image)
    except (TypeError, AttributeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error


def adopt(
    name: str, tensors: Mapping[str, Any], fields: Mapping[str, Any], image: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors of a file without our card, to (arrays by path, the fields that their shapes tell).

    What grows with the number of classes is found by a model that has an odd number of them.
    """
    model = create_model(name, **fields)
    try:
        probe = traced(model.clone(num_classes=ODD), image, where=name)
    except (TypeError, ValueError):  # no such field, or not for any number
        return rename(name, tensors, traced(model, image, where=name)), {}
    tensors = rename(name, tensors, probe)
    sides = [
        (path, axis)
        for path, shape in probe.items()
        for axis, side in enumerate(shape.shape)
        if side == ODD and path in tensors and tensors[path].ndim == len(shape.shape)
    ]
    classes = {tensors[path].shape[axis] for path, axis in sides} or {0}
    own = {"num_classes": classes.pop()} if len(classes) == 1 else {}
    card, _ = variant(name)
    return tensors, own | (card["told"](tensors, model=model) if "told" in card else {})


def load_model(
    name: str, source: str | pathlib.Path, **fields: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """Name of a variant and a weights file, a run's folder or an address, to (model, variables).

    The file is ours, or torchvision's, timm's, … as safetensors, npz or torch wrote it: told by
    content, renamed by the tables of zoo.weights, and nothing in it is ever run. An address is
    `https://…`, `hf://ORG/REPO[/FILE]` or `torchvision://TAG`; see zoo.weights.store.fetch.

    Fields not given are those of the file's card. `num_classes` other than the file's makes a
    fresh head from key 0 and says so in a warning; 0 drops the head. Every tensor is accounted
    for: one ValueError lists the unused, the missing and the misshapen. A family whose card has
    `refit` takes the weights to another `image_size` than the file's, and where no card says this
    one, the card's `told` reads it off the shapes. A file that is missing raises
    FileNotFoundError, one that is empty, cut short or foreign ValueError.

    Source: see save_model, whose example runs both.
    """
    variant(name)  # before the file: an unknown name is told with the nearest ones
    tensors, card = read(source, name)
    if card.get("name", name) != name:
        raise ValueError(
            f"{source} holds {card['name']!s:.80}, not {name}: load it by its own name"
        )
    own, image = configuration(name, card)
    if "fields" not in card:
        tensors, own = adopt(name, tensors, fields, image)
    model = create_model(name, **{**own, **fields})
    saved = create_model(name, **own)
    sizes = {key: getattr(saved, key) for key in SIZES if hasattr(saved, key)}
    where = f"{source}: {own | fields!s:.200} make no {name}"
    expected = traced(model, image, where=where)
    before = model.clone(**sizes)
    where = f"{model.__class__.__name__} of {source}"
    account(tensors, traced(before, image, where=where), where=where)

    if "refit" in (family := variant(name)[0]):
        tensors = family["refit"](tensors, old=before, new=model)
    kept = [path for path in expected if path in tensors and fits(tensors[path], expected[path])]
    fresh = sorted(expected.keys() - set(kept))
    variables = {path: jnp.asarray(tensors[path].astype(expected[path].dtype)) for path in kept}
    if fresh:
        variables |= draw(model, image, fresh)
        warnings.warn(
            f"{name}: fresh head for {fields['num_classes']} classes, where {source} has "
            f"{sizes['num_classes']}: {', '.join(fresh)}",
            stacklevel=2,
        )
    return model, traverse_util.unflatten_dict(variables, sep="/")
