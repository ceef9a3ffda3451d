"""python -m zoo list | show NAME | predict NAME IMAGE ... --weights W | convert NAME SOURCE OUT"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from zoo import list_models, model_card
from zoo.choice import choose
from zoo.convert import convert
from zoo.predict import best, name_and_images, open_classifier
from zoo.preprocess import Preprocessing, centre, resized
from zoo.registry import TASKS
from zoo.show import facts, listing
from zoo.weights.sources import SOURCES

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
LARGEST = 89_478_485  # pixels, Pillow's own bound against decompression bombs: 256 MiB of RGB
WEIGHTS = (
    "a file (safetensors, torch or npz), a run's folder, torchvision://TAG, hf://ORG/REPO or "
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
        help="the most probable classes of images, by name",
        usage="%(prog)s [-h] NAME IMAGE [IMAGE ...] --weights W [--top N] [--classes FILE]",
        description="Prints a block of class names and probabilities for each image. An image that "
        "cannot be read is told in a line, the others are still predicted, and the exit code is 2.",
        epilog="example: python -m zoo predict resnet50 cat.jpg dog.png "
        "--weights torchvision://IMAGENET1K_V2",
    )
    command.add_argument(
        "words",
        nargs="+",
        metavar="NAME IMAGE ...",
        help="a name that list prints, which may be left out where the weights say it (a run's "
        f"do), then images: {', '.join(FORMATS)}",
    )
    command.add_argument("--weights", required=True, metavar="W", help=WEIGHTS)
    command.add_argument(
        "--top", type=int, default=5, metavar="N", help="classes to print for each image (5)"
    )
    command.add_argument(
        "--classes",
        metavar="FILE",
        help="names of the classes: JSON (a list, or numbers and names) or text, one a line (those "
        "that the weights name, else ImageNet's for 1,000, downloaded once)",
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
        "--to", metavar="PUBLISHER", help=f"names and layouts of one of {', '.join(SOURCES)}"
    )
    command.add_argument(
        "--force", action="store_true", help="write over a file that is there already"
    )


def pillow() -> tuple[Any, Any]:
    """Pillow's Image and ImageOps; ValueError where it is not installed."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ValueError(
            "images are read by Pillow, which is not installed: pip install 'flax-zoo[predict]'"
        ) from error
    return Image, ImageOps


def flat(image: Any, mode: str) -> Any:
    """The image in `mode` "L" or "RGB": 16 bits become 8, transparent pixels white."""
    Image, _ = pillow()
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips at 255
        values = np.asarray(image).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def photograph(file: str, preprocessing: Preprocessing) -> np.ndarray:
    """An image file to uint8 [h, w, C], as `preprocessing` resizes and cuts it.

    Upright as its EXIF says, on white where it is transparent, grey or RGB. Resized here, so that
    photographs of any shape are of one for the model. ValueError in one line, whatever is wrong
    with the file.
    """
    Image, ImageOps = pillow()
    size, mode = preprocessing.size, "L" if len(preprocessing.mean) == 1 else "RGB"
    methods = {name.lower(): method for name, method in Image.Resampling.__members__.items()}
    method = choose(methods, preprocessing.interpolation, what="interpolation")
    if not os.path.isfile(file):
        raise ValueError(f"no file {file}: expected an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # told below
            image = Image.open(file, formats=FORMATS)
        with image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels are more than {LARGEST:,}")
            whole = flat(ImageOps.exif_transpose(image), mode)
            large = resized((whole.height, whole.width), preprocessing)
            if large[0] * large[1] > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels are too long and thin")
            top, left = centre(large, size)
            cut = whole.resize(large[::-1], method)
            cut = cut.crop((left, top, left + size[1], top + size[0]))
    except Exception as error:  # each of Pillow's decoders has its own: OSError, SyntaxError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        if type(error).__name__ == "UnidentifiedImageError":
            reason = f"no image of a known kind: expected {', '.join(FORMATS)}"
        raise ValueError(f"{file}: {reason}") from error
    return np.asarray(cut).reshape(*size, -1)


def predict(given: argparse.Namespace) -> int:
    """Prints a block for each image; 2 if one of them could not be read."""
    if given.top < 1:
        raise ValueError(f"--top is a number of classes from 1, got {given.top}")
    pillow()  # before the weights, which may be a download
    name, files = name_and_images(given.words)
    classifier = open_classifier(name, given.weights, classes=given.classes)
    if classifier.note:
        print(f"python -m zoo: {classifier.note}", file=sys.stderr)
    code = 0
    for file in files:
        try:
            image = photograph(file, classifier.preprocessing)
        except ValueError as error:
            print(f"python -m zoo: {error}", file=sys.stderr)
            code = 2
            continue
        probabilities = np.asarray(classifier.apply(image[None]))
        print("\n".join([file, *best(probabilities, classifier.classes, given.top)]), flush=True)
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
