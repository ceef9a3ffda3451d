"""Output files of detectors: images and videos with boxes, and COCO results."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from zoo.inference.detector import Detections, Detector, coco_results, detect, format_detections
from zoo.media import image_io, video_io


def write_boxes(
    model: Detector, file: str, stem: pathlib.Path, image_id: int | str, write: Callable
) -> list[str]:
    """Detects objects in an image and writes STEM_boxes.jpg.

    Args:
        model: the detector.
        file: the image.
        stem: start of the output path.
        image_id: COCO id of the image.
        write: function that takes COCO results.

    Returns:
        The lines to print.
    """
    image = image_io.open_image(file, "L" if model.channels == 1 else "RGB", lambda image: image)
    try:
        detections = detect(model, image)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    path = stem.with_name(f"{stem.name}_boxes.jpg")
    image_io.write_image(draw_detections(model, image, detections), path)
    write(coco_results(detections, image_id))
    return [f"  {path}", *(format_detections(detections, model.classes) or ["  nothing found"])]


def write_video(
    model: Detector, file: str, stem: pathlib.Path, image_id: int | str, write: Callable
) -> list[str]:
    """Detects objects in every frame of a video and writes STEM_boxes.mp4.

    The COCO id of frame n is IMAGE_ID#n.

    Args:
        model: the detector.
        file: the video.
        stem: start of the output path.
        image_id: COCO id of the video.
        write: function that takes COCO results.

    Returns:
        The line to print.
    """
    path = stem.with_name(f"{stem.name}_boxes.mp4")
    frames = boxes = 0
    with video_io.video_writer(path) as put:
        for pixels, second in video_io.iter_frames(file):
            gray = model.channels == 1
            detections = detect(model, image_io.to_gray(pixels) if gray else pixels)
            put(np.asarray(draw_detections(model, pixels, detections)), second)
            write(coco_results(detections, f"{image_id}#{frames}"))
            frames, boxes = frames + 1, boxes + len(detections.labels)
    return [f"  {path}", f"  {frames} frames, {boxes} boxes"]


def draw_detections(model: Detector, image: np.ndarray, detections: Detections) -> Any:
    """Draws detections on an image [H, W, C] of uint8 and returns a Pillow image."""
    pairs = zip(detections.labels, detections.scores, strict=True)
    words = [f"{model.classes[label]} {score:.2f}" for label, score in pairs]
    return image_io.draw_boxes(image, detections.boxes, model.palette[detections.labels], words)


@contextlib.contextmanager
def coco_results_file(path: str | None) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Yields a function that appends rows to a JSON file, written atomically; None writes none."""
    if path is None:
        yield lambda rows: None
        return
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            separator = "["

            def write(rows: list[dict[str, Any]]) -> None:
                nonlocal separator
                for row in rows:
                    file.write(f"{separator}\n{json.dumps(row)}")
                    separator = ","

            yield write
            file.write("[]\n" if separator == "[" else "\n]\n")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
