"""Entry point of `python -m train RECIPE [--OPTION VALUE ...]`, and of its other commands."""

import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from train import log, loop, parallel
from train.cli.commands import COMMANDS
from train.progress import DivergedError
from train.recipes import RECIPES
from zoo.files import cache_folder

KNOBS = {
    "source": "data: digits | idx:FOLDER | folder:FOLDER | tfds:NAME | digit_scenes | voc:FOLDER | "
    "coco:FOLDER | moving_digits | ucf101:FOLDER | csv:FOLDER",
    "model": "model name, as printed by `python -m zoo list`",
    "optimizer": "sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lamb, lars, lion, muon",
    "learning_rate": "highest learning rate of the schedule",
    "weight_decay": "weight decay of kernels; biases and normalization layers have none",
    "batch_size": "examples per step over all devices; all: the whole training set",
    "epochs": "passes over the training data",
    "seed": "seed of the initialization, the data order and all random numbers",
    "pretrain_epochs": "passes over the training data to pretrain each layer",
    "widths": "units of each layer",
    "activation": "activation of the hidden units: relu, tanh, sigmoid, ...",
    "dropout": "dropout rate of the hidden units",
    "input_dropout": "dropout rate of the pixels",
    "loss": "the loss",
    "noise": "standard deviation of the input noise, for values in [0, 1]",
    "image_size": "image size of the model, in pixels",
    "train_size": "image size in training, in pixels",
    "magnitude": "magnitude of RandAugment, 0 to 30",
    "stochastic_depth": "stochastic depth rate of the last block",
    "weights": "torchvision://TAG | hf://ORG/REPO | FILE | folder of a run | None: random weights",
    "augmentation": "none | light: crops and flips | strong: also TrivialAugment and erasing",
    "mixup": "alpha of the Beta distribution of mixup; 0: no mixup",
    "label_smoothing": "share of the label that is distributed over all classes",
    "balance": "weight classes by the inverse of their frequency",
    "head_only": "train the last layer only",
    "freeze": "patterns of parameter paths to freeze: 'stem/.*' 'stage1_.*'",
    "layer_decay": "factor of the learning rate for each layer further from the head",
    "splits": "training and validation images of a folder: '0-19 / 20-24', or a fraction",
    "width": "channels of the first level or stage; None: the published number",
    "depth": "number of times that a U-Net halves the image",
    "backbone": "encoder, as printed by `python -m zoo list`",
    "crop": "side of the training crops, in pixels",
    "crops_per_image": "crops of each image per epoch",
    "border_weight": "extra weight of the pixels between two cells; 0: none",
    "elastic_deviation": "standard deviation of the elastic deformation, in pixels; 0: none",
    "test_time_flips": "evaluate the mean over mirrored images",
    "views": "clips and crops per video whose scores are averaged in evaluation",
    "spatial": "network of the frames, as printed by `python -m zoo list`",
    "temporal": "network of the flow, as printed by `python -m zoo list`",
    "flow": "algorithm of the optical flow: tvl1 (slow) | farneback | dis",
    "single_stage": "train all stages at once",
    "momentum": "momentum of the optimizer",
    "patience": "evaluations without a better result before the run stops early",
}


@dataclasses.dataclass(frozen=True)
class Flags:
    """Options of the loop, which every recipe has."""

    workdir: Annotated[Path | None, tyro.conf.arg(help="output folder (default: runs/RECIPE)")] = (
        None
    )
    parallel: Annotated[
        Literal["jit", "pmap"],
        tyro.conf.arg(help="compile one program for all devices, or one per device"),
    ] = "jit"
    devices: Annotated[int | None, tyro.conf.arg(help="number of CPU devices to simulate")] = None
    shard: Annotated[
        Literal["fsdp"] | None, tyro.conf.arg(help="shard the parameters over the devices")
    ] = None


class UsageError(ValueError):
    """The command line is invalid; the message is one line."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
        arguments: words of the command line.

    Returns:
        0, 1 if the training diverged, or 2 after one line that describes invalid input.
    """
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(format_overview())
            return 0
        if arguments[0] in COMMANDS:
            return run_command(arguments[0], arguments[1:])
        return train_recipe(arguments[0], arguments[1:])
    except DivergedError as error:
        return print_error(error, code=1)
    except (ValueError, OSError) as error:
        if "\n" in str(error) or not str(error):  # not a sentence of ours: a defect, shown whole
            raise
        return print_error(error, code=2)


def print_error(error: Exception, *, code: int) -> int:
    """Prints an error in one line and returns the exit code."""
    print(f"train: {error}", file=sys.stderr)
    return code


def format_overview() -> str:
    """Formats the help of `python -m train`: every recipe with its summary."""
    width = max(map(len, [*RECIPES, *COMMANDS]))
    lines = [f"  {name:{width}}  {summary_line(recipe)}" for name, recipe in RECIPES.items()]
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
            "",
            "commands, each with --help:",
            *(f"  {name:{width}}  {summary_line(command)}" for name, command in COMMANDS.items()),
        ]
    )


def summary_line(recipe: Callable) -> str:
    """Returns the summary of a recipe."""
    return (inspect.getdoc(recipe) or "").split("\n", 1)[0]


def train_recipe(name: str, words: Sequence[str]) -> int:
    """Runs a recipe.

    Args:
        name: name of the recipe.
        words: words of the command line after the name.

    Returns:
        The exit code.

    Raises:
        UsageError: if the command line is invalid.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}?" if near else "see python -m train --help"
        raise UsageError(f"there is no recipe {name!r}; {meant}")
    recipe = RECIPES[name]
    knobs, flags = parse_knobs(name, recipe, words)
    parallel.setup_devices(devices=flags.devices, compile_cache=cache_folder() / "compiled")
    log.setup_logging(speak=parallel.is_main())
    layout = parallel.create_layout(flags.parallel, shard=flags.shard)
    workdir = flags.workdir or Path("runs") / name
    if is_script(recipe):
        recipe(**knobs, workdir=workdir, layout=layout)
    else:
        loop.fit(recipe(**knobs), workdir, layout=layout, recipe=name, knobs=knobs)
    return 0


def run_command(name: str, words: Sequence[str]) -> int:
    """Runs a command that is not a recipe.

    Args:
        name: name of the command.
        words: words of the command line after the name.

    Returns:
        The exit code.

    Raises:
        UsageError: if the command line is invalid.
    """

    @functools.wraps(COMMANDS[name])
    def later(*arguments: Any, **keywords: Any) -> Callable:
        return partial(COMMANDS[name], *arguments, **keywords)

    prog = f"python -m train {name}"
    call = parse_or_raise(partial(tyro.cli, later, args=list(words), prog=prog))
    parallel.setup_devices(compile_cache=cache_folder() / "compiled")
    log.setup_logging(speak=parallel.is_main())
    call()
    return 0


def is_script(recipe: Callable) -> bool:
    """Returns whether a recipe calls the loop itself, and thus takes `workdir` and `layout`."""
    return "workdir" in inspect.signature(recipe).parameters


def parse_knobs(name: str, recipe: Callable, words: Sequence[str]) -> tuple[dict[str, Any], Flags]:
    """Parses the options of a recipe and of the loop.

    Args:
        name: name of the recipe.
        recipe: the recipe.
        words: words of the command line after the name.

    Returns:
        Options of the recipe by name, and options of the loop.

    Raises:
        UsageError: if the command line is invalid.
    """
    hints = get_type_hints(recipe)
    knobs = [
        (knob, Annotated[hints[knob], tyro.conf.arg(help=KNOBS.get(knob, ""))], parameter.default)
        for knob, parameter in inspect.signature(recipe).parameters.items()
        if knob not in ("workdir", "layout")
    ]
    command = dataclasses.make_dataclass(name, knobs, bases=(Flags,), frozen=True)
    command.__doc__ = inspect.getdoc(recipe)
    values = parse_or_raise(
        partial(tyro.cli, command, args=list(words), prog=f"python -m train {name}")
    )
    flags = Flags(
        **{field.name: getattr(values, field.name) for field in dataclasses.fields(Flags)}
    )
    return {knob: getattr(values, knob) for knob, *_ in knobs}, flags


def parse_or_raise(call: Callable) -> Any:
    """Calls a parser and converts its error to a UsageError of one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return call()
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(panel_to_line(printed.getvalue())) from None


def panel_to_line(panel: str) -> str:
    r"""Converts the error panel of the parser to one line with the suggested names.

    >>> panel_to_line(" Title\n -----\n  Unrecognized options: --epocs\n -----\n  Perhaps ...\n"
    ...          "   --epochs INT\n     passes\n -----\n  For full helptext, ...")
    'Unrecognized options: --epocs; did you mean --epochs?'
    """
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*-{3,}", panel)]
    sentence = blocks[1] if len(blocks) > 1 else blocks[0]
    offered = re.findall(r"--[a-z0-9-]+", blocks[2]) if "Perhaps" in panel else []
    names = " or ".join(dict.fromkeys(offered))
    return sentence + (f"; did you mean {names}?" if names else "; --help shows the knobs")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
