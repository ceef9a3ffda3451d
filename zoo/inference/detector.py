"""A detector out of a weights file, and boxes in pictures of any size."""

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

DEFAULT_THRESHOLD = 0.3  # score of a detection that is shown, where none is said


class Detector(NamedTuple):
    """`apply` takes canvases [1, H, W, C] uint8 and sizes [1, 2] of the pictures on them to outputs.

    `canvas` is that of a picture that is wider than high; `classes` are the names of its K,
    `palette` [K, 3] their colors, and `note` says why they have no names, or is empty. What
    scores less than `threshold` is left out.
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
    """Boxes [n, 4] in the picture's own pixels, their scores [n] and labels [n], the best first."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def create_detector(
    loaded: LoadedModel, source: str, *, classes: str | None = None, threshold: float | None = None
) -> Detector:
    """What open_model has opened of `source`, which detects, to a Detector.

    `classes` is a file of names, `threshold` a score from 0 to 1. ValueError for one of these that
    cannot be, and for a model of no use.
    """
    model, channels = loaded.model, loaded.image[-1]
    if not getattr(model, "num_classes", 0):
        raise ValueError(f"{loaded.name} of {source} finds nothing: its weights have no head")
    if channels not in (1, 3):
        raise ValueError(f"{source} is for images of {channels} channels, files have 1 or 3")
    least = DEFAULT_THRESHOLD if threshold is None else threshold
    if not 0 <= least <= 1:
        raise ValueError(f"--threshold is a score from 0 to 1, got {threshold}")
    names, note = resolve_class_names(loaded, source, classes)
    seen = loaded_preprocessing(loaded, source)

    @jax.jit
    def outputs(variables: Any, image: jax.Array, size: jax.Array) -> dict[str, jax.Array]:
        whole: Any = model.apply(variables, normalize_canvas(image, size, seen), {"size": size})
        return {name: whole[name][0] for name in ("boxes", "scores", "labels", "valid")}

    canvas = create_canvas(seen)
    return Detector(
        name=loaded.name,
        apply=functools.partial(outputs, unflatten_variables(loaded.variables)),
        canvas=canvas,
        channels=channels,
        threshold=least,
        classes=["".join(c if c.isprintable() else " " for c in name) for name in names],
        palette=box_colormap(len(names)),
        note=note,
    )


def detect(model: Detector, image: np.ndarray) -> Detections:
    """uint8 [h, w, C], of any size -> what is found in it, from the threshold on.

    Compiled once for pictures that are wider than high and once for the others; where pictures are
    stretched, or the canvas is square, once for all. ValueError for one that does not fit.
    """
    canvas = model.canvas
    if canvas.fit != "stretch" and image.shape[0] > image.shape[1]:
        canvas = canvas._replace(size=canvas.size[::-1])
    pixels, _, size, scale = letterbox(image, canvas)
    whole = {k: np.asarray(v) for k, v in model.apply(pixels[None], size[None]).items()}
    boxes = whole["boxes"].astype(np.float32) / scale[[1, 0, 1, 0]]
    boxes = np.clip(boxes, 0, np.array([*image.shape[1::-1]] * 2, np.float32))
    scores = whole["scores"].astype(np.float32)
    kept = whole["valid"] & (scores >= model.threshold) & np.isfinite(boxes).all(-1)
    return Detections(boxes[kept], scores[kept], whole["labels"][kept].astype(int))


def format_detections(detections: Detections, classes: Sequence[str]) -> list[str]:
    """What is found, one line for each: score, name and box, in whole pixels.

    >>> format_detections(Detections(np.array([[0, 2.6, 9, 30]]), np.array([0.5]), np.array([1])), ["cat", "dog"])
    ['   50.00 %  dog  0, 3 to 9, 30']
    """
    return [
        f"  {100 * score:6.2f} %  {classes[label]}  {x0:.0f}, {y0:.0f} to {x1:.0f}, {y1:.0f}"
        for (x0, y0, x1, y1), score, label in zip(*detections, strict=True)
    ]


def coco_image_ids(files: Sequence[str]) -> list[int | str]:
    """Files -> how COCO calls them: the numbers that they are named by, else the files as given.

    >>> coco_image_ids(["a/000139.jpg", "000285.jpg"]), coco_image_ids(["a/1.jpg", "b/1.jpg"])
    ([139, 285], ['a/1.jpg', 'b/1.jpg'])
    """
    stems = [pathlib.Path(file).stem for file in files]
    numbered = all(stem.isdecimal() and stem.isascii() for stem in stems)
    numbers: list[int | str] = [int(stem) for stem in stems] if numbered else []
    return numbers if len(set(numbers)) == len(files) else list(files)


def coco_results(detections: Detections, image_id: int | str) -> list[dict[str, Any]]:
    """What is found -> rows of COCO's results format; categories are 1 to K.

    >>> box = Detections(np.array([[1.0, 2.0, 4.0, 8.0]]), np.array([0.5]), np.array([0]))
    >>> coco_results(box, 7)
    [{'image_id': 7, 'category_id': 1, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]
    """
    rows = []
    for (x0, y0, x1, y1), score, label in zip(*(part.tolist() for part in detections), strict=True):
        sides = [round(side, 3) for side in (x0, y0, x1 - x0, y1 - y0)]
        rows.append(
            dict(image_id=image_id, category_id=label + 1, bbox=sides, score=round(score, 5))
        )
    return rows
