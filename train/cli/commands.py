"""The commands of `python -m train` other than the recipes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import optax
import tyro

from train import knn, log, loop, parallel, plots
from train.augment.gallery import draw_gallery
from train.data import open_boxes, open_clips, open_masks, open_source
from train.data.image_files import read_image
from train.data.source import Source
from train.run import Run
from train.task import Task
from train.tasks.classification import classification, mistakes_csv
from train.tasks.detection import Metric, detection
from train.tasks.segmentation import segmentation
from train.tasks.video import video
from zoo.canvas import create_canvas
from zoo.inference import tiling
from zoo.inference.classifier import resolve_class_names
from zoo.lookup import lookup
from zoo.preprocess import Preprocessing, uncropped_size
from zoo.registry import variant_card
from zoo.weights.adapt import LoadedModel, unflatten_variables
from zoo.weights.model_file import loaded_preprocessing, open_model

GALLERY_PIXELS = 480  # side of the photograph in the gallery of augmentations
EVAL_BATCH_SIZES = {
    "classification": 64,
    "segmentation": 64,
    "detection": 8,
    "video": 8,
}  # images per step
SPLIT_ORDER = ("test", "val", "train")  # the first split of the source is evaluated by default


def augment_gallery(
    image: tyro.conf.Positional[Path], *, output: Path = Path("gallery.png"), seed: int = 0
) -> None:
    """Draws several random examples of every augmentation of an image in one figure.

    Args:
        image: a photograph
        output: the image file to write
        seed: seed of the random numbers
    """
    try:
        pixels = read_image(image, size=(GALLERY_PIXELS, GALLERY_PIXELS, 3))
    except ValueError as error:
        raise ValueError(f"{image} cannot be read ({error}); give a photograph") from error
    plots.save_plot(draw_gallery(pixels, key=jax.random.key(seed)), output)
    print(f"{output} shows every augmentation of {image}")


def nearest(
    source: tyro.conf.Positional[str],
    *,
    model: str | None = None,
    weights: str | None = None,
    distance: tuple[knn.Distance, ...] = ("l2",),
    k: tuple[int, ...] = (1, 5, 10, 20),
    size: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> None:
    """Measures the accuracy of nearest neighbors on pixels or on the features of a model.

    Args:
        source: digits | idx:FOLDER | folder:FOLDER | tfds:NAME
        model: model whose pooled features are compared (default: pixels)
        weights: weights of the model: a file, the folder of a run, or an address
        distance: l1, l2, cosine
        k: numbers of neighbors
        size: height, width and channels of the images (default: those of the model)
        seed: seed that splits a folder without splits
    """
    what, results = knn.knn_report(
        source, model=model, weights=weights, distances=distance, ks=k, size=size, seed=seed
    )
    print(f"share of {what}:")
    print("  ".join(["distance", *(f"k={number:<5}" for number in k)]).rstrip())
    for name in distance:
        shares = [f"{100 * results[name, number]:5.2f} %" for number in k]
        print("  ".join([f"{name:8}", *shares]))


def evaluate(
    name: tyro.conf.Positional[str],
    *,
    weights: str,
    source: str,
    split: Literal["train", "val", "test"] | None = None,
    crops: Literal[1, 10] = 1,
    views: tuple[int, int] = (1, 1),
    values: tuple[int, ...] | None = None,
    ignore: int | None = None,
    splits: str | None = None,
    size: tuple[int, int, int] | None = None,
    margin: int = 0,
    flips: bool = False,
    membrane: int | None = None,
    metric: Metric = "voc",
    batch_size: int | None = None,
    workdir: Path | None = None,
) -> None:
    """Evaluates weights on a data set.

    Classifiers of images and clips are measured by top-1 and top-5 accuracy, with the preprocessing
    of the publisher of the weights. Segmenters are measured by accuracy, IoU and Dice on images of
    their original size. Detectors are measured by average precision on the canvas of the weights.
    The command writes evaluation.json, classes.csv, predictions.png, and confusion.png or
    precision_recall.png to the work directory. For image classifiers it also writes mistakes.csv,
    with the least likely label first; with --split train, these are probable label errors.

    Args:
        name: model name, as printed by `python -m zoo list`
        weights: torchvision://TAG | hf://ORG/REPO | FILE | folder of a run
        source: classification: digits | idx:FOLDER | folder:FOLDER | tfds:NAME; segmentation: also
            digit_scenes, voc:, coco:; detection: digit_scenes | folder: | tfds:; video:
            moving_digits | folder: | csv: | ucf101: | tfds:
        split: split of the source (default: test, else val, else train)
        crops: classification: 10 averages the corners, the center and their mirror images
        views: video: clips per video and crops per clip that are averaged, e.g. 10 3
        values: segmentation: pixel value of each class (default: the class index)
        ignore: segmentation: value of pixels without a class, in addition to 255
        splits: segmentation, detection: training and validation images of a folder without
            splits, e.g. "0-19 / 20-24"
        size: segmentation: height, width and channels to which images are resized; detection:
            size of the canvas
        margin: segmentation: mirrored pixels on every side, for valid convolutions
        flips: segmentation: average over mirrored images
        membrane: segmentation: which of two classes is the border of cells, for the Rand and
            information scores of ISBI 2012
        metric: detection: voc for IoU 0.5, by area and 11 points; coco for its twelve metrics
        batch_size: images per step over all devices (default: 64, detection and video 8)
        workdir: output folder (default: runs/evaluate_NAME)
    """
    meant = {"values": values, "ignore": ignore, "splits": splits, "size": size}
    how = {"crops": crops, "views": views, "margin": margin, "flips": flips}
    how |= {"membrane": membrane, "metric": metric}
    loaded = open_model(name, weights)
    task_of, sources, knobs = open_evaluation(loaded, weights, source, options=meant, keywords=how)
    split = split or next(known for known in SPLIT_ORDER if known in sources)
    data = lookup(sources, split, kind=f"split of {source}")
    check_class_names(loaded.card.get("classes"), loaded.model.num_classes, data, weights)
    told = {"model": loaded.name, "weights": weights, "source": source, "split": split, **knobs}
    folder = workdir or Path("runs") / f"evaluate_{loaded.name}"
    rows = batch_size or EVAL_BATCH_SIZES[variant_card(loaded.name)[0]["task"]]
    evaluate_model(loaded, task_of(data), data, card=told, batch_size=rows, workdir=folder)


def open_evaluation(
    loaded: LoadedModel, weights: str, source: str, *, options: dict, keywords: dict
) -> tuple[Callable[[Any], Task], Any, dict[str, Any]]:
    """Returns the builder of the task, the splits of the source, and the options that apply."""
    kind = variant_card(loaded.name)[0]["task"]
    if kind not in EVAL_BATCH_SIZES:
        raise ValueError(
            f"{loaded.name} is for {kind}: evaluate takes {', '.join(EVAL_BATCH_SIZES)}"
        )
    seen = loaded_preprocessing(loaded, weights)
    if kind == "classification":
        sources = open_source(source, size=uncropped_size(seen))
        build = partial(classification, preprocessing=seen, crops=keywords["crops"])
        return lambda data: build(classes=data.classes), sources, {"crops": keywords["crops"]}
    if kind == "video":
        sources, task_of = open_eval_clips(loaded, seen, source, views=keywords["views"])
        return task_of, sources, {"views": keywords["views"]}
    if kind == "detection":
        boxes = partial(detection, preprocessing=seen, loss=zero_loss, truth=True)
        task_of = lambda data: boxes(classes=data.classes, metric=keywords["metric"])
        sources = open_eval_boxes(
            loaded, weights, source, splits=options["splits"], size=options["size"]
        )
        return task_of, sources, {"metric": keywords["metric"]}
    flips = tiling.average_flips if keywords["flips"] else None
    rest = {"margin": keywords["margin"], "membrane": keywords["membrane"]}
    masks = partial(segmentation, preprocessing=seen, **rest, predict=flips)
    task_of = lambda data: masks(classes=data.classes, palette=data.palette)
    return task_of, open_eval_masks(loaded, source, **options), {**rest, "flips": keywords["flips"]}


def open_eval_clips(
    loaded: LoadedModel, seen: Preprocessing, source: str, *, views: tuple[int, int]
) -> tuple[Any, Callable[[Any], Task]]:
    """Returns the splits of the source and the builder of the task."""
    if len(loaded.image) != 4 or loaded.image[-1] not in (1, 3):
        raise ValueError(f"{loaded.name} sees more than the clip, or less: see its recipe")
    sources = open_clips(source, seen, views=views)
    whole = seen if views[1] == 1 else seen._replace(size=uncropped_size(seen)[:2], crop=1.0)
    return sources, lambda data: video(preprocessing=whole, classes=data.classes)


def zero_loss(outputs: Any, batch: Any) -> dict[str, jax.Array]:
    """Returns a loss of zero, since evaluation measures boxes alone."""
    return {}


def open_eval_boxes(
    loaded: LoadedModel,
    weights: str,
    source: str,
    *,
    splits: str | None,
    size: tuple[int, int, int] | None,
) -> Any:
    """Returns the splits of the source on the canvas of the weights."""
    seen = loaded_preprocessing(loaded, weights)
    if size is not None:
        seen = seen._replace(size=size[:2])
    elif seen.sides is not None and "://" in weights:
        seen = seen._replace(size=(max(seen.size), max(seen.size)))
    names, unnamed = resolve_class_names(loaded, weights, None)
    own = unnamed or source == "digit_scenes"
    channels = loaded.image[-1]
    return open_boxes(
        source,
        canvas=create_canvas(seen),
        classes=None if own else names,
        channels=channels,
        splits=splits,
    )


def open_eval_masks(loaded: LoadedModel, source: str, **meant: Any) -> Any:
    """Returns the splits of the source, with the class names of the weights where it has none."""
    if source.partition(":")[0] in ("folder", "tfds") and loaded.card.get("classes"):
        meant["classes"] = tuple(loaded.card["classes"])
    return open_masks(source, **meant)


def evaluate_model(
    loaded: LoadedModel,
    task: Task,
    data: Source,
    *,
    card: dict[str, Any],
    batch_size: int,
    workdir: Path,
) -> None:
    """Measures a source and writes the results with `card` to evaluation.json."""
    split = card["split"]
    run = Run(
        model=loaded.model,
        task=task,
        train=data,
        evaluate={split: data},
        optimizer=optax.identity(),
        epochs=1,
        batch_size=min(batch_size, len(data)),
    )
    layout = parallel.create_layout()
    variables = unflatten_variables(loaded.variables)
    compiled = loop.compile_run(run, layout)
    measured = loop.measure_source(run, variables, data, compiled, layout)
    figures = {"images": len(data), **task.summarize(measured)}
    seen = loop.sample_for_plots(run, variables, compiled, layout)
    if parallel.is_main():
        workdir.mkdir(parents=True, exist_ok=True)
        for file, drawing in task.render(*seen, measured).items():
            plots.save_plot(drawing, workdir / file)
        if variant_card(loaded.name)[0]["task"] == "classification":
            listed = mistakes_csv(measured, data.classes, getattr(data, "files", None))
            plots.save_plot(listed, workdir / "mistakes.csv")
        plots.save_plot(json.dumps({**card, **figures}), workdir / "evaluation.json")
        shown = {f"{split}/{key}": value for key, value in figures.items() if key != "images"}
        log.print_summary(loaded.name, shown)
        what = "views" if variant_card(loaded.name)[0]["task"] == "video" else "images"
        print(f"of {len(data):,} {what} of {data.name}; {workdir} holds what it confuses")


def check_class_names(named: Any, count: int, data: Source, weights: str) -> None:
    """Raises ValueError if weights and data have different classes or another order of them."""
    theirs = list(named) if named else [""] * count
    if len(theirs) != len(data.classes) or (named and theirs != list(data.classes)):
        said = f"{len(theirs)} classes" + (f" ({', '.join(theirs[:3])}, ...)" if named else "")
        raise ValueError(
            f"{weights} tells apart {said}, {data.name} has {len(data.classes)} "
            f"({', '.join(data.classes[:3])}, ...): expected the same, in the same order"
        )


COMMANDS: dict[str, Callable[..., Any]] = {
    "evaluate": evaluate,
    "nearest": nearest,
    "augment-gallery": augment_gallery,
}
