"""Classes of video files: clips out of them, their mean scores, and a strip of what was seen."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo import pictures, video
from zoo.predict import Classifier, best
from zoo.preprocess import Preprocessing, centre

CLIPS = 3  # of a file
STRIP = 8  # frames of the picture
HIGH = 160  # pixels of its frames, or as many as the model sees


def clip_indices(count: int, preprocessing: Preprocessing, clips: int = CLIPS) -> list[list[int]]:
    """Frames of a file to those of each clip, `frames` by `stride` apart: evenly placed, whole ones.

    A file that is too short for one has its last frame repeated; of a single clip it is the middle.

    >>> clip_indices(10, Preprocessing((0.5,), (0.5,), (8, 8), frames=3, stride=2), 2)
    [[0, 2, 4], [5, 7, 9]]
    >>> clip_indices(4, Preprocessing((0.5,), (0.5,), (8, 8), frames=3, stride=2), 2)
    [[0, 2, 3]]
    """
    span = (preprocessing.frames - 1) * preprocessing.stride + 1
    free = max(0, count - span)
    places = [free // 2] if clips == 1 else np.linspace(0, free, clips).round().astype(int).tolist()
    starts = sorted(set(places))
    steps = range(0, span, preprocessing.stride)
    return [[min(start + step, count - 1) for step in steps] for start in starts]


def read_clips(file: str, preprocessing: Preprocessing) -> np.ndarray:
    """A video file to uint8 [n, T, h, w, 3], as `preprocessing` resizes and cuts; see read_frames.

    Every frame is decoded once, and but those that the clips hold are kept, small.
    """
    found = video.survey(file)
    clips = clip_indices(found.count, preprocessing)
    wanted = sorted({index for clip in clips for index in clip})
    seen = {}
    frames = video.read_frames(file, wanted, known=found)
    for index, frame in zip(wanted, frames, strict=True):
        try:
            small = pictures.sized(frame, preprocessing)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        top, left = centre(small.shape[:2], preprocessing.size)
        height, width = preprocessing.size
        seen[index] = small[top : top + height, left : left + width]
    return np.stack([np.stack([seen[index] for index in clip]) for clip in clips])


def strip(clip: np.ndarray, lines: Sequence[str]) -> Any:
    """uint8 [T, h, w, 3] and lines of words -> Pillow's image: frames side by side over the lines."""
    Image, _ = pictures.pillow()
    from PIL import ImageDraw, ImageFont

    kept = clip[np.linspace(0, len(clip) - 1, min(STRIP, len(clip))).round().astype(int)]
    row = pictures.plain(np.concatenate(list(kept), 1))
    factor = max(1, round(HIGH / row.height))
    row = row.resize((row.width * factor, row.height * factor), Image.Resampling.NEAREST)
    em = max(14, row.height // 10)
    font = ImageFont.load_default(em)
    long = max((int(font.getlength(line)) for line in lines), default=0)
    size = (max(row.width, long + 2 * em), row.height + int(1.5 * em * len(lines)) + em)
    canvas = Image.new("RGB", size, "white")
    canvas.paste(row, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((em, row.height + em * (0.5 + 1.5 * number)), line, "black", font=font)
    return canvas


def classify_video(model: Classifier, file: str, stem: pathlib.Path, top: int) -> list[str]:
    """A video file to the lines of its most probable classes, and to STEM_strip.jpg.

    The probabilities are the mean over clips that are evenly placed; the strip is the middle one.
    """
    clips = read_clips(file, model.preprocessing)
    probabilities = np.mean([np.asarray(model.apply(clip[None])) for clip in clips], 0)
    lines = best(probabilities, model.classes, top)
    path = stem.with_name(f"{stem.name}_strip.jpg")
    pictures.write(strip(clips[len(clips) // 2], [line.strip() for line in lines]), path)
    return [f"  {path}", *lines]
