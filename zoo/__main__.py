"""python -m zoo list | show NAME | predict NAME IMAGE ... --weights W | convert NAME SOURCE OUT"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from zoo import list_models, model_card, pictures
from zoo.convert import convert
from zoo.predict import Classifier, best, classifier, name_and_images
from zoo.registry import TASKS, variant
from zoo.segment import Segmenter, classes_of, segment, segmenter, shares
from zoo.show import facts, listing
from zoo.weights.model_file import open_model
from zoo.weights.sources import SOURCES

WEIGHTS = (
    "a file (safetensors, torch, npz or darknet), a run's folder, torchvision://TAG, hf://ORG/REPO or "
    "https://...; python -m zoo show NAME lists the published ones"
)


class Parser(argparse.ArgumentParser):
    """One line for a wrong command, as for any other mistake, instead of argparse's usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> Parser:
    """The command line."""
    whole = Parser(prog="python -m zoo", description="The models of the zoo.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    every = commands.add_parser(
        "list",
        help="a table of the models, with parameters, multiply-adds and input size",
        epilog="example: python -m zoo list 'lenet*' --task classification",
    )
    every.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="names to list, * for any letters, quoted against the shell (all of them)",
    )
    every.add_argument(
        "--task", metavar="TASK", help=f"only models of one task: {', '.join(TASKS)}"
    )
    one = commands.add_parser(
        "show",
        help="all that the card of one model says",
        epilog="example: python -m zoo show lenet5",
    )
    one.add_argument("name", metavar="NAME", help="a name that list prints")
    add_predict(commands)
    add_convert(commands)
    return whole


def add_predict(commands: Any) -> None:
    """The command `predict`."""
    command = commands.add_parser(
        "predict",
        help="the most probable classes of images by name, or of their pixels as a mask",
        usage="%(prog)s [-h] NAME IMAGE [IMAGE ...] --weights W [--classes FILE] [--top N] "
        "[--output FOLDER] [--tile N] [--flips] [--size N]",
        description="Prints a block of class names and probabilities for each image. Where the "
        "model segments, writes IMAGE_mask.png, whose values are the classes, and "
        "IMAGE_overlay.jpg, and prints the share of each class. An image that cannot be read is "
        "told in a line, the others are still predicted, and the exit code is 2.",
        epilog="example: python -m zoo predict resnet50 cat.jpg dog.png "
        "--weights torchvision://IMAGENET1K_V2",
    )
    command.add_argument(
        "words",
        nargs="+",
        metavar="NAME IMAGE ...",
        help="a name that list prints, which may be left out where the weights say it (a run's "
        f"do), then images: {', '.join(pictures.FORMATS)}",
    )
    command.add_argument("--weights", required=True, metavar="W", help=WEIGHTS)
    command.add_argument(
        "--classes",
        metavar="FILE",
        help="names of the classes: JSON (a list, or numbers and names) or text, one a line (those "
        "that the weights name, else ImageNet's for 1,000, downloaded once)",
    )
    command.add_argument(
        "--top", type=int, metavar="N", help="classification: classes to print for each image (5)"
    )
    masks = command.add_argument_group("segmentation")
    masks.add_argument("--output", metavar="FOLDER", help="where the files go (.)")
    masks.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="side of the parts in which an image goes through the model, which bounds the memory "
        "(the size that the weights were trained on)",
    )
    masks.add_argument(
        "--flips",
        action="store_true",
        default=None,
        help="the mean over the image and its mirror images, in four times the time",
    )
    masks.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="short side that images are resized to for the model, the mask keeping their own "
        "(published weights: their publisher's; others: not resized)",
    )


def add_convert(commands: Any) -> None:
    """The command `convert`."""
    command = commands.add_parser(
        "convert",
        help="weights of any kind to a safetensors file",
        description="Reads weights, accounts for every tensor and writes them as zoo.load_model "
        "takes them without being told more, or under a publisher's names.",
        epilog="example: python -m zoo convert resnet20 resnet20-12fca82f.th resnet20.safetensors",
    )
    command.add_argument("name", metavar="NAME", help="a name that list prints")
    command.add_argument("source", metavar="SOURCE", help=WEIGHTS)
    command.add_argument("out", metavar="OUT", help="the safetensors file to write")
    command.add_argument(
        "--to",
        metavar="PUBLISHER",
        help=f"names and layouts of one of {', '.join(SOURCES)}, or darknet's .weights",
    )
    command.add_argument(
        "--force", action="store_true", help="write over a file that is there already"
    )


OPTIONS = {"classification": ("top",), "segmentation": ("output", "tile", "flips", "size")}


def opened(name: str | None, given: argparse.Namespace) -> Classifier | Segmenter:
    """The model of the weights; ValueError for options that are another task's."""
    loaded = open_model(name, given.weights)
    task = variant(loaded.name)[0]["task"]
    for other, options in OPTIONS.items():
        for option in options:
            if other != task and task in OPTIONS and getattr(given, option) is not None:
                raise ValueError(f"--{option} is for {other}: {loaded.name} is for {task}")
    if task != "segmentation":
        return classifier(loaded, given.weights, classes=given.classes)
    return segmenter(
        loaded,
        given.weights,
        classes=given.classes,
        tile=given.tile,
        flips=bool(given.flips),
        short=given.size,
    )


def classify(model: Classifier, file: str, given: argparse.Namespace) -> list[str]:
    """An image to the lines of its most probable classes."""
    image = pictures.photograph(file, model.preprocessing)
    probabilities = np.asarray(model.apply(image[None]))
    return best(probabilities, model.classes, 5 if given.top is None else given.top)


def write_mask(model: Segmenter, file: str, stem: pathlib.Path) -> list[str]:
    """An image to the lines of its classes' shares, and to STEM_mask.png and STEM_overlay.jpg."""
    image = pictures.opened(file, "L" if model.channels == 1 else "RGB", lambda image: image)
    if model.resize is None:
        mask = segment(model, image, finish=classes_of)[..., 0]
    else:
        try:
            small = pictures.sized(image, model.resize)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        mask = pictures.enlarged_mask(segment(model, small), image.shape[:2])
    found = shares(mask, model.classes)
    drawn = pictures.overlay(image, mask, model.palette, found)
    files = [stem.with_name(f"{stem.name}_{end}") for end in ("mask.png", "overlay.jpg")]
    pictures.write(pictures.coloured(mask, model.palette), files[0])
    pictures.write(drawn, files[1])
    lines = [f"  {100 * share:6.2f} %  {name}" for _, share, name in found]
    return [f"  {', '.join(map(str, files))}", *lines]


def stems(files: Sequence[str], folder: pathlib.Path) -> list[pathlib.Path]:
    """Images to what the names of their files begin with, no two of which are one.

    >>> [stem.name for stem in stems(["a/1.png", "b/1.jpg", "2.png"], pathlib.Path("."))]
    ['1', '1_2', '2']
    """
    taken: dict[str, pathlib.Path] = {}
    for file in files:
        stem = pathlib.Path(file).stem
        names = [stem, *(f"{stem}_{number}" for number in range(2, len(files) + 2))]
        name = next(name for name in names if name not in taken)
        taken[name] = folder / name
    return list(taken.values())


def predict(given: argparse.Namespace) -> int:
    """Prints a block for each image; 2 if one of them could not be read."""
    if given.top is not None and given.top < 1:
        raise ValueError(f"--top is a number of classes from 1, got {given.top}")
    pictures.pillow()  # before the weights, which may be a download
    name, files = name_and_images(given.words)
    model = opened(name, given)
    if model.note:
        print(f"python -m zoo: {model.note}", file=sys.stderr)
    folder = pathlib.Path(given.output or ".")
    if isinstance(model, Segmenter):
        folder.mkdir(parents=True, exist_ok=True)
    code = 0
    for file, stem in zip(files, stems(files, folder), strict=True):
        try:
            if isinstance(model, Segmenter):
                lines = write_mask(model, file, stem)
            else:
                lines = classify(model, file, given)
        except ValueError as error:
            print(f"python -m zoo: {error}", file=sys.stderr)
            code = 2
            continue
        print("\n".join([file, *lines]), flush=True)
    return code


def run(given: argparse.Namespace) -> int:
    """A command to its exit code; ValueError or OSError of one line for a user's mistake."""
    if given.command == "predict":
        return predict(given)
    if given.command == "convert":
        lines = convert(given.name, given.source, given.out, to=given.to, force=given.force)
        print("\n".join(lines))
    elif given.command == "show":
        print(facts(model_card(given.name)))
    else:
        names = list_models(given.pattern, task=given.task)
        if not names:
            kind = f" for {given.task}" if given.task else ""
            raise ValueError(f"no model{kind} matches {given.pattern!r}: see python -m zoo list")
        print(listing([model_card(name) for name in names]))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Arguments to an exit code: 0, or 2 after one line that says what is wrong."""
    given = parser().parse_args(arguments)
    try:
        return run(given)
    except (ValueError, OSError) as error:
        print(f"python -m zoo: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
