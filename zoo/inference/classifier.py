"""Classification with a weight file, and class names."""

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from zoo.preprocess import Preprocessing, preprocess
from zoo.pretrained import ADDRESSES, CIFAR10_CLASSES, COCO_CLASSES, VOC_CLASSES
from zoo.registry import list_models, variant_card
from zoo.weights.adapt import LoadedModel, unflatten_variables
from zoo.weights.cache import fetch
from zoo.weights.model_file import loaded_preprocessing, open_model

# One name per line in the order of the 1,000 classes, from the examples of torch's hub.
IMAGENET_NAMES_URL = "https://raw.githubusercontent.com/pytorch/hub/master/imagenet_classes.txt"
MAX_NAMES_BYTES = 1 << 24
# Class names of published weights, by task and number of classes.
PUBLISHED_CLASSES = {
    ("segmentation", len(VOC_CLASSES)): VOC_CLASSES,
    ("detection", len(COCO_CLASSES)): COCO_CLASSES,
}


class Classifier(NamedTuple):
    """A classifier with weights.

    Attributes:
        name: name of the variant.
        apply: function from an image [1, h, w, C] or clip [1, T, h, w, C] of uint8, in the size of
            the preprocessing, to probabilities [K].
        preprocessing: the preprocessing.
        classes: K class names.
        note: why the classes have no names, or empty.
    """

    name: str
    apply: Callable[[np.ndarray], jax.Array]
    preprocessing: Preprocessing
    classes: list[str]
    note: str


def split_name_and_files(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Splits the words of the command line into the model's name, or None, and the files.

    Args:
        words: words of the command line.

    Returns:
        Name and files.

    >>> split_name_and_files(["lenet5", "a.png", "b.png"]), split_name_and_files(["a.png"])
    (('lenet5', ['a.png', 'b.png']), (None, ['a.png']))
    """
    first = words[0]
    path = pathlib.Path(first)
    is_image = first not in list_models() and (path.exists() or path.suffix)
    name, files = (None, list(words)) if is_image else (first, list(words[1:]))
    if name is not None:
        variant_card(name)  # raises a ValueError that suggests the nearest names
    if not files:
        raise ValueError(f"expected images: python -m zoo predict {name} IMAGE ..., got none")
    return name, files


def order_by_index(table: dict[int, Any]) -> list[Any]:
    """Converts {0: a, 1: b} to [a, b]; raises ValueError if an index is missing."""
    if sorted(table) != list(range(len(table))):
        raise ValueError(f"expected classes numbered from 0 to {len(table) - 1}")
    return [table[index] for index in range(len(table))]


def parse_class_names(content: Any) -> list[str]:
    """Parses the usual JSON forms of class names.

    Args:
        content: parsed JSON: a list of names, or an object of indices and names.

    Returns:
        Names in order.

    Raises:
        ValueError: for other forms.

    >>> parse_class_names({"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]})
    ['tench', 'goldfish']
    >>> parse_class_names([{"index": 0, "wnid": "n01440764", "name": "tench"}])
    ['tench']
    >>> parse_class_names({"tench": 0})
    ['tench']
    """
    if (
        isinstance(content, dict)
        and content
        and all(type(value) is int for value in content.values())
    ):
        content = order_by_index({value: key for key, value in content.items()})
    elif isinstance(content, dict) and all(key.isdecimal() for key in content):
        content = order_by_index({int(key): value for key, value in content.items()})
    if not isinstance(content, list) or not content:
        raise ValueError("expected a list of names, or an object of numbers and names")
    if all(isinstance(row, dict) and type(row.get("index")) is int for row in content):
        content = order_by_index({row["index"]: row for row in content})
    rows: list[Any] = [row.get("name") if isinstance(row, dict) else row for row in content]
    names: list[Any] = [row[-1] if isinstance(row, list) and row else row for row in rows]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("expected names, or pairs with a name in second place")
    return names


def read_class_names(path: str | pathlib.Path) -> list[str]:
    r"""Reads a file of class names: JSON, or one name per line.

    Args:
        path: the file.

    Returns:
        Names in order.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is empty, too large or of another form.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "classes.txt")
    >>> _ = path.write_text("cat\ndog\n")
    >>> read_class_names(path)
    ['cat', 'dog']
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: expected names of classes, JSON or one a line")
    if path.stat().st_size > MAX_NAMES_BYTES:
        raise ValueError(
            f"{path} has more than {MAX_NAMES_BYTES:,} bytes: expected names of classes"
        )
    try:
        text = path.read_text("utf-8-sig").strip()
        if text.startswith(("[", "{")):
            return parse_class_names(json.loads(text))
    except (ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"expected class names in {path}: {reason}") from error
    if not text:
        raise ValueError(f"{path} is empty: expected names of classes, JSON or one a line")
    return [line.strip() for line in text.split("\n")]


def resolve_class_names(
    loaded: LoadedModel, source: str, file: str | None
) -> tuple[list[str], str]:
    """Returns the class names of a model, and a note if they are missing.

    The names come from `file`, else from the card that training wrote, else from the publisher's
    data set (Pascal VOC for segmenters, COCO for detectors), else from ImageNet for 1,000 classes.

    Args:
        loaded: the loaded model.
        source: its source.
        file: a file of class names.

    Returns:
        Names and note.

    Raises:
        ValueError: if the number of names is wrong.
    """
    count, note = getattr(loaded.model, "num_classes", 0), ""
    names: Any = loaded.card.get("classes")
    origin = f"the card of {source}"
    if file is not None:
        names, origin = read_class_names(file), file
    elif names is not None:
        try:
            names = parse_class_names(names)
        except ValueError as error:
            raise ValueError(f"invalid class names in {origin}: {error}") from error
    elif source.startswith(ADDRESSES["akamaster"]):
        names = list(CIFAR10_CLASSES)
    elif "://" in source and (variant_card(loaded.name)[0]["task"], count) in PUBLISHED_CLASSES:
        names = list(PUBLISHED_CLASSES[variant_card(loaded.name)[0]["task"], count])
    elif count == 1000:
        try:
            names, origin = (
                read_class_names(fetch(IMAGENET_NAMES_URL, limit=MAX_NAMES_BYTES)),
                IMAGENET_NAMES_URL,
            )
        except (ValueError, OSError) as error:
            note = f"{error}; or pass --classes FILE"
    else:
        note = f"{source} does not name its {count} classes; pass --classes FILE"
    if names is None:
        return [f"class {index}" for index in range(count)], note
    if len(names) != count:
        raise ValueError(
            f"expected {count} class names for {loaded.name}, got {len(names)} in {origin}"
        )
    return names, note


def load_classifier(name: str | None, source: str, *, classes: str | None = None) -> Classifier:
    """Loads a classifier.

    Args:
        name: name of the variant; None takes the file's.
        source: weights, as `zoo.load_model` takes them.
        classes: a file of class names.

    Returns:
        The classifier.

    Raises:
        ValueError: if the model is not a classifier.
    """
    return create_classifier(open_model(name, source), source, classes=classes)


def create_classifier(
    loaded: LoadedModel, source: str, *, classes: str | None = None
) -> Classifier:
    """Creates a classifier from a loaded model.

    Args:
        loaded: the loaded model.
        source: its source, for errors.
        classes: a file of class names.

    Returns:
        The classifier.

    Raises:
        ValueError: if the model is not a classifier.
    """
    model, channels = loaded.model, loaded.image[-1]
    task = variant_card(loaded.name)[0]["task"]
    labels = task in ("classification", "video")
    if not labels or not getattr(model, "num_classes", 0):
        why = "its weights have no head" if labels else f"its task is {task}"
        raise ValueError(f"{loaded.name} of {source} is not a classifier: {why}")
    if task == "video" and (len(loaded.image) != 4 or channels not in (1, 3)):
        raise ValueError(
            f"{loaded.name} of {source} needs inputs other than RGB frames (flow or maps); "
            "use it from Python"
        )
    if channels not in (1, 3):
        raise ValueError(
            f"expected a model of 1 or 3 channels for image files, got {channels} in {source}"
        )
    names, note = resolve_class_names(loaded, source, classes)
    preprocessing = loaded_preprocessing(loaded, source)
    if task == "video":
        preprocessing = preprocessing._replace(frames=loaded.image[0])
    normalization = preprocessing._replace(crop=1.0)  # images are already resized and cropped

    @jax.jit
    def probabilities(variables: Any, image: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, preprocess(image, normalization))
        return jax.nn.softmax(outputs["logits"][0])

    apply = functools.partial(probabilities, unflatten_variables(loaded.variables))
    return Classifier(loaded.name, apply, preprocessing, names, note)


def format_top_k(probabilities: np.ndarray, classes: Sequence[str], top: int) -> list[str]:
    """Formats the classes of largest probability, one per line.

    Args:
        probabilities: probabilities [K].
        classes: K class names.
        top: number of lines.

    Returns:
        The lines.

    >>> format_top_k(np.array([0.25, 0.75]), ["cat", "dog"], 5)
    ['   75.00 %  dog', '   25.00 %  cat']
    """
    order = np.argsort(-probabilities, kind="stable")[:top]
    plain = ["".join(c if c.isprintable() else " " for c in classes[index]) for index in order]
    return [f"  {100 * probabilities[i]:6.2f} %  {n}" for i, n in zip(order, plain, strict=True)]
