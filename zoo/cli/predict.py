"""python -m zoo predict: classes of images, of their pixels, or of the objects in them."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.cli.detect_files import results, write_boxes, write_video
from zoo.inference.classifier import Classifier, best, classifier, name_and_images
from zoo.inference.detector import THRESHOLD, Detector, detector, image_ids
from zoo.inference.segmenter import Segmenter, classes_of, segment, segmenter, shares
from zoo.inference.video import classify_video
from zoo.media import image_io, video_io
from zoo.registry import variant
from zoo.weights.model_file import open_model

WEIGHTS = (
    "a file (safetensors, torch, npz or darknet), a run's folder, torchvision://TAG, hf://ORG/REPO or "
    "https://...; python -m zoo show NAME lists the published ones"
)


def add_predict(commands: Any) -> None:
    """The command `predict`."""
    command = commands.add_parser(
        "predict",
        help="the most probable classes of images by name, of their pixels as a mask, or of "
        "objects in boxes",
        usage="%(prog)s [-h] NAME IMAGE [IMAGE ...] --weights W [--classes FILE] [--top N] "
        "[--output FOLDER] [--tile N] [--flips] [--size N] [--threshold S] [--json FILE]",
        description="Prints a block of class names and probabilities for each image. Where the "
        "model segments, writes IMAGE_mask.png, whose values are the classes, and "
        "IMAGE_overlay.jpg, and prints the share of each class. Where it detects, writes "
        "IMAGE_boxes.jpg, of a video VIDEO_boxes.mp4, and prints the score, name and box of each "
        "object. Where it is a model of clips, takes videos: the classes' mean over a few clips, and "
        "VIDEO_strip.jpg, frames with the classes below. An image that cannot be read is told in a line, the others are still predicted, "
        "and the exit code is 2.",
        epilog="example: python -m zoo predict resnet50 cat.jpg dog.png "
        "--weights torchvision://IMAGENET1K_V2",
    )
    command.add_argument(
        "words",
        nargs="+",
        metavar="NAME IMAGE ...",
        help="a name that list prints, which may be left out where the weights say it (a run's "
        f"do), then images ({', '.join(image_io.FORMATS)}), folders of them, and for detectors "
        "and models of clips videos",
    )
    command.add_argument("--weights", required=True, metavar="W", help=WEIGHTS)
    command.add_argument(
        "--classes",
        metavar="FILE",
        help="names of the classes: JSON (a list, or numbers and names) or text, one a line (those "
        "that the weights name, else ImageNet's for 1,000, downloaded once)",
    )
    command.add_argument(
        "--top", type=int, metavar="N", help="classification, video: classes to print for each (5)"
    )
    command.add_argument(
        "--output", metavar="FOLDER", help="segmentation, detection, video: where the files go (.)"
    )
    add_groups(command)


def add_groups(command: Any) -> None:
    """Its options for segmenters alone and for detectors alone."""
    masks = command.add_argument_group("segmentation")
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
    boxes = command.add_argument_group("detection")
    boxes.add_argument(
        "--threshold",
        type=float,
        metavar="S",
        help=f"score from 0 to 1 of which a detection has to have as much ({THRESHOLD})",
    )
    boxes.add_argument(
        "--json",
        metavar="FILE",
        help="all detections in COCO's results format, boxes in the pixels of the files; "
        "category_id is 1 to K, image_id the number that a file is named by, else its name",
    )


OPTIONS = {
    "top": ("classification", "video"),
    "output": ("segmentation", "detection", "video"),
    **dict.fromkeys(("tile", "flips", "size"), ("segmentation",)),
    **dict.fromkeys(("threshold", "json"), ("detection",)),
}
TASKS = ("classification", "segmentation", "detection", "video")


def opened(name: str | None, given: argparse.Namespace) -> Classifier | Segmenter | Detector:
    """The model of the weights; ValueError for options that are another task's."""
    loaded = open_model(name, given.weights)
    task = variant(loaded.name)[0]["task"]
    for option, tasks in OPTIONS.items():
        if task in TASKS and task not in tasks and getattr(given, option) is not None:
            raise ValueError(f"--{option} is for {tasks[0]}: {loaded.name} is for {task}")
    if task == "detection":
        return detector(loaded, given.weights, classes=given.classes, threshold=given.threshold)
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
    image = image_io.photograph(file, model.preprocessing)
    probabilities = np.asarray(model.apply(image[None]))
    return best(probabilities, model.classes, 5 if given.top is None else given.top)


def write_mask(model: Segmenter, file: str, stem: pathlib.Path) -> list[str]:
    """An image to the lines of its classes' shares, and to STEM_mask.png and STEM_overlay.jpg."""
    image = image_io.opened(file, "L" if model.channels == 1 else "RGB", lambda image: image)
    if model.resize is None:
        mask = segment(model, image, finish=classes_of)[..., 0]
    else:
        try:
            small = image_io.sized(image, model.resize)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        mask = image_io.enlarged_mask(segment(model, small), image.shape[:2])
    found = shares(mask, model.classes)
    drawn = image_io.overlay(image, mask, model.palette, found)
    files = [stem.with_name(f"{stem.name}_{end}") for end in ("mask.png", "overlay.jpg")]
    image_io.write(image_io.coloured(mask, model.palette), files[0])
    image_io.write(drawn, files[1])
    lines = [f"  {100 * share:6.2f} %  {name}" for _, share, name in found]
    return [f"  {', '.join(map(str, files))}", *lines]


def listed(words: Sequence[str], endings: Sequence[str]) -> list[str]:
    """Files and folders to files: of a folder those that end so, by name."""
    files = []
    for word in words:
        folder = pathlib.Path(word)
        if not folder.is_dir():
            files.append(word)
            continue
        inside = [
            str(path)
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in endings and not path.name.startswith(".")
        ]
        if not inside:
            raise ValueError(f"folder {word} has no file that ends in {', '.join(endings)}")
        files += inside
    return files


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
    image_io.pillow()  # before the weights, which may be a download
    name, words = name_and_images(given.words)
    listed(words, image_io.ENDINGS + video_io.ENDINGS)
    model = opened(name, given)
    clips = isinstance(model, Classifier) and model.preprocessing.frames > 0
    still = () if clips else image_io.ENDINGS
    files = listed(
        words, still + (video_io.ENDINGS if clips or isinstance(model, Detector) else ())
    )
    if model.note:
        print(f"python -m zoo: {model.note}", file=sys.stderr)
    folder = pathlib.Path(given.output or ".")
    if clips or not isinstance(model, Classifier):
        folder.mkdir(parents=True, exist_ok=True)
    code, names = 0, zip(files, stems(files, folder), image_ids(files), strict=True)
    with results(given.json) as write:
        for file, stem, image_id in names:
            try:
                if isinstance(model, Segmenter):
                    lines = write_mask(model, file, stem)
                elif isinstance(model, Detector):
                    one = write_video if video_io.is_video(file) else write_boxes
                    lines = one(model, file, stem, image_id, write)
                elif clips:
                    lines = classify_video(model, file, stem, given.top or 5)
                else:
                    lines = classify(model, file, given)
            except ValueError as error:
                print(f"python -m zoo: {error}", file=sys.stderr)
                code = 2
                continue
            print("\n".join([file, *lines]), flush=True)
    return code
