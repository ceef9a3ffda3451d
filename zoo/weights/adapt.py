"""Tensors of a file to the variables of a model: every one accounted for, some made to fit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from zoo.layers.residual import stack_blocks
from zoo.registry import MODEL_FIELDS, create_model, variant_card
from zoo.weights.formats import darknet
from zoo.weights.publishers import rename_tensors

# Numbers of classes and of channels that are no other side of any model, nor divide one.
SENTINEL_CLASSES, SENTINEL_CHANNELS = 7919, 7907

SIZE_FIELDS = ("num_classes", "image_size")  # fields that a file's weights are fitted to


def flatten_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """{"params": {"c1": {"kernel": a}}} to {"params/c1/kernel": a}."""
    return traverse_util.flatten_dict(dict(variables), sep="/")


def unflatten_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """flatten the other way."""
    return traverse_util.unflatten_dict(dict(variables), sep="/")


def trace_shapes(model: nn.Module, image: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """The variables that a model has for images of a shape, by path; nothing is computed."""
    example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    return flatten_variables(jax.eval_shape(model.init, jax.random.key(0), example))


def has_same_shape(array: Any, expected: Any) -> bool:
    """Whether shapes agree, and both are floats or neither is."""
    floats = [jnp.issubdtype(each.dtype, jnp.floating) for each in (array, expected)]
    return array.shape == expected.shape and floats[0] == floats[1]


def check_tensors(tensors: Mapping[str, Any], expected: Mapping[str, Any], *, where: str) -> None:
    """One ValueError that lists every unused, missing and misshapen tensor, if there are any."""

    def say(array: Any) -> str:
        return f"{array.dtype}{list(array.shape)}"

    faults = {
        "unused": sorted(tensors.keys() - expected.keys()),
        "missing": sorted(expected.keys() - tensors.keys()),
        "misshapen": [
            f"{path} ({say(tensors[path])} for {say(expected[path])})"
            for path in sorted(tensors.keys() & expected.keys())
            if not has_same_shape(tensors[path], expected[path])
        ],
    }
    if any(faults.values()):
        lists = [f"{fault}: {', '.join(paths)}" for fault, paths in faults.items() if paths]
        raise ValueError(f"the tensors do not fit {where}; {'; '.join(lists)}")


def to_tuples(value: Any) -> Any:
    """What `plain` made, with lists as the tuples that fields are; ValueError for an object."""
    if type(value) is dict:
        raise ValueError(f"the file's card has a field {value!s:.80}: expected no object")
    return tuple(to_tuples(item) for item in value) if isinstance(value, list) else value


def from_json(value: Any) -> Any:
    """What model_file.plain made of a backbone to a name or a Module; ValueError for what is none."""
    if isinstance(value, str | None):
        return value
    inferred = value if isinstance(value, dict) else {}
    name, fields = inferred.get("name"), inferred.get("fields")
    if not name or not isinstance(fields, dict):
        raise ValueError(f"the file's card has a backbone {value!s:.80}: expected name and fields")
    return create_model(name, **{key: to_tuples(each) for key, each in fields.items()})


def infer_config(name: str, card: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """A file's card to (fields, input); ValueError where they are of no use."""
    fields, image = card.get("fields", {}), card.get("input", variant_card(name)[0]["input"])
    sizes = isinstance(image, list | tuple) and all(type(n) is int and n > 0 for n in image)
    if not isinstance(fields, dict) or not sizes or len(image) < 3:
        raise ValueError(f"the file's card has fields {fields!r:.80} and input {image!r:.80}")
    own = {
        key: (from_json if key in MODEL_FIELDS else to_tuples)(each) for key, each in fields.items()
    }
    return own, tuple(image)


def init_parameters(
    model: nn.Module, image: tuple[int, ...], paths: list[str]
) -> dict[str, jax.Array]:
    """Fresh values, from key 0, of the variables at some paths."""

    def some(key: jax.Array) -> dict[str, jax.Array]:
        values = flatten_variables(model.init(key, jnp.zeros((1, *image))))
        return {path: values[path] for path in paths}

    return jax.jit(some)(jax.random.key(0))


def trace_or_explain(model: nn.Module, image: tuple[int, ...], *, where: str) -> dict[str, Any]:
    """shapes, with whatever flax makes of impossible fields as a ValueError."""
    try:
        return trace_shapes(model, image)
    except (TypeError, AttributeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error


def infer_count(
    tensors: Mapping[str, Any], probe: Mapping[str, Any], odd: int, *, axes: tuple[int, ...]
) -> set[int]:
    """How many there are in `tensors` of what the probe has an odd number of, along these axes."""
    found = set()
    for path, expected in probe.items():
        for axis in axes:
            shape = expected.shape
            if len(shape) < -axis or shape[axis] % odd or path not in tensors:
                continue
            times = shape[axis] // odd  # a dense layer reads every pixel's channels
            if tensors[path].ndim == len(shape) and tensors[path].shape[axis] % times == 0:
                found.add(tensors[path].shape[axis] // times)
    return found - {0}


def adapt_to_fields(
    name: str, tensors: Mapping[str, Any], fields: Mapping[str, Any], image: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]:
    """Tensors of a file without our card, to (arrays by path, the fields and the input that their
    shapes tell).

    What grows with the number of classes, or of channels, is found by a model that has an odd
    number of them.
    """
    model = create_model(name, **fields)
    try:
        odd = model.clone(num_classes=SENTINEL_CLASSES)
        probe = trace_or_explain(odd, (*image[:-1], SENTINEL_CHANNELS), where=name)
    except (TypeError, ValueError):  # no such field, or not for any number
        return rename_tensors(name, tensors, trace_or_explain(model, image, where=name)), {}, image
    tensors = rename_tensors(name, tensors, probe)
    classes = infer_count(tensors, probe, SENTINEL_CLASSES, axes=(-1,)) or {0}
    own = {"num_classes": classes.pop()} if len(classes) == 1 else {}
    channels = infer_count(tensors, probe, SENTINEL_CHANNELS, axes=(-2,))
    image = (*image[:-1], channels.pop()) if len(channels) == 1 else image
    card, _ = variant_card(name)
    inferred = card["infer_fields"](tensors, model=model) if "infer_fields" in card else {}
    return tensors, own | inferred, image


def adapt_scanned(
    name: str,
    tensors: Mapping[str, Any],
    fields: Mapping[str, Any],
    image: tuple[int, ...],
    *,
    source: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """darknet's one row of numbers to (arrays by path, the fields that their count tells)."""
    ((how, row),) = tensors.items()
    others = {key: value for key, value in fields.items() if key != "num_classes"}
    model = create_model(name, **others)
    try:
        classes = darknet.infer_num_classes(
            row.size, trace_or_explain(model, image, where=name), model
        )
    except ValueError as error:
        raise ValueError(f"{source} does not fit {name}: {error}") from error
    own: dict[str, Any] = {"num_classes": classes}
    model = model.clone(**own)
    expected = trace_or_explain(model, image, where=name)
    transposed = how == darknet.TRANSPOSED_ROW_NAME
    return darknet.to_paths(row, expected, model, transposed=transposed), own


def adapt_in_channels(kernel: np.ndarray, old: int, new: int) -> np.ndarray:
    """`[..., times * old, O] -> [..., times * new, O]`: a first kernel, for other channels.

    A single channel gets the sum of all, so that gray is seen as color whose channels are equal.
    Several get the old ones, over and over, by old / new: the outputs keep their size.

    Source: timm's adapt_input_conv, which has it for three channels.

    >>> adapt_in_channels(np.array([[1.0], [2.0], [6.0]]), 3, 1).tolist()
    [[9.0]]
    >>> adapt_in_channels(np.array([[1.0], [2.0], [6.0]]), 3, 6).ravel().tolist()
    [0.5, 1.0, 3.0, 0.5, 1.0, 3.0]
    """
    *before, rows, width = kernel.shape
    split = kernel.astype(np.float32).reshape(*before, rows // old, old, width)
    if new == 1:
        split = split.sum(-2, keepdims=True)
    else:
        split = split[..., np.arange(new) % old, :] * (old / new)
    return split.reshape(*before, rows // old * new, width)


def refit_in_channels(
    tensors: Mapping[str, Any],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    sides: tuple[int, int],
) -> tuple[dict[str, Any], str]:
    """Tensors of shapes `old` to (those of shapes `new`, a line that says what was done).

    The shapes differ in the channels of the images alone, of which there are and shall be `infer_count`;
    ValueError where more than one kernel does.
    """
    before, after = sides
    changed = [path for path in new if path in old and new[path].shape != old[path].shape]
    for path in changed:
        shape, other = old[path].shape, new[path].shape
        alike = shape[:-2] == other[:-2] and shape[-1] == other[-1]
        if len(changed) > 1 or not alike or not path.endswith("kernel"):
            raise ValueError(
                f"in_channels={after}: weights for {before} are not made to fit, where more than "
                f"the first kernel depends on them ({', '.join(changed)})"
            )
    made = {path: adapt_in_channels(tensors[path], before, after) for path in changed}
    how = "the sum" if after == 1 else "copies"
    note = f"{', '.join(changed)} for in_channels={after} out of {how} of the file's {before}"
    return {**tensors, **made}, note


class LoadedModel(NamedTuple):
    """A model and its variables by path.

    `image` is the shape of its images, `notes` are lines on what was made anew, `card` is what the
    file says, and `tensor_counts` how many tensors were in it, and how many numbers in these.
    """

    name: str
    model: nn.Module
    variables: dict[str, jax.Array]
    image: tuple[int, ...]
    notes: list[str]
    card: dict[str, Any]
    tensor_counts: tuple[int, int]


def adapt_weights(
    name: str,
    tensors: Mapping[str, Any],
    card: dict[str, Any],
    fields: Mapping[str, Any],
    *,
    in_channels: int | None = None,
    source: str,
) -> LoadedModel:
    """Tensors and card of a file to a variant that has all of them; see zoo.load_model.

    `source` is the file's name, for the errors.
    """
    held = len(tensors), sum(tensor.size for tensor in tensors.values())
    own, image = infer_config(name, card)
    if darknet.is_row(tensors):
        tensors, own = adapt_scanned(name, tensors, fields, image, source=source)
    elif "fields" not in card:
        tensors, own, image = adapt_to_fields(name, tensors, fields, image)
    wished = create_model(name, **{**own, **fields})
    scan = getattr(wished, "scan", False)
    model = wished.clone(scan=False) if scan else wished  # files hold block by block
    saved = create_model(name, **own)
    sizes = {key: getattr(saved, key) for key in SIZE_FIELDS if hasattr(saved, key)}
    before = model.clone(**sizes)  # differs from the model in nothing but what is fitted
    wanted = (*image[:-1], in_channels or image[-1])
    where = f"{source}: {own | dict(fields)!s:.200} make no {name}"
    expected = trace_or_explain(model, wanted, where=where)
    where = f"{model.__class__.__name__} of {source}"
    same = before == model and image == wanted
    old = expected if same else trace_or_explain(before, image, where=where)
    check_tensors(tensors, old, where=where)

    notes = []
    if image != wanted:
        new = expected if before == model else trace_or_explain(before, wanted, where=where)
        tensors, note = refit_in_channels(tensors, old, new, (image[-1], wanted[-1]))
        notes.append(note)
    if before != model and "refit" in (family := variant_card(name)[0]):
        tensors = family["refit"](tensors, old=before, new=model)
    kept = [
        path
        for path in expected
        if path in tensors and has_same_shape(tensors[path], expected[path])
    ]
    fresh = sorted(expected.keys() - set(kept))
    variables = {path: jnp.asarray(tensors[path].astype(expected[path].dtype)) for path in kept}
    if fresh:
        variables |= init_parameters(model, wanted, fresh)
        notes.append(
            f"fresh head for {fields['num_classes']} classes, where {source} has "
            f"{sizes['num_classes']}: {', '.join(fresh)}"
        )
    if scan:
        variables = flatten_variables(stack_blocks(unflatten_variables(variables)))
    return LoadedModel(name, wished, variables, wanted, notes, card, held)
