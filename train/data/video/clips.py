"""Videos of any length and size -> clips of one fixed shape, random ones and those of testing."""

import dataclasses
import io
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from train.data.image_files import CROP_STREAM, IMAGE_FORMATS, Size
from train.data.permutation import uniform_draws
from zoo.errors import one_line
from zoo.media import video_io
from zoo.media.image_io import convert_mode

logger = logging.getLogger("train")
OpenVideo = tuple[int, Callable[[list[int]], Iterable[np.ndarray]]]  # frames, and how they are read


class Sampling(NamedTuple):
    """Clips of `frames`, every `stride`-th of the video's, in `size` = (H, W, C).

    sides: training resizes the short side to a random one of these and cuts `size` anywhere.
    whole: evaluation resizes the short side to that of `whole` = (H, W), which it cuts.
    views: (clips, crops) of each video in evaluation: the clips begin evenly from the first frame to the
        last that can, a single one in the middle; 1 crop of the center, or 3 along the longer side.
    A video shorter than a clip stands still at its end.

    Source: Feichtenhofer et al. 2019, section 4: 10 clips, 3 crops of 256, sides of 256 to 320.
    """

    frames: int
    stride: int
    size: Size
    whole: tuple[int, int]
    sides: tuple[int, int] | None = None
    views: tuple[int, int] = (1, 1)


class View(NamedTuple):
    """Frames of a video, and of each frame resized to the short side `side` where H x W is cut.

    across, down: shares of what is left over to the left and above.
    """

    times: list[int]
    side: float
    across: float
    down: float
    size: tuple[int, int]


def random_view(count: int, sampling: Sampling, *, key: tuple[int, ...]) -> View:
    """The part of a video of `count` frames that `key` names: as training sees it."""
    draws = uniform_draws(4, *key)
    left = max(0, count - 1 - (sampling.frames - 1) * sampling.stride)
    low, high = sampling.sides or (min(sampling.whole),) * 2
    return View(
        clip_frame_indices(int(draws[0] * (left + 1)), count, sampling),
        low + draws[1] * (high - low),
        draws[2] if sampling.sides else 0.5,
        draws[3] if sampling.sides else 0.5,
        (sampling.size[0], sampling.size[1]),
    )


def eval_view(number: int, count: int, sampling: Sampling) -> View:
    """View number 0 ... clips * crops - 1 of a video of `count` frames.

    >>> three = Sampling(4, 2, (8, 8, 1), (8, 8), views=(2, 3))
    >>> [(v.times[0], v.across) for v in (eval_view(n, 20, three) for n in range(6))]
    [(0, 0.0), (0, 0.5), (0, 1.0), (13, 0.0), (13, 0.5), (13, 1.0)]
    """
    clips, crops = sampling.views
    which, crop = divmod(number, crops)
    left = max(0, count - 1 - (sampling.frames - 1) * sampling.stride)
    start = round(left * which / (clips - 1)) if clips > 1 else left // 2
    place = crop / (crops - 1) if crops > 1 else 0.5
    times = clip_frame_indices(start, count, sampling)
    return View(times, min(sampling.whole), place, place, sampling.whole)


def clip_frame_indices(start: int, count: int, sampling: Sampling) -> list[int]:
    steps = range(start, start + sampling.frames * sampling.stride, sampling.stride)
    return [min(time, count - 1) for time in steps]


def crop_frame(frame: np.ndarray, part: View) -> tuple[np.ndarray, float]:
    """A frame [h, w, 3] uint8 -> its part [H, W, 3], and by how much it is enlarged.

    Bilinear and antialiased. Enlarged further where the part would not fit.
    """
    (height, width), (high, wide) = frame.shape[:2], part.size
    scale = max(part.side / min(height, width), high / height, wide / width)
    left, top = part.across * (width - wide / scale), part.down * (height - high / scale)
    box = (left, top, min(width, left + wide / scale), min(height, top + high / scale))
    resized = Image.fromarray(frame).resize((wide, high), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized), scale


def match_channels(frames: np.ndarray, channels: int) -> np.ndarray:
    """[T, H, W, 3] -> the same, or [T, H, W, 1], their luma as in Pillow."""
    if channels == 3:
        return frames
    luma = [np.asarray(Image.fromarray(frame).convert("L")) for frame in frames]
    return np.stack(luma)[..., None]


class VideoStore(Protocol):
    """Videos by number: `kind` is what an example calls their frames, "video" or "flow"."""

    @property
    def kind(self) -> str: ...
    def __len__(self) -> int: ...
    def title(self, i: int) -> str: ...
    def open(self, i: int) -> OpenVideo:
        """How many frames video i has, and what reads some of them; ValueError in one line."""
        ...

    def select(self, indices: np.ndarray) -> "VideoStore": ...


@dataclasses.dataclass(frozen=True, eq=False)
class VideoFileStore:
    """Video files [N]."""

    files: tuple[str, ...]
    kind: str = "video"

    def __len__(self) -> int:
        return len(self.files)

    def title(self, i: int) -> str:
        return self.files[i]

    def open(self, i: int) -> OpenVideo:
        known = video_io.index_frames(self.files[i])
        return known.count, lambda times: video_io.read_frames(
            self.files[i], times, frame_index=known
        )

    def select(self, indices: np.ndarray) -> "VideoFileStore":
        return dataclasses.replace(self, files=tuple(self.files[i] for i in indices))


@dataclasses.dataclass(frozen=True, eq=False)
class RecordStore:
    """Records [N] of a set of TFDS, whose entry `key` holds a video's frames as image files."""

    records: Any
    key: str
    name: str
    indices: np.ndarray
    kind: str = "video"

    def __len__(self) -> int:
        return len(self.indices)

    def title(self, i: int) -> str:
        return f"example {self.indices[i]} of {self.name}"

    def open(self, i: int) -> OpenVideo:
        images = self.records[int(self.indices[i])][self.key]
        if not len(images):
            raise ValueError("there is no frame in it")
        return len(images), lambda times: [decode_image(images[time]) for time in times]

    def select(self, indices: np.ndarray) -> "RecordStore":
        return dataclasses.replace(self, indices=self.indices[indices])


def decode_image(image: bytes) -> np.ndarray:
    """An image file's bytes -> [h, w, 3] uint8; ValueError in one line."""
    try:
        with Image.open(io.BytesIO(image), formats=list(IMAGE_FORMATS)) as opened:
            return np.asarray(convert_mode(opened, mode="RGB"))
    except Exception as error:  # each of Pillow's decoders has its own
        raise ValueError(one_line(error)) from error


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """Videos [N] of a store and labels [N] int32 -> "video" (or "flow"), "label", "group".

    source[i] is view i % V of video i // V, V = clips * crops of `sampling.views`, and "group" [] int32
    the video's number; in training a random part, afresh for each number in the run. A video that turns
    out broken is replaced by the next readable one of its class, always the same, told once in the log
    and counted in `unreadable` {title: reason}. Flow has two channels, its levels in pixels as cut.
    """

    store: VideoStore
    video_labels: np.ndarray
    name: str
    classes: tuple[str, ...]
    sampling: Sampling
    mirrored: np.ndarray
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def views(self) -> int:
        return self.sampling.views[0] * self.sampling.views[1]

    @property
    def labels(self) -> np.ndarray:
        return np.repeat(self.video_labels, self.views)

    def __len__(self) -> int:
        return self.views * len(self.store)

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name}: there are {len(self)} clips, none is number {i}")
        group, number = divmod(i % len(self), self.views)
        return self.read(group, lambda count: eval_view(number, count, self.sampling))

    def draw(self, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
        key = (seed, number, CROP_STREAM)
        return self.read(i // self.views, lambda count: random_view(count, self.sampling, key=key))

    def read(self, group: int, part_of: Callable[[int], View]) -> dict[str, np.ndarray]:
        """A part of a video, or of its stand-in."""
        for stand_in in self.same_class(group):
            title = self.store.title(stand_in)
            if title in self.unreadable:
                continue
            try:
                found = self.frames(stand_in, part_of)
                label = np.asarray(self.video_labels[group], np.int32)
                return {
                    self.store.kind: found,
                    "label": label,
                    "group": np.asarray(group, np.int32),
                }
            except ValueError as error:
                reason = str(error).removeprefix(f"{title}: ")
            if self.unreadable.setdefault(title, reason) is reason:  # no other thread was first
                logger.warning(
                    "%s is unreadable (%s): the next of its class stands in for it (%d such so far)",
                    *(title, reason, len(self.unreadable)),
                )
        label = self.classes[self.video_labels[group]]
        raise ValueError(f"{self.name}: class {label} has no readable video")

    def frames(self, i: int, part_of: Callable[[int], View]) -> np.ndarray:
        count, read = self.store.open(i)
        part = part_of(count)
        cuts = [crop_frame(frame, part) for frame in read(part.times)]
        frames = np.stack([pixels for pixels, _ in cuts])
        if self.store.kind == "video":
            return match_channels(frames, self.sampling.size[2])
        scaled = 128 + cuts[0][1] * (frames[..., :2].astype(np.float32) - 128)
        return np.round(scaled.clip(0, 255)).astype(np.uint8)

    def same_class(self, i: int) -> Iterator[int]:
        """i, and after it the others of its class, in turn."""
        yield i
        same = np.flatnonzero(self.video_labels == self.video_labels[i])
        yield from np.roll(same, -1 - int(np.searchsorted(same, i))).tolist()

    def select(self, indices: np.ndarray) -> "Clips":
        """The videos at `indices` [N], whose stand-ins come from that part alone."""
        store, labels = self.store.select(indices), self.video_labels[indices]
        return dataclasses.replace(self, store=store, video_labels=labels)
