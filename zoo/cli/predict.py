"""The command `python -m zoo predict`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.cli.detect_files import coco_results_file, write_boxes, write_video
from zoo.inference.classifier import (
    Classifier,
    create_classifier,
    format_top_k,
    split_name_and_files,
)
from zoo.inference.detector import DEFAULT_THRESHOLD, Detector, coco_image_ids, create_detector
from zoo.inference.segmenter import (
    Segmenter,
    argmax_classes,
    class_shares,
    create_segmenter,
    segment,
)
from zoo.inference.video import classify_video
from zoo.media import image_io, video_io
from zoo.registry import variant_card
from zoo.weights.model_file import open_model

WEIGHTS_HELP = (
    "a file (safetensors, torch, npz or darknet), the folder of a run, torchvision://TAG, "
    "hf://ORG/REPO or https://...; python -m zoo show NAME lists published weights"
)


def add_predict(commands: Any) -> None:
    """Adds the command `predict` to the parser."""
    command = commands.add_parser(
        "predict",
        help="classify, segment or detect objects in images and videos",
        usage="%(prog)s [-h] NAME IMAGE [IMAGE ...] --weights W [--classes FILE] [--top N] "
        "[--output FOLDER] [--tile N] [--flips] [--size N] [--threshold S] [--json FILE]",
        description="Predicts the classes of images and videos. A classifier prints class names "
        "and probabilities. A segmenter writes IMAGE_mask.png with class indices and "
        "IMAGE_overlay.jpg, and prints the share of each class. A detector writes IMAGE_boxes.jpg "
        "or VIDEO_boxes.mp4, and prints the score, name and box of each object. A video "
        "classifier prints the mean over several clips and writes VIDEO_strip.jpg with frames "
        "and classes. The command reports each unreadable file in one line, predicts the other "
        "files, and exits with status 2.",
        epilog="example: python -m zoo predict resnet50 cat.jpg dog.png "
        "--weights torchvision://IMAGENET1K_V2",
    )
    command.add_argument(
        "words",
        nargs="+",
        metavar="NAME IMAGE ...",
        help="the model name, which is optional if the weights contain it (as those of a run "
        f"do), then images ({', '.join(image_io.IMAGE_FORMATS)}), folders of images, and videos "
        "for detectors and video classifiers",
    )
    command.add_argument("--weights", required=True, metavar="W", help=WEIGHTS_HELP)
    command.add_argument(
        "--classes",
        metavar="FILE",
        help="class names: JSON (a list, or an object of indices and names) or text with one "
        "name per line (default: the names in the weights, or the names of ImageNet for 1,000 "
        "classes, which are downloaded once)",
    )
    command.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="classification, video: number of classes to print (default: 5)",
    )
    command.add_argument(
        "--output",
        metavar="FOLDER",
        help="segmentation, detection, video: output folder (default: .)",
    )
    add_task_options(command)


def add_task_options(command: Any) -> None:
    """Adds the options of segmenters and detectors."""
    masks = command.add_argument_group("segmentation")
    masks.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="side of the tiles in which images are predicted; smaller tiles need less memory "
        "(default: the image size of the training)",
    )
    masks.add_argument(
        "--flips",
        action="store_true",
        default=None,
        help="average over the image and its three mirror images, which takes four times as long",
    )
    masks.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="short side to which images are resized for the model; masks keep the original size "
        "(default: the size of the publisher for published weights, else no resizing)",
    )
    boxes = command.add_argument_group("detection")
    boxes.add_argument(
        "--threshold",
        type=float,
        metavar="S",
        help=f"minimum score of a detection, from 0 to 1 (default: {DEFAULT_THRESHOLD})",
    )
    boxes.add_argument(
        "--json",
        metavar="FILE",
        help="write all detections in the COCO results format, with boxes in pixels of the "
        "files; category_id is 1 to K, image_id is the file name, as a number if it is one",
    )


OPTIONS = {
    "top": ("classification", "video"),
    "output": ("segmentation", "detection", "video"),
    **dict.fromkeys(("tile", "flips", "size"), ("segmentation",)),
    **dict.fromkeys(("threshold", "json"), ("detection",)),
}
TASKS = ("classification", "segmentation", "detection", "video")


def open_predictor(
    name: str | None, arguments: argparse.Namespace
) -> Classifier | Segmenter | Detector:
    """Loads the model of the weights; raises ValueError for options of other tasks."""
    loaded = open_model(name, arguments.weights)
    task = variant_card(loaded.name)[0]["task"]
    for option, tasks in OPTIONS.items():
        if task in TASKS and task not in tasks and getattr(arguments, option) is not None:
            raise ValueError(f"--{option} is for {tasks[0]}: {loaded.name} is for {task}")
    if task == "detection":
        return create_detector(
            loaded, arguments.weights, classes=arguments.classes, threshold=arguments.threshold
        )
    if task != "segmentation":
        return create_classifier(loaded, arguments.weights, classes=arguments.classes)
    return create_segmenter(
        loaded,
        arguments.weights,
        classes=arguments.classes,
        tile=arguments.tile,
        flips=bool(arguments.flips),
        short=arguments.size,
    )


def classify_image(model: Classifier, file: str, arguments: argparse.Namespace) -> list[str]:
    """Classifies an image and returns the lines to print."""
    image = image_io.read_image(file, model.preprocessing)
    probabilities = np.asarray(model.apply(image[None]))
    return format_top_k(probabilities, model.classes, 5 if arguments.top is None else arguments.top)


def write_mask(model: Segmenter, file: str, stem: pathlib.Path) -> list[str]:
    """Segments an image, writes STEM_mask.png and STEM_overlay.jpg, and returns its lines."""
    image = image_io.open_image(file, "L" if model.channels == 1 else "RGB", lambda image: image)
    if model.resize is None:
        mask = segment(model, image, finish=argmax_classes)[..., 0]
    else:
        try:
            small = image_io.resize_image(image, model.resize)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        mask = image_io.resize_probabilities(segment(model, small), image.shape[:2])
    entries = class_shares(mask, model.classes)
    overlay_size = image_io.draw_overlay(image, mask, model.palette, entries)
    files = [stem.with_name(f"{stem.name}_{end}") for end in ("mask.png", "overlay.jpg")]
    image_io.write_image(image_io.colorize_mask(mask, model.palette), files[0])
    image_io.write_image(overlay_size, files[1])
    lines = [f"  {100 * share:6.2f} %  {name}" for _, share, name in entries]
    return [f"  {', '.join(map(str, files))}", *lines]


def expand_inputs(words: Sequence[str], endings: Sequence[str]) -> list[str]:
    """Expands folders to the files with the given suffixes, sorted by name."""
    files = []
    for word in words:
        folder = pathlib.Path(word)
        if not folder.is_dir():
            files.append(word)
            continue
        folder_files = [
            str(path)
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in endings and not path.name.startswith(".")
        ]
        if not folder_files:
            raise ValueError(f"folder {word} has no file that ends in {', '.join(endings)}")
        files += folder_files
    return files


def output_stems(files: Sequence[str], folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns a unique output path stem for each file.

    Args:
        files: input files.
        folder: output folder.

    Returns:
        The stems.

    >>> [stem.name for stem in output_stems(["a/1.png", "b/1.jpg", "2.png"], pathlib.Path("."))]
    ['1', '1_2', '2']
    """
    used: dict[str, pathlib.Path] = {}
    for file in files:
        stem = pathlib.Path(file).stem
        names = [stem, *(f"{stem}_{number}" for number in range(2, len(files) + 2))]
        name = next(name for name in names if name not in used)
        used[name] = folder / name
    return list(used.values())


def predict(arguments: argparse.Namespace) -> int:
    """Runs the command; returns 2 if a file could not be read."""
    if arguments.top is not None and arguments.top < 1:
        raise ValueError(f"expected --top of at least 1, got {arguments.top}")
    image_io.import_pillow()  # fail before the weights are downloaded
    name, words = split_name_and_files(arguments.words)
    expand_inputs(words, image_io.IMAGE_SUFFIXES + video_io.VIDEO_SUFFIXES)
    model = open_predictor(name, arguments)
    clips = isinstance(model, Classifier) and model.preprocessing.frames > 0
    still = () if clips else image_io.IMAGE_SUFFIXES
    files = expand_inputs(
        words, still + (video_io.VIDEO_SUFFIXES if clips or isinstance(model, Detector) else ())
    )
    if model.note:
        print(f"python -m zoo: {model.note}", file=sys.stderr)
    folder = pathlib.Path(arguments.output or ".")
    if clips or not isinstance(model, Classifier):
        folder.mkdir(parents=True, exist_ok=True)
    code, names = 0, zip(files, output_stems(files, folder), coco_image_ids(files), strict=True)
    with coco_results_file(arguments.json) as write:
        for file, stem, image_id in names:
            try:
                if isinstance(model, Segmenter):
                    lines = write_mask(model, file, stem)
                elif isinstance(model, Detector):
                    one = write_video if video_io.is_video(file) else write_boxes
                    lines = one(model, file, stem, image_id, write)
                elif clips:
                    lines = classify_video(model, file, stem, arguments.top or 5)
                else:
                    lines = classify_image(model, file, arguments)
            except ValueError as error:
                print(f"python -m zoo: {error}", file=sys.stderr)
                code = 2
                continue
            print("\n".join([file, *lines]), flush=True)
    return code
