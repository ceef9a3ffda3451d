"""What a detector finds, as files: pictures and videos with boxes drawn, COCO's results."""

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
    """An image to the lines of what is in it, and to STEM_boxes.jpg; its results go to `write`."""
    image = image_io.open_image(file, "L" if model.channels == 1 else "RGB", lambda image: image)
    try:
        found = detect(model, image)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    path = stem.with_name(f"{stem.name}_boxes.jpg")
    image_io.write_image(draw_detections(model, image, found), path)
    write(coco_results(found, image_id))
    return [f"  {path}", *(format_detections(found, model.classes) or ["  nothing found"])]


def write_video(
    model: Detector, file: str, stem: pathlib.Path, image_id: int | str, write: Callable
) -> list[str]:
    """A video to a line that counts, and to STEM_boxes.mp4, frame by frame; see write_boxes.

    Frame n is called IMAGE_ID#n.
    """
    path = stem.with_name(f"{stem.name}_boxes.mp4")
    frames = boxes = 0
    with video_io.video_writer(path) as put:
        for pixels, second in video_io.iter_frames(file):
            gray = model.channels == 1
            found = detect(model, image_io.to_gray(pixels) if gray else pixels)
            put(np.asarray(draw_detections(model, pixels, found)), second)
            write(coco_results(found, f"{image_id}#{frames}"))
            frames, boxes = frames + 1, boxes + len(found.labels)
    return [f"  {path}", f"  {frames} frames, {boxes} boxes"]


def draw_detections(model: Detector, image: np.ndarray, detections: Detections) -> Any:
    """uint8 [H, W, C] and what is found in it to Pillow's image."""
    pairs = zip(detections.labels, detections.scores, strict=True)
    words = [f"{model.classes[label]} {score:.2f}" for label, score in pairs]
    return image_io.draw_boxes(image, detections.boxes, model.palette[detections.labels], words)


@contextlib.contextmanager
def coco_results_file(path: str | None) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """-> write(rows): they become a JSON list, row by row, whole or not at all; None for nowhere."""
    if path is None:
        yield lambda rows: None
        return
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            between = "["

            def write(rows: list[dict[str, Any]]) -> None:
                nonlocal between
                for row in rows:
                    file.write(f"{between}\n{json.dumps(row)}")
                    between = ","

            yield write
            file.write("[]\n" if between == "[" else "\n]\n")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
