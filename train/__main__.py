"""python -m train RECIPE [--knob value ...] [--workdir DIR] [--parallel jit|pmap] ..."""

import contextlib
import dataclasses
import difflib
import inspect
import io
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import jax
import tyro

from train import log, loop, neighbours, parallel, plots
from train.augment.gallery import gallery
from train.data import cache_folder
from train.data.photographs import photograph
from train.progress import Diverged
from train.recipes import RECIPES

PIXELS = 480  # side of the photograph in the gallery of augmentations
KNOBS = {
    "source": "data: digits | idx:FOLDER | folder:FOLDER | tfds:NAME",
    "model": "a name of `python -m zoo list`",
    "optimizer": "sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lamb, lars, lion, muon",
    "learning_rate": "the highest rate of the schedule",
    "weight_decay": "decay of kernels; biases and norms are left alone",
    "batch_size": "examples per step over all devices; all: full-batch descent",
    "epochs": "passes over the training data",
    "seed": "of the start, the order of the data and every draw",
    "pretrain_epochs": "passes over the training data for each layer before",
    "widths": "units of each layer",
    "activation": "of the hidden units: relu, tanh, sigmoid, ...",
    "dropout": "share of hidden units left out in training",
    "input_dropout": "share of pixels left out in training",
    "loss": "what is minimised",
    "noise": "standard deviation of the noise on the input, of grey values in [0, 1]",
    "image_size": "side of the images that the model gets, in pixels",
    "train_size": "the same in training",
    "magnitude": "of RandAugment's operations, 0 to 30",
    "stochastic_depth": "share of images that skip the last block in training",
    "weights": "torchvision://TAG | hf://ORG/REPO | FILE | RUN'S FOLDER | None: from scratch",
    "augmentation": "none | light: parts and flips | strong: TrivialAugment and erasing too",
    "mixup": "alpha of the Beta distribution; 0: none",
    "label_smoothing": "share of the label spread over all classes",
    "balance": "weigh classes by the inverse of their examples",
    "head_only": "train the last layer alone",
    "freeze": "patterns of whole parameter paths that stay: 'stem/.*' 'stage1_.*'",
    "layer_decay": "factor on the rate for each layer further from the head",
    "patience": "evaluations without a better result before the run stops early",
}


@dataclasses.dataclass(frozen=True)
class Flags:
    """Where and on what a recipe runs."""

    workdir: Annotated[
        Path | None, tyro.conf.arg(help="checkpoints, metrics, pictures, weights [runs/RECIPE]")
    ] = None
    parallel: Annotated[
        Literal["jit", "pmap"], tyro.conf.arg(help="one program over a mesh, or replicas")
    ] = "jit"
    devices: Annotated[int | None, tyro.conf.arg(help="simulate so many on the CPU")] = None
    shard: Annotated[
        Literal["fsdp"] | None, tyro.conf.arg(help="split the parameters over the devices too")
    ] = None


class Usage(ValueError):
    """The words of the command line are off; the text is one line."""


def main(arguments: Sequence[str]) -> int:
    """Words of the command line -> exit code: 0, 1 (diverged) or 2 (bad input, said in one line)."""
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(overview())
            return 0
        if arguments[0] in COMMANDS:
            return COMMANDS[arguments[0]](arguments[1:])
        return train(arguments[0], arguments[1:])
    except Diverged as error:
        return fail(error, code=1)
    except (ValueError, OSError) as error:
        if "\n" in str(error) or not str(error):  # not a sentence of ours: a defect, shown whole
            raise
        return fail(error, code=2)


def fail(error: Exception, *, code: int) -> int:
    print(f"train: {error}", file=sys.stderr)
    return code


def overview() -> str:
    """What `python -m train --help` prints: every recipe with its first line."""
    width = max(map(len, RECIPES))
    lines = [f"  {name:{width}}  {summary(recipe)}" for name, recipe in RECIPES.items()]
    return "\n".join(
        [
            "usage: python -m train RECIPE [--knob value ...] [--workdir DIR]",
            "",
            "Trains a recipe, or goes on with it where WORKDIR holds a part of it.",
            "",
            "recipes:",
            *lines,
            "",
            "python -m train RECIPE --help shows a recipe's knobs.",
            "python -m train augment-gallery IMAGE draws every augmentation into one picture.",
            "python -m train nearest SOURCE tells how far the nearest neighbours' classes carry.",
        ]
    )


def summary(recipe: Callable) -> str:
    return (inspect.getdoc(recipe) or "").split("\n", 1)[0]


def train(name: str, words: Sequence[str]) -> int:
    """Runs one recipe. Errors: Usage, and what the recipe and the loop say of bad input."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}?" if near else "see python -m train --help"
        raise Usage(f"there is no recipe {name!r}; {meant}")
    recipe = RECIPES[name]
    knobs, flags = parse(name, recipe, words)
    parallel.start(devices=flags.devices, compiled=cache_folder() / "compiled")
    log.show(speak=parallel.is_main())
    layout = parallel.layout(flags.parallel, shard=flags.shard)
    workdir = flags.workdir or Path("runs") / name
    if is_script(recipe):
        recipe(**knobs, workdir=workdir, layout=layout)
    else:
        loop.fit(recipe(**knobs), workdir, layout=layout, recipe=name, knobs=knobs)
    return 0


def augment_gallery(words: Sequence[str]) -> int:
    """Draws every augmentation of one photograph into a picture."""

    def draw(
        image: tyro.conf.Positional[Path], *, output: Path = Path("gallery.png"), seed: int = 0
    ):
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

    call = partial(tyro.cli, draw, args=list(words), prog="python -m train augment-gallery")
    in_one_line(call)
    return 0


def nearest(words: Sequence[str]) -> int:
    """Prints the accuracy of nearest neighbours for each distance and number of them."""

    def judge(
        source: tyro.conf.Positional[str],
        *,
        model: str | None = None,
        weights: str | None = None,
        distance: tuple[neighbours.Distance, ...] = ("l2",),
        k: tuple[int, ...] = (1, 5, 10, 20),
        size: tuple[int, int, int] | None = None,
        seed: int = 0,
    ):
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
        parallel.start(compiled=cache_folder() / "compiled")
        what, results = neighbours.accuracies(
            source,
            model=model,
            weights=weights,
            distances=distance,
            ks=k,
            size=size,
            seed=seed,
        )
        print(f"share of {what}:")
        print("  ".join(["distance", *(f"k={number:<5}" for number in k)]).rstrip())
        for name in distance:
            shares = [f"{100 * results[name, number]:5.2f} %" for number in k]
            print("  ".join([f"{name:8}", *shares]))

    call = partial(tyro.cli, judge, args=list(words), prog="python -m train nearest")
    in_one_line(call)
    return 0


COMMANDS = {"augment-gallery": augment_gallery, "nearest": nearest}


def is_script(recipe: Callable) -> bool:
    """Whether it calls the loop itself, and so takes `workdir` and `layout`."""
    return "workdir" in inspect.signature(recipe).parameters


def parse(name: str, recipe: Callable, words: Sequence[str]) -> tuple[dict[str, Any], Flags]:
    """Words -> the recipe's knobs, the loop's flags. Errors: Usage, in one line."""
    hints = get_type_hints(recipe)
    knobs = [
        (knob, Annotated[hints[knob], tyro.conf.arg(help=KNOBS.get(knob, ""))], parameter.default)
        for knob, parameter in inspect.signature(recipe).parameters.items()
        if knob not in ("workdir", "layout")
    ]
    command = dataclasses.make_dataclass(name, knobs, bases=(Flags,), frozen=True)
    command.__doc__ = inspect.getdoc(recipe)
    values = in_one_line(
        partial(tyro.cli, command, args=list(words), prog=f"python -m train {name}")
    )
    flags = Flags(
        **{field.name: getattr(values, field.name) for field in dataclasses.fields(Flags)}
    )
    return {knob: getattr(values, knob) for knob, *_ in knobs}, flags


def in_one_line(call: Callable) -> Any:
    """Calls a parser; what it says of wrong words becomes a Usage of one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return call()
    except SystemExit as stop:
        if not stop.code:
            raise
        raise Usage(one_line(printed.getvalue())) from None


def one_line(panel: str) -> str:
    """The parser's panel of several lines -> its sentence and the names that it offers.

    >>> one_line(" Title\\n -----\\n  Unrecognized options: --epocs\\n -----\\n  Perhaps ...\\n"
    ...          "   --epochs INT\\n     passes\\n -----\\n  For full helptext, ...")
    'Unrecognized options: --epocs; did you mean --epochs?'
    """
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*-{3,}", panel)]
    sentence = blocks[1] if len(blocks) > 1 else blocks[0]
    offered = re.findall(r"--[a-z0-9-]+", blocks[2]) if "Perhaps" in panel else []
    names = " or ".join(dict.fromkeys(offered))
    return sentence + (f"; did you mean {names}?" if names else "; --help shows the knobs")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
