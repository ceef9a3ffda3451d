"""Detection with a weight file, on images of any size."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from zoo.canvas import Canvas, create_canvas, letterbox, normalize_canvas
from zoo.inference.classifier import resolve_class_names
from zoo.media.colormap import box_colormap
from zoo.weights.adapt import LoadedModel, unflatten_variables
from zoo.weights.model_file import loaded_preprocessing

DEFAULT_THRESHOLD = 0.3  # minimum score of a detection that is shown


class Detector(NamedTuple):
    """A detector with weights.

    Attributes:
        name: name of the variant.
        apply: function from a padded image [1, H, W, C] of uint8 and its size [1, 2] to outputs.
        canvas: canvas of an image that is wider than high.
        channels: channels of the input.
        threshold: minimum score.
        classes: K class names.
        palette: colors [K, 3].
        note: why the classes have no names, or empty.
    """

    name: str
    apply: Callable[[np.ndarray, np.ndarray], dict[str, jax.Array]]
    canvas: Canvas
    channels: int
    threshold: float
    classes: list[str]
    palette: np.ndarray
    note: str


class Detections(NamedTuple):
    """Boxes [n, 4] in pixels of the original image, scores [n] and labels [n], best first."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def create_detector(
    loaded: LoadedModel, source: str, *, classes: str | None = None, threshold: float | None = None
) -> Detector:
    """Creates a detector from a loaded model.

    Args:
        loaded: the loaded model.
        source: its source, for errors.
        classes: a file of class names.
        threshold: minimum score from 0 to 1.

    Returns:
        The detector.

    Raises:
        ValueError: if an option is invalid or the model has no head.
    """
    model, channels = loaded.model, loaded.image[-1]
    if not getattr(model, "num_classes", 0):
        raise ValueError(f"expected weights with a head for {loaded.name}, got none in {source}")
    if channels not in (1, 3):
        raise ValueError(
            f"expected a model of 1 or 3 channels for image files, got {channels} in {source}"
        )
    minimum = DEFAULT_THRESHOLD if threshold is None else threshold
    if not 0 <= minimum <= 1:
        raise ValueError(f"expected --threshold from 0 to 1, got {threshold}")
    names, note = resolve_class_names(loaded, source, classes)
    preprocessing = loaded_preprocessing(loaded, source)

    @jax.jit
    def outputs(variables: Any, image: jax.Array, size: jax.Array) -> dict[str, jax.Array]:
        raw: Any = model.apply(
            variables, normalize_canvas(image, size, preprocessing), {"size": size}
        )
        return {name: raw[name][0] for name in ("boxes", "scores", "labels", "valid")}

    canvas = create_canvas(preprocessing)
    return Detector(
        name=loaded.name,
        apply=functools.partial(outputs, unflatten_variables(loaded.variables)),
        canvas=canvas,
        channels=channels,
        threshold=minimum,
        classes=["".join(c if c.isprintable() else " " for c in name) for name in names],
        palette=box_colormap(len(names)),
        note=note,
    )


def detect(model: Detector, image: np.ndarray) -> Detections:
    """Detects objects in an image.

    The model is compiled once for landscape and once for portrait images; once for all if images
    are stretched or the canvas is square.

    Args:
        model: the detector.
        image: image [h, w, C] of uint8.

    Returns:
        Detections with at least the threshold's score.

    Raises:
        ValueError: if the image does not fit the canvas.
    """
    canvas = model.canvas
    if canvas.fit != "stretch" and image.shape[0] > image.shape[1]:
        canvas = canvas._replace(size=canvas.size[::-1])
    pixels, _, size, scale = letterbox(image, canvas)
    outputs = {k: np.asarray(v) for k, v in model.apply(pixels[None], size[None]).items()}
    boxes = outputs["boxes"].astype(np.float32) / scale[[1, 0, 1, 0]]
    boxes = np.clip(boxes, 0, np.array([*image.shape[1::-1]] * 2, np.float32))
    scores = outputs["scores"].astype(np.float32)
    is_shown = outputs["valid"] & (scores >= model.threshold) & np.isfinite(boxes).all(-1)
    return Detections(boxes[is_shown], scores[is_shown], outputs["labels"][is_shown].astype(int))


def format_detections(detections: Detections, classes: Sequence[str]) -> list[str]:
    """Formats detections, one per line: score, name and box in whole pixels.

    Args:
        detections: the detections.
        classes: class names.

    Returns:
        The lines.

    >>> box = Detections(np.array([[0, 2.6, 9, 30]]), np.array([0.5]), np.array([1]))
    >>> format_detections(box, ["cat", "dog"])
    ['   50.00 %  dog  0, 3 to 9, 30']
    """
    return [
        f"  {100 * score:6.2f} %  {classes[label]}  {x0:.0f}, {y0:.0f} to {x1:.0f}, {y1:.0f}"
        for (x0, y0, x1, y1), score, label in zip(*detections, strict=True)
    ]


def coco_image_ids(files: Sequence[str]) -> list[int | str]:
    """Returns COCO image ids: the numbers in the file names if unique, else the files as given.

    Args:
        files: image files.

    Returns:
        The ids.

    >>> coco_image_ids(["a/000139.jpg", "000285.jpg"]), coco_image_ids(["a/1.jpg", "b/1.jpg"])
    ([139, 285], ['a/1.jpg', 'b/1.jpg'])
    """
    stems = [pathlib.Path(file).stem for file in files]
    numbered = all(stem.isdecimal() and stem.isascii() for stem in stems)
    numbers: list[int | str] = [int(stem) for stem in stems] if numbered else []
    return numbers if len(set(numbers)) == len(files) else list(files)


def coco_results(detections: Detections, image_id: int | str) -> list[dict[str, Any]]:
    """Converts detections to rows of COCO's results format, with categories from 1.

    Args:
        detections: the detections.
        image_id: id of the image.

    Returns:
        The rows.

    >>> box = Detections(np.array([[1.0, 2.0, 4.0, 8.0]]), np.array([0.5]), np.array([0]))
    >>> coco_results(box, 7)
    [{'image_id': 7, 'category_id': 1, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]
    """
    rows = []
    for (x0, y0, x1, y1), score, label in zip(
        *(array.tolist() for array in detections), strict=True
    ):
        sides = [round(side, 3) for side in (x0, y0, x1 - x0, y1 - y0)]
        rows.append(
            dict(image_id=image_id, category_id=label + 1, bbox=sides, score=round(score, 5))
        )
    return rows
