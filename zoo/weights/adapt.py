"""Fits the tensors of a weight file to a model, and accounts for every tensor."""

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

# Sentinel sizes: no other dimension of any model equals one of them or is divisible by it.
SENTINEL_CLASSES, SENTINEL_CHANNELS = 7919, 7907

SIZE_FIELDS = ("num_classes", "image_size")  # fields to which weights can be adapted


def flatten_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens {"params": {"c1": {"kernel": a}}} to {"params/c1/kernel": a}."""
    return traverse_util.flatten_dict(dict(variables), sep="/")


def unflatten_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Reverses `flatten_variables`."""
    return traverse_util.unflatten_dict(dict(variables), sep="/")


def trace_shapes(model: nn.Module, image: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a model's variables by path, without computing anything."""
    example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    return flatten_variables(jax.eval_shape(model.init, jax.random.key(0), example))


def has_same_shape(array: Any, expected: Any) -> bool:
    """Returns whether two arrays agree in shape and in being floating point."""
    floats = [jnp.issubdtype(dtype.dtype, jnp.floating) for dtype in (array, expected)]
    return array.shape == expected.shape and floats[0] == floats[1]


def check_tensors(tensors: Mapping[str, Any], expected: Mapping[str, Any], *, where: str) -> None:
    """Raises one ValueError that lists every unused, missing and misshapen tensor."""

    def describe(array: Any) -> str:
        return f"{array.dtype}{list(array.shape)}"

    faults = {
        "unused": sorted(tensors.keys() - expected.keys()),
        "missing": sorted(expected.keys() - tensors.keys()),
        "misshapen": [
            f"{path} ({describe(tensors[path])} for {describe(expected[path])})"
            for path in sorted(tensors.keys() & expected.keys())
            if not has_same_shape(tensors[path], expected[path])
        ],
    }
    if any(faults.values()):
        lists = [f"{fault}: {', '.join(paths)}" for fault, paths in faults.items() if paths]
        raise ValueError(f"the tensors do not fit {where}: {'; '.join(lists)}")


def to_tuples(value: Any) -> Any:
    """Converts the lists of a card's field to tuples; raises ValueError for an object."""
    if type(value) is dict:
        raise ValueError(f"expected a number, word or list in the file's card, got {value!s:.80}")
    return tuple(to_tuples(item) for item in value) if isinstance(value, list) else value


def from_json(value: Any) -> Any:
    """Converts the JSON of a backbone to a name or a module; raises ValueError if it is invalid."""
    if isinstance(value, str | None):
        return value
    inferred = value if isinstance(value, dict) else {}
    name, fields = inferred.get("name"), inferred.get("fields")
    if not name or not isinstance(fields, dict):
        raise ValueError(
            f"expected a backbone with name and fields in the file's card, got {value!s:.80}"
        )
    return create_model(name, **{key: to_tuples(item) for key, item in fields.items()})


def infer_config(name: str, card: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Returns fields and input shape of a file's card; raises ValueError if they are invalid."""
    fields, image = card.get("fields", {}), card.get("input", variant_card(name)[0]["input"])
    sizes = isinstance(image, list | tuple) and all(type(n) is int and n > 0 for n in image)
    if not isinstance(fields, dict) or not sizes or len(image) < 3:
        raise ValueError(
            f"expected fields and input in the file's card, got {fields!r:.80} and {image!r:.80}"
        )
    converted = {
        key: (from_json if key in MODEL_FIELDS else to_tuples)(item) for key, item in fields.items()
    }
    return converted, tuple(image)


def init_parameters(
    model: nn.Module, image: tuple[int, ...], paths: list[str]
) -> dict[str, jax.Array]:
    """Initializes the variables at some paths from key 0."""

    def select(key: jax.Array) -> dict[str, jax.Array]:
        values = flatten_variables(model.init(key, jnp.zeros((1, *image))))
        return {path: values[path] for path in paths}

    return jax.jit(select)(jax.random.key(0))


def trace_or_explain(model: nn.Module, image: tuple[int, ...], *, where: str) -> dict[str, Any]:
    """Calls `trace_shapes` and turns flax's errors about invalid fields into a ValueError."""
    try:
        return trace_shapes(model, image)
    except (TypeError, AttributeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error


def infer_count(
    tensors: Mapping[str, Any], probe: Mapping[str, Any], odd: int, *, axes: tuple[int, ...]
) -> set[int]:
    """Infers a number of classes or channels from the axes with the probe's sentinel size."""
    counts = set()
    for path, expected in probe.items():
        for axis in axes:
            shape = expected.shape
            if len(shape) < -axis or shape[axis] % odd or path not in tensors:
                continue
            times = shape[axis] // odd  # the input of a dense layer is a multiple of the channels
            if tensors[path].ndim == len(shape) and tensors[path].shape[axis] % times == 0:
                counts.add(tensors[path].shape[axis] // times)
    return counts - {0}


def adapt_to_fields(
    name: str, tensors: Mapping[str, Any], fields: Mapping[str, Any], image: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]:
    """Infers fields and input from the tensors of a file without our card.

    Sizes that grow with the number of classes or channels are located by a probe model with
    sentinel sizes.

    Args:
        name: name of the variant.
        tensors: tensors of the file.
        fields: fields that the caller has set.
        image: input shape of the variant.

    Returns:
        Arrays by path, fields and input shape.
    """
    model = create_model(name, **fields)
    try:
        odd = model.clone(num_classes=SENTINEL_CLASSES)
        probe = trace_or_explain(odd, (*image[:-1], SENTINEL_CHANNELS), where=name)
    except (TypeError, ValueError):  # the field does not exist or does not take the sentinel
        return rename_tensors(name, tensors, trace_or_explain(model, image, where=name)), {}, image
    tensors = rename_tensors(name, tensors, probe)
    classes = infer_count(tensors, probe, SENTINEL_CLASSES, axes=(-1,)) or {0}
    inferred_fields = {"num_classes": classes.pop()} if len(classes) == 1 else {}
    channels = infer_count(tensors, probe, SENTINEL_CHANNELS, axes=(-2,))
    image = (*image[:-1], channels.pop()) if len(channels) == 1 else image
    card, _ = variant_card(name)
    inferred = card["infer_fields"](tensors, model=model) if "infer_fields" in card else {}
    return tensors, inferred_fields | inferred, image


def adapt_scanned(
    name: str,
    tensors: Mapping[str, Any],
    fields: Mapping[str, Any],
    image: tuple[int, ...],
    *,
    source: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits darknet's flat array into arrays by path and infers the number of classes."""
    ((row_name, row),) = tensors.items()
    others = {key: value for key, value in fields.items() if key != "num_classes"}
    model = create_model(name, **others)
    try:
        classes = darknet.infer_num_classes(
            row.size, trace_or_explain(model, image, where=name), model
        )
    except ValueError as error:
        raise ValueError(f"{source} does not fit {name}: {error}") from error
    inferred_fields: dict[str, Any] = {"num_classes": classes}
    model = model.clone(**inferred_fields)
    expected = trace_or_explain(model, image, where=name)
    transposed = row_name == darknet.TRANSPOSED_ROW_NAME
    return darknet.to_paths(row, expected, model, transposed=transposed), inferred_fields


def adapt_in_channels(kernel: np.ndarray, old: int, new: int) -> np.ndarray:
    """Adapts the first kernel to another number of input channels.

    A single channel gets the sum over the channels, so a gray image acts like a color image with
    equal channels. Several channels repeat the old ones, scaled by old / new, so the outputs keep
    their size.

    Args:
        kernel: kernel [..., times * old, O].
        old: number of channels of the kernel.
        new: new number of channels.

    Returns:
        Kernel [..., times * new, O].

    Source: timm's adapt_input_conv, which handles three channels.

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
    """Adapts tensors to a model that differs in its input channels alone.

    Args:
        tensors: arrays by path.
        old: shapes of the file's model.
        new: shapes of the new model.
        sides: old and new number of channels.

    Returns:
        Arrays of the new shapes and a note about the change.

    Raises:
        ValueError: if more than one kernel depends on the channels.
    """
    old_channels, new_channels = sides
    changed = [path for path in new if path in old and new[path].shape != old[path].shape]
    for path in changed:
        shape, changed_axis = old[path].shape, new[path].shape
        same_rest = shape[:-2] == changed_axis[:-2] and shape[-1] == changed_axis[-1]
        if len(changed) > 1 or not same_rest or not path.endswith("kernel"):
            raise ValueError(
                f"in_channels={new_channels}: weights for {old_channels} cannot be adapted, as "
                f"more than the first kernel depends on them ({', '.join(changed)})"
            )
    adapted = {
        path: adapt_in_channels(tensors[path], old_channels, new_channels) for path in changed
    }
    combination = "the sum" if new_channels == 1 else "copies"
    paths = ", ".join(changed)
    note = (
        f"{paths} for in_channels={new_channels} out of {combination} of the file's {old_channels}"
    )
    return {**tensors, **adapted}, note


class LoadedModel(NamedTuple):
    """A model with variables from a file.

    Attributes:
        name: name of the variant.
        model: the module.
        variables: arrays by path.
        image: shape of an input image.
        notes: lines about variables that were initialized or adapted.
        card: the card of the file.
        tensor_counts: number of tensors and of numbers in the file.
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
    """Fits the tensors and card of a file to a variant; see `zoo.load_model`.

    Args:
        name: name of the variant.
        tensors: tensors of the file.
        card: card of the file.
        fields: fields that the caller has set.
        in_channels: number of input channels; None takes the file's.
        source: name of the file, for errors.

    Returns:
        The loaded model.
    """
    counts = len(tensors), sum(tensor.size for tensor in tensors.values())
    file_fields, image = infer_config(name, card)
    if darknet.is_row(tensors):
        tensors, file_fields = adapt_scanned(name, tensors, fields, image, source=source)
    elif "fields" not in card:
        tensors, file_fields, image = adapt_to_fields(name, tensors, fields, image)
    requested = create_model(name, **{**file_fields, **fields})
    scan = getattr(requested, "scan", False)
    model = requested.clone(scan=False) if scan else requested  # files store unrolled blocks
    saved = create_model(name, **file_fields)
    sizes = {key: getattr(saved, key) for key in SIZE_FIELDS if hasattr(saved, key)}
    file_model = model.clone(**sizes)  # differs from the model in the adapted sizes alone
    input_shape = (*image[:-1], in_channels or image[-1])
    where = f"{source}: {file_fields | dict(fields)!s:.200} make no {name}"
    expected = trace_or_explain(model, input_shape, where=where)
    where = f"{model.__class__.__name__} of {source}"
    same = file_model == model and image == input_shape
    old = expected if same else trace_or_explain(file_model, image, where=where)
    check_tensors(tensors, old, where=where)

    notes = []
    if image != input_shape:
        new = (
            expected
            if file_model == model
            else trace_or_explain(file_model, input_shape, where=where)
        )
        tensors, note = refit_in_channels(tensors, old, new, (image[-1], input_shape[-1]))
        notes.append(note)
    if file_model != model and "refit" in (family := variant_card(name)[0]):
        tensors = family["refit"](tensors, old=file_model, new=model)
    variables_kept = [
        path
        for path in expected
        if path in tensors and has_same_shape(tensors[path], expected[path])
    ]
    fresh = sorted(expected.keys() - set(variables_kept))
    variables = {
        path: jnp.asarray(tensors[path].astype(expected[path].dtype)) for path in variables_kept
    }
    if fresh:
        variables |= init_parameters(model, input_shape, fresh)
        notes.append(
            f"fresh head for {fields['num_classes']} classes, where {source} has "
            f"{sizes['num_classes']}: {', '.join(fresh)}"
        )
    if scan:
        variables = flatten_variables(stack_blocks(unflatten_variables(variables)))
    return LoadedModel(name, requested, variables, input_shape, notes, card, counts)
