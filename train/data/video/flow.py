"""Optical flow by OpenCV, as levels of bytes, remembered on disk; and the hardwired maps."""

import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, get_args

import cv2
import numpy as np

from train.data.disk_cache import Entries, cached_arrays
from train.data.source import Source, SourceWrapper, sample
from train.data.video.clips import Clips, OpenVideo, VideoStore

import_opencv: Any = cv2  # its stubs lack half of it
Method = Literal["tvl1", "farneback", "dis"]
FLOW_BOUND = 20.0  # pixels: what lies beyond is cut off
ZERO_FLOW_LEVEL = 128  # the level of no motion
JPEG_QUALITY = 95  # of the JPEGs that remember fields of files
HARDWIRED_MAPS = 7  # frames of which the hardwired maps are made


def optical_flow(first: np.ndarray, second: np.ndarray, *, method: Method) -> np.ndarray:
    """Gray frames [H, W] uint8 -> [H, W, 2] float32: how far (x, y) each pixel of the first goes.

    "tvl1" is the one of the two-stream networks, and slow; "farneback" and "dis" take a
    fiftieth of its time. Each with OpenCV's own settings, Farneback's window 15 pixels.
    Errors: ValueError for another method.

    Source: Zach et al. 2007 (TV-L1); Farneback 2003; Kroeger et al. 2016 (DIS, medium).
    """
    match method:
        case "tvl1":
            solver = import_opencv.optflow.DualTVL1OpticalFlow_create()
            return solver.calc(first, second, None)
        case "farneback":
            return import_opencv.calcOpticalFlowFarneback(
                first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0
            )
        case "dis":
            solver = import_opencv.DISOpticalFlow_create(
                import_opencv.DISOPTICAL_FLOW_PRESET_MEDIUM
            )
            return solver.calc(first, second, None)
    raise ValueError(f"flow is one of {', '.join(get_args(Method))}; got {method!r}")


def quantize_flow(flow: np.ndarray, *, bound: float = FLOW_BOUND) -> np.ndarray:
    """[..., 2] in pixels -> uint8: 128 is no motion, 1 and 255 `bound` pixels and more.

    Source: Simonyan and Zisserman 2014, section 5: rescaled to 0 ... 255.

    >>> quantize_flow(np.array([[0.0, 10.0], [-30.0, 20.0]])).tolist()
    [[128, 192], [1, 255]]
    """
    scaled = np.asarray(flow) * (127 / bound)
    return (ZERO_FLOW_LEVEL + np.round(np.nan_to_num(scaled).clip(-127, 127))).astype(np.uint8)


def flow_fields(frames: np.ndarray, *, method: Method, bound: float = FLOW_BOUND) -> np.ndarray:
    """Frames [T, H, W, C] uint8, C 1 or 3 -> levels [T - 1, H, W, 2] of the flow between neighbors."""
    grays = [to_gray(frame) for frame in frames]
    found = [
        quantize_flow(optical_flow(first, second, method=method), bound=bound)
        for first, second in itertools.pairwise(grays)
    ]
    return np.stack(found) if found else np.zeros((0, *frames.shape[1:3], 2), np.uint8)


def to_gray(frame: np.ndarray) -> np.ndarray:
    """[H, W, C] uint8, C 1 or 3 -> [H, W]."""
    if frame.shape[-1] == 1:
        return np.ascontiguousarray(frame[..., 0])
    return import_opencv.cvtColor(np.ascontiguousarray(frame), import_opencv.COLOR_RGB2GRAY)


def hardwired_maps(frames: np.ndarray, *, bound: float = FLOW_BOUND) -> np.ndarray:
    """Frames [7, H, W, C] uint8 -> [H, W, 33] uint8: what the first layer of Ji's network computes.

    7 gray maps, 7 gradients along x, 7 along y, 6 flows along x, 6 along y. Gradients (half the
    difference of both neighbors) and flow (DIS, `bound` pixels as 127) with 128 for 0.
    Errors: ValueError for another number of frames.

    Source: Ji et al. 2013, 3D Convolutional Neural Networks, section 3.1.
    """
    if len(frames) != HARDWIRED_MAPS:
        raise ValueError(f"the hardwired maps are of {HARDWIRED_MAPS} frames, got {len(frames)}")
    grays = np.stack([to_gray(frame) for frame in frames]).astype(np.float32)
    down, across = np.gradient(grays, axis=(1, 2))
    slopes = [ZERO_FLOW_LEVEL + np.round(slope).clip(-127, 127) for slope in (across, down)]
    flow = flow_fields(frames, method="dis", bound=bound)
    maps = np.concatenate([grays, *slopes, flow[..., 0], flow[..., 1]])
    return np.ascontiguousarray(np.moveaxis(maps, 0, -1).astype(np.uint8))


@dataclasses.dataclass(frozen=True, eq=False)
class WithFlow(SourceWrapper):
    """The examples of `source`, and the "flow" [T - 1, H, W, 2] uint8 of their videos.

    With a `cache` that of source[i] is computed once and kept there, by what the video shows; that of
    random parts (`sample`), which never come again, is not.
    """

    method: Method
    bound: float = FLOW_BOUND
    cache: pathlib.Path | None = None

    @property
    def mirrored(self) -> np.ndarray:
        return self.source.mirrored  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def labels(self) -> np.ndarray:
        return self.source.labels  # pyright: ignore[reportAttributeAccessIssue]

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        example = self.source[i]
        return example | {"flow": self.flow(example["video"], cache=self.cache)}

    def draw(self, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
        example = sample(self.source, i, number=number, seed=seed)
        drawn = hasattr(self.source, "draw")
        return example | {"flow": self.flow(example["video"], cache=None if drawn else self.cache)}

    def flow(self, video: np.ndarray, *, cache: pathlib.Path | None) -> np.ndarray:
        if cache is None:
            return flow_fields(video, method=self.method, bound=self.bound)
        told = f"{self.method} {self.bound} {video.shape}".encode()
        file = cache_path(cache, told, video.tobytes())
        found = partial(flow_fields, video, method=self.method, bound=self.bound)
        return cached_fields(file, lambda: {"flow": found()})["flow"]


def with_flow(
    source: Source,
    *,
    method: Method = "farneback",
    bound: float = FLOW_BOUND,
    cache: pathlib.Path | None = None,
) -> WithFlow:
    """A source of videos -> the same with "flow", `bound` pixels as 127 levels from 128."""
    return WithFlow(source, method, bound, cache)


@dataclasses.dataclass(frozen=True, eq=False)
class WithMaps(SourceWrapper):
    """The labels of `source`, and the hardwired "maps" [H, W, 33] of its videos of 7 frames."""

    bound: float = FLOW_BOUND

    @property
    def labels(self) -> np.ndarray:
        return self.source.labels  # pyright: ignore[reportAttributeAccessIssue]

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        return self.mapped(self.source[i])

    def draw(self, i: int, *, number: int, seed: int) -> dict[str, np.ndarray]:
        return self.mapped(sample(self.source, i, number=number, seed=seed))

    def mapped(self, example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rest = {name: value for name, value in example.items() if name != "video"}
        return rest | {"maps": hardwired_maps(example["video"], bound=self.bound)}


@dataclasses.dataclass(frozen=True, eq=False)
class FlowStore:
    """A store of videos -> a store of the flow between neighboring frames, "flow" in examples.

    That of a whole file is computed when it is first read, its short side `side` pixels at most, and kept
    in `cache` as JPEGs, by the file's content: some 10 kB a frame.

    Source: Simonyan and Zisserman 2014, section 5: flow rescaled to bytes and kept as JPEG.
    """

    store: VideoStore
    method: Method
    cache: pathlib.Path
    bound: float = FLOW_BOUND
    side: int = 256
    kind: str = "flow"

    def __len__(self) -> int:
        return len(self.store)

    def title(self, i: int) -> str:
        return self.store.title(i)

    def select(self, indices: np.ndarray) -> "FlowStore":
        return dataclasses.replace(self, store=self.store.select(indices))

    def open(self, i: int) -> OpenVideo:
        count, read = self.store.open(i)
        told = f"{self.method} {self.bound} {self.side} {count}".encode()
        title = self.store.title(i)
        content = pathlib.Path(title).read_bytes() if os.path.isfile(title) else title.encode()
        file = cache_path(self.cache, told, content)

        def compute() -> dict[str, np.ndarray]:
            each = [encode_jpeg(field) for field in self.computed(read(list(range(count))))]
            if not each:
                raise ValueError(f"{title}: one frame has no flow")
            return {"images": np.concatenate(each), "ends": np.cumsum([len(one) for one in each])}

        found = cached_fields(file, compute)
        images, ends = found["images"], found["ends"]

        def fields_at(times: list[int]) -> Iterator[np.ndarray]:
            for time in times:
                begin = int(ends[time - 1]) if time else 0
                yield decode_field(images[begin : int(ends[time])])

        return len(ends), fields_at

    def computed(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Frames one at a time -> levels [h, w, 2] one at a time."""
        before = None
        for frame in frames:
            height, width = frame.shape[:2]
            scale = min(1.0, self.side / min(height, width))
            size = (round(width * scale), round(height * scale))
            small = import_opencv.resize(
                to_gray(frame), size, interpolation=import_opencv.INTER_AREA
            )
            if before is not None:
                flow = optical_flow(before, small, method=self.method)
                yield quantize_flow(flow, bound=self.bound)
            before = small


def flow_clips(
    source: Clips, *, cache: pathlib.Path, method: Method = "tvl1", bound: float = FLOW_BOUND
) -> Clips:
    """Clips of videos -> clips of their flow, "flow" [L, H, W, 2]: `frames` fields, as many as frames.

    The fields lie between neighboring frames, whatever the stride between those of a clip.
    """
    return dataclasses.replace(source, store=FlowStore(source.store, method, cache, bound))


def encode_jpeg(field: np.ndarray) -> np.ndarray:
    """Levels [h, w, 2] -> the bytes of a JPEG, x above y."""
    _, image = import_opencv.imencode(
        ".jpg",
        np.concatenate([field[..., 0], field[..., 1]]),
        [import_opencv.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
    )
    return image.reshape(-1)


def decode_field(image: np.ndarray) -> np.ndarray:
    """The bytes of a JPEG -> levels [h, w, 3], the last one no motion: three channels as frames have."""
    x, y = np.split(import_opencv.imdecode(image, import_opencv.IMREAD_GRAYSCALE), 2)
    return np.stack([x, y, np.full_like(x, ZERO_FLOW_LEVEL)], -1)


def cache_path(cache: pathlib.Path, *content: bytes) -> pathlib.Path:
    """The file of that content below `cache`."""
    key = hashlib.blake2b(b"".join(content), digest_size=16).hexdigest()
    return cache / key[:2] / f"{key[2:]}.npz"


def cached_fields(file: pathlib.Path, compute: Callable[[], dict[str, np.ndarray]]) -> Entries:
    """The arrays of `file`, else what is computed and kept there; ValueError where it cannot be."""
    try:
        return cached_arrays(file, compute)
    except OSError as error:
        raise ValueError(
            f"flow cannot be kept in {file.parent} ({error.strerror}): name another folder in the "
            "environment variable FLAX_ZOO_CACHE"
        ) from error
