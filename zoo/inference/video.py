"""Classes of video files: clips out of them, their mean scores, and a strip of what was seen."""

import pathlib

import numpy as np

from zoo.inference.classifier import Classifier, format_top_k
from zoo.media import image_io, video_io
from zoo.preprocess import Preprocessing, center_offset

DEFAULT_CLIPS = 3  # of a file


def clip_indices(
    count: int, preprocessing: Preprocessing, clips: int = DEFAULT_CLIPS
) -> list[list[int]]:
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
    """A video file to uint8 [n, T, h, w, C], as `preprocessing` resizes and cuts; see read_frames.

    Every frame is decoded once, and but those that the clips hold are kept, small.
    """
    found = video_io.index_frames(file)
    clips = clip_indices(found.count, preprocessing)
    wanted = sorted({index for clip in clips for index in clip})
    seen = {}
    frames = video_io.read_frames(file, wanted, frame_index=found)
    for index, frame in zip(wanted, frames, strict=True):
        frame = image_io.to_gray(frame) if len(preprocessing.mean) == 1 else frame
        try:
            small = image_io.resize_image(frame, preprocessing)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        top, left = center_offset(small.shape[:2], preprocessing.size)
        height, width = preprocessing.size
        seen[index] = small[top : top + height, left : left + width]
    return np.stack([np.stack([seen[index] for index in clip]) for clip in clips])


def classify_video(model: Classifier, file: str, stem: pathlib.Path, top: int) -> list[str]:
    """A video file to the lines of its most probable classes, and to STEM_strip.jpg.

    The probabilities are the mean over clips that are evenly placed; the strip is the middle one.
    """
    clips = read_clips(file, model.preprocessing)
    probabilities = np.mean([np.asarray(model.apply(clip[None])) for clip in clips], 0)
    lines = format_top_k(probabilities, model.classes, top)
    path = stem.with_name(f"{stem.name}_strip.jpg")
    image_io.write_image(
        image_io.draw_strip(clips[len(clips) // 2], [line.strip() for line in lines]), path
    )
    return [f"  {path}", *lines]
