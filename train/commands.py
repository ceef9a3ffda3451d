"""The commands of `python -m train` beside the recipes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import optax
import tyro

from train import log, loop, neighbours, parallel, plots
from train.augment.gallery import gallery
from train.data import open_source
from train.data.arrays import Source
from train.data.photographs import photograph
from train.run import Run
from train.tasks.classification import classification
from zoo.choice import choose
from zoo.preprocess import uncropped
from zoo.registry import variant
from zoo.weights.fit import unflatten
from zoo.weights.model_file import open_model, preprocessing_of

PIXELS = 480  # side of the photograph in the gallery of augmentations
PARTS = ("test", "val", "train")  # which is evaluated where none is asked for


def augment_gallery(
    image: tyro.conf.Positional[Path], *, output: Path = Path("gallery.png"), seed: int = 0
) -> None:
    """Every augmentation of IMAGE, several draws of each, in one picture.

    Args:
        image: a photograph
        output: where the picture goes
        seed: of the draws
    """
    try:
        pixels = photograph(image, size=(PIXELS, PIXELS, 3))
    except ValueError as error:
        raise ValueError(f"{image} cannot be read ({error}); give a photograph") from error
    plots.save(gallery(pixels, key=jax.random.key(seed)), output)
    print(f"{output} shows every augmentation of {image}")


def nearest(
    source: tyro.conf.Positional[str],
    *,
    model: str | None = None,
    weights: str | None = None,
    distance: tuple[neighbours.Distance, ...] = ("l2",),
    k: tuple[int, ...] = (1, 5, 10, 20),
    size: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> None:
    """Accuracy of the nearest training images' classes, on pixels or on a model's features.

    Args:
        source: digits | idx:FOLDER | folder:FOLDER | tfds:NAME
        model: whose pooled features are compared; pixels without one
        weights: a file, a run's workdir or an address, of that model
        distance: l1, l2, cosine
        k: how many neighbours vote
        size: height, width, channels of the images [the model's]
        seed: of the split of a folder that has none
    """
    what, results = neighbours.accuracies(
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
    part: Literal["train", "val", "test"] | None = None,
    crops: Literal[1, 10] = 1,
    batch_size: int = 64,
    workdir: Path | None = None,
) -> None:
    """Top-1 and top-5 accuracy of weights on labelled images; what they confuse, class by class.

    Images are resized, cut and normalised as the weights' publisher does. Leaves evaluation.json,
    confusion.png, classes.csv and predictions.png in the workdir.

    Args:
        name: a name of `python -m zoo list`
        weights: torchvision://TAG | hf://ORG/REPO | FILE | RUN'S FOLDER
        source: data: digits | idx:FOLDER | folder:FOLDER | tfds:NAME
        part: of the source [test, else val, else train]
        crops: 10: the mean of corners, centre and their mirror images
        batch_size: images at a time over all devices
        workdir: where the figures go [runs/evaluate_NAME]
    """
    loaded = open_model(name, weights)
    if variant(loaded.name)[0]["task"] != "classification":
        raise ValueError(f"{loaded.name} is no classifier: evaluate takes classifiers")
    preprocessing = preprocessing_of(loaded, weights)
    parts = open_source(source, size=uncropped(preprocessing))
    part = part or next(known for known in PARTS if known in parts)
    data = choose(parts, part, what=f"part of {source}")
    check_classes(loaded.card.get("classes"), loaded.model.num_classes, data, weights)
    task = classification(preprocessing=preprocessing, classes=data.classes, crops=crops)
    run = Run(
        model=loaded.model,
        task=task,
        train=data,
        evaluate={part: data},
        optimizer=optax.identity(),
        epochs=1,
        batch_size=min(batch_size, len(data)),
    )
    layout = parallel.layout()
    variables = unflatten(loaded.variables)
    compiled = loop.compile_run(run, layout)
    measured = loop.measure(run, variables, data, compiled, layout)
    figures = {"images": len(data), **task.summarize(measured)}
    seen = loop.look(run, variables, compiled, layout)
    if parallel.is_main():
        workdir = workdir or Path("runs") / f"evaluate_{loaded.name}"
        workdir.mkdir(parents=True, exist_ok=True)
        for file, drawing in task.render(*seen, measured).items():
            plots.save(drawing, workdir / file)
        told = {"model": loaded.name, "weights": weights, "source": source, "part": part}
        plots.save(json.dumps({**told, "crops": crops, **figures}), workdir / "evaluation.json")
        shown = {f"{part}/{key}": value for key, value in figures.items() if key != "images"}
        log.closing_table(loaded.name, shown)
        print(f"of {len(data):,} images of {data.name}; {workdir} holds what it confuses")


def check_classes(named: Any, count: int, data: Source, weights: str) -> None:
    """Raises ValueError where the weights' classes are not the data's, in their order."""
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
