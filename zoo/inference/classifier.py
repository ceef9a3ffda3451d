"""A classifier out of a weights file, and the names of what it tells apart."""

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

# One name a line, in the order of the 1,000 classes; of torch's hub, for its own examples.
IMAGENET_NAMES_URL = "https://raw.githubusercontent.com/pytorch/hub/master/imagenet_classes.txt"
MAX_NAMES_BYTES = 1 << 24  # bytes of a file of names
# What published weights of so many classes tell apart.
PUBLISHED_CLASSES = {
    ("segmentation", len(VOC_CLASSES)): VOC_CLASSES,
    ("detection", len(COCO_CLASSES)): COCO_CLASSES,
}


class Classifier(NamedTuple):
    """`apply` takes uint8 [1, h, w, C], or a clip [1, T, h, w, C], of the size of `preprocessing`, to probabilities [K].

    `classes` are their K names, and `note` says why they are none, or is empty.
    """

    name: str
    apply: Callable[[np.ndarray], jax.Array]
    preprocessing: Preprocessing
    classes: list[str]
    note: str


def split_name_and_files(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """What the command line gives, to (the model's name or None, the images).

    >>> split_name_and_files(["lenet5", "a.png", "b.png"]), split_name_and_files(["a.png"])
    (('lenet5', ['a.png', 'b.png']), (None, ['a.png']))
    """
    first = words[0]
    path = pathlib.Path(first)
    is_image = first not in list_models() and (path.exists() or path.suffix)
    name, files = (None, list(words)) if is_image else (first, list(words[1:]))
    if name is not None:
        variant_card(name)  # ValueError with the nearest names
    if not files:
        raise ValueError(f"no image: expected python -m zoo predict {name} IMAGE ...")
    return name, files


def order_by_index(table: dict[int, Any]) -> list[Any]:
    """{0: a, 1: b} to [a, b]; ValueError where a number is missing."""
    if sorted(table) != list(range(len(table))):
        raise ValueError(f"its classes are not numbered from 0 to {len(table) - 1}")
    return [table[index] for index in range(len(table))]


def parse_class_names(content: Any) -> list[str]:
    """JSON of any usual form to the names of the classes in order; ValueError for others.

    >>> parse_class_names({"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]})
    ['tench', 'goldfish']
    >>> parse_class_names([{"index": 0, "wnid": "n01440764", "name": "tench"}]), parse_class_names({"tench": 0})
    (['tench'], ['tench'])
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
        raise ValueError("expected names, or pairs of which the second is one")
    return names


def read_class_names(path: str | pathlib.Path) -> list[str]:
    """A file of class names, JSON or one a line, to the names; ValueError of one line.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "classes.txt")
    >>> _ = path.write_text("cat\\ndog\\n")
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
        raise ValueError(f"{path} holds no names of classes: {reason}") from error
    if not text:
        raise ValueError(f"{path} is empty: expected names of classes, JSON or one a line")
    return [line.strip() for line in text.split("\n")]


def resolve_class_names(
    loaded: LoadedModel, source: str, file: str | None
) -> tuple[list[str], str]:
    """A model of K classes to their names, and a note where these are but numbers.

    They are those of `file` if it is given, else of the card that training wrote, else what the
    weights' publisher trained on (Pascal VOC's 21 of published weights that segment, COCO's 90 of
    those that detect), else ImageNet's for a thousand.
    """
    count, note = getattr(loaded.model, "num_classes", 0), ""
    names: Any = loaded.card.get("classes")
    where = f"the card of {source}"
    if file is not None:
        names, where = read_class_names(file), file
    elif names is not None:
        try:
            names = parse_class_names(names)
        except ValueError as error:
            raise ValueError(f"{where} has classes that are none: {error}") from error
    elif source.startswith(ADDRESSES["akamaster"]):
        names = list(CIFAR10_CLASSES)
    elif "://" in source and (variant_card(loaded.name)[0]["task"], count) in PUBLISHED_CLASSES:
        names = list(PUBLISHED_CLASSES[variant_card(loaded.name)[0]["task"], count])
    elif count == 1000:
        try:
            names, where = (
                read_class_names(fetch(IMAGENET_NAMES_URL, limit=MAX_NAMES_BYTES)),
                IMAGENET_NAMES_URL,
            )
        except (ValueError, OSError) as error:
            note = f"{error}; or say --classes FILE"
    else:
        note = f"{source} does not name its {count} classes: say --classes FILE"
    if names is None:
        return [f"class {index}" for index in range(count)], note
    if len(names) != count:
        raise ValueError(f"{where} names {len(names)} classes, where {loaded.name} has {count}")
    return names, note


def load_classifier(name: str | None, source: str, *, classes: str | None = None) -> Classifier:
    """Name of a variant, or None for the file's own, and its weights to what tells classes apart.

    `source` is what load_model takes, `classes` a file of names. ValueError for a model that does
    not classify.
    """
    return create_classifier(open_model(name, source), source, classes=classes)


def create_classifier(
    loaded: LoadedModel, source: str, *, classes: str | None = None
) -> Classifier:
    """open_classifier of what open_model has opened already."""
    model, channels = loaded.model, loaded.image[-1]
    task = variant_card(loaded.name)[0]["task"]
    labels = task in ("classification", "video")
    if not labels or not getattr(model, "num_classes", 0):
        why = "its weights have no head" if labels else f"its task is {task}"
        raise ValueError(f"{loaded.name} of {source} tells no classes apart: {why}")
    if task == "video" and (len(loaded.image) != 4 or channels not in (1, 3)):
        raise ValueError(
            f"{loaded.name} of {source} sees more than the colors of a clip, which files have: "
            "give it its maps or its flow in Python"
        )
    if channels not in (1, 3):
        raise ValueError(f"{source} is for images of {channels} channels, files have 1 or 3")
    names, note = resolve_class_names(loaded, source, classes)
    seen = loaded_preprocessing(loaded, source)
    if task == "video":
        seen = seen._replace(frames=loaded.image[0])
    cut = seen._replace(crop=1.0)  # images come resized and cut

    @jax.jit
    def probabilities(variables: Any, image: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, preprocess(image, cut))
        return jax.nn.softmax(outputs["logits"][0])

    apply = functools.partial(probabilities, unflatten_variables(loaded.variables))
    return Classifier(loaded.name, apply, seen, names, note)


def format_top_k(probabilities: np.ndarray, classes: Sequence[str], top: int) -> list[str]:
    """[K] and K names to a line for each of the `top` largest.

    >>> format_top_k(np.array([0.25, 0.75]), ["cat", "dog"], 5)
    ['   75.00 %  dog', '   25.00 %  cat']
    """
    order = np.argsort(-probabilities, kind="stable")[:top]
    plain = ["".join(c if c.isprintable() else " " for c in classes[index]) for index in order]
    return [f"  {100 * probabilities[i]:6.2f} %  {n}" for i, n in zip(order, plain, strict=True)]
