"""Video classification: clips of a file, their mean scores, and a strip of frames."""

import pathlib

import numpy as np

from zoo.inference.classifier import Classifier, format_top_k
from zoo.media import image_io, video_io
from zoo.preprocess import Preprocessing, center_offset, clip_starts, frame_indices

DEFAULT_CLIPS = 3  # clips per file


def clip_indices(
    count: int, preprocessing: Preprocessing, clips: int = DEFAULT_CLIPS
) -> list[list[int]]:
    """Returns the frames of evenly placed clips; see `zoo.preprocess.clip_starts`.

    Past the end of a short video its last frame repeats.

    Args:
        count: number of frames of the video.
        preprocessing: its `frames` and `stride` are used.
        clips: number of clips.

    Returns:
        Frame indices of each clip.

    >>> clip_indices(10, Preprocessing((0.5,), (0.5,), (8, 8), frames=3, stride=2), 2)
    [[0, 2, 4], [5, 7, 9]]
    >>> clip_indices(4, Preprocessing((0.5,), (0.5,), (8, 8), frames=3, stride=2), 2)
    [[0, 2, 3], [0, 2, 3]]
    """
    frames, stride = preprocessing.frames, preprocessing.stride
    starts = clip_starts(count, frames=frames, stride=stride, clips=clips)
    return [frame_indices(start, count, frames=frames, stride=stride) for start in starts]


def read_clips(file: str, preprocessing: Preprocessing) -> np.ndarray:
    """Reads the clips of a video file, resized and cropped.

    Each frame is decoded once, and only the small frames of the clips are kept.

    Args:
        file: the video.
        preprocessing: the preprocessing.

    Returns:
        Clips [n, T, h, w, C] of uint8.

    Raises:
        ValueError: if the file cannot be read.
    """
    frame_index = video_io.index_frames(file)
    clips = clip_indices(frame_index.count, preprocessing)
    indices = sorted({index for clip in clips for index in clip})
    small_frames = {}
    frames = video_io.read_frames(file, indices, frame_index=frame_index)
    for index, frame in zip(indices, frames, strict=True):
        frame = image_io.to_gray(frame) if len(preprocessing.mean) == 1 else frame
        try:
            small = image_io.resize_image(frame, preprocessing)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        top, left = center_offset(small.shape[:2], preprocessing.size)
        height, width = preprocessing.size
        small_frames[index] = small[top : top + height, left : left + width]
    return np.stack([np.stack([small_frames[index] for index in clip]) for clip in clips])


def classify_video(model: Classifier, file: str, stem: pathlib.Path, top: int) -> list[str]:
    """Classifies a video by the mean over its clips, and writes a strip of the middle clip.

    Args:
        model: the classifier.
        file: the video.
        stem: start of the output path; the strip is STEM_strip.jpg.
        top: number of classes.

    Returns:
        The lines to print.
    """
    clips = read_clips(file, model.preprocessing)
    probabilities = np.mean([np.asarray(model.apply(clip[None])) for clip in clips], 0)
    lines = format_top_k(probabilities, model.classes, top)
    path = stem.with_name(f"{stem.name}_strip.jpg")
    image_io.write_image(
        image_io.draw_strip(clips[len(clips) // 2], [line.strip() for line in lines]), path
    )
    return [f"  {path}", *lines]
