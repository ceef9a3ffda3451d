"""python -m train RECIPE [--knob value ...] [--workdir DIR] [--parallel jit|pmap] ..."""

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
from train.data import cache_folder
from train.progress import DivergedError
from train.recipes import RECIPES

KNOBS = {
    "source": "data: digits | idx:FOLDER | folder:FOLDER | tfds:NAME | digit_scenes | voc:FOLDER | coco:FOLDER | moving_digits | ucf101:FOLDER | csv:FOLDER",
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
    "loss": "what is minimized",
    "noise": "standard deviation of the noise on the input, of gray values in [0, 1]",
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
    "splits": "which images of a folder train and judge: blocks as '0-19 / 20-24', or a fraction",
    "width": "channels of the first level or stage; None: as published",
    "depth": "times that a U-Net halves the image",
    "backbone": "the encoder, a name of `python -m zoo list`",
    "crop": "side of the parts that are trained on, in pixels",
    "crops_per_image": "parts of each image an epoch",
    "border_weight": "weight of the pixels between two cells; 0: as all others",
    "elastic_deviation": "deviation of the elastic deformation, in pixels; 0: none",
    "test_time_flips": "evaluate the mean over mirror images",
    "views": "clips and crops of each video whose scores evaluation averages",
    "spatial": "the network of the frame, a name of `python -m zoo list`",
    "temporal": "the network of the flow, a name of `python -m zoo list`",
    "flow": "how optical flow is computed: tvl1 (slow) | farneback | dis",
    "single_stage": "one training in place of three stages",
    "momentum": "share of the last step that goes on",
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


class UsageError(ValueError):
    """The words of the command line are off; the text is one line."""


def main(arguments: Sequence[str]) -> int:
    """Words of the command line -> exit code: 0, 1 (diverged) or 2 (bad input, said in one line)."""
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
    print(f"train: {error}", file=sys.stderr)
    return code


def format_overview() -> str:
    """What `python -m train --help` prints: every recipe with its first line."""
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
    return (inspect.getdoc(recipe) or "").split("\n", 1)[0]


def train_recipe(name: str, words: Sequence[str]) -> int:
    """Runs one recipe. Errors: Usage, and what the recipe and the loop say of bad input."""
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
    """Runs one of the commands beside the recipes. Errors: Usage, and what it says of bad input."""

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
    """Whether it calls the loop itself, and so takes `workdir` and `layout`."""
    return "workdir" in inspect.signature(recipe).parameters


def parse_knobs(name: str, recipe: Callable, words: Sequence[str]) -> tuple[dict[str, Any], Flags]:
    """Words -> the recipe's knobs, the loop's flags. Errors: Usage, in one line."""
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
    """Calls a parser; what it says of wrong words becomes a Usage of one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return call()
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(panel_to_line(printed.getvalue())) from None


def panel_to_line(panel: str) -> str:
    """The parser's panel of several lines -> its sentence and the names that it offers.

    >>> panel_to_line(" Title\\n -----\\n  Unrecognized options: --epocs\\n -----\\n  Perhaps ...\\n"
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
