"""python -m train evaluate NAME --weights W --source S: how well weights do on labelled images."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optax
import tyro

from train import log, loop, parallel, plots
from train.data import Source, open_source
from train.run import Run
from train.tasks.classification import classification
from zoo.choice import choose
from zoo.preprocess import uncropped
from zoo.registry import variant
from zoo.weights.fit import unflatten
from zoo.weights.model_file import open_model, preprocessing_of

PARTS = ("test", "val", "train")  # which is taken where none is asked for


def evaluate(
    name: tyro.conf.Positional[str],
    /,
    *,
    weights: str,
    source: str,
    part: Literal["train", "val", "test"] | None = None,
    crops: Literal[1, 10] = 1,
    batch_size: int = 64,
    workdir: Path | None = None,
) -> dict[str, float]:
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
        log.closing_table(f"{loaded.name} on {data.name}, {part}; see {workdir}", figures)
    return figures


def check_classes(named: Any, count: int, data: Source, weights: str) -> None:
    """Raises ValueError where the weights' classes are not the data's, in their order."""
    theirs = list(named) if named else [""] * count
    if len(theirs) != len(data.classes) or (named and theirs != list(data.classes)):
        said = f"{len(theirs)} classes" + (f" ({', '.join(theirs[:3])}, ...)" if named else "")
        raise ValueError(
            f"{weights} tells apart {said}, {data.name} has {len(data.classes)} "
            f"({', '.join(data.classes[:3])}, ...): expected the same, in the same order"
        )


def command(words: Sequence[str]) -> int:
    """Words of the command line after `evaluate` -> exit code."""
    call = partial(tyro.cli, evaluate, args=list(words), prog="python -m train evaluate")
    call()
    return 0
