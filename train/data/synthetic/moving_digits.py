"""Clips of one real digit that moves, drawn here: the motion is the label, and no frame tells it."""

import dataclasses
import math

import numpy as np

from train.data.classification.digits import open_digits
from train.data.image_files import Size
from train.data.permutation import uniform_draws
from train.data.source import Arrays
from train.data.video.mirror_labels import mirror_label_map

SPLIT_SIZES = {"train": 4000, "val": 400, "test": 1000}
CLIP_FRAMES = 16
FRAME_SIZE = (32, 32, 1)
DIRECTIONS = (
    "right",
    "right down",
    "down",
    "left down",
    "left",
    "left up",
    "up",
    "right up",
)  # x right, y down; each 45 degrees further
CLASSES = (*DIRECTIONS, "turning", "growing")
TURNING, GROWING = 8, 9

# As shares of the frame's smaller side, of a turn and of the range of sizes: per frame.
SPEED = (0.03, 0.08)
ROTATION_SPEED = (0.015, 0.04)
GROWTH = (0.03, 0.07)
SIDES = (0.35, 0.68)  # of a digit: below 0.707 it fits the frame at any angle
LEVELS = (0.6, 1.0)
NOISE_LEVEL = 0.03  # standard deviation
DRAW_STREAMS = 8  # numbers that a clip is drawn from


@dataclasses.dataclass(frozen=True, eq=False)
class MovingDigits:
    """`count` clips of `digits`, each a pure function of (seed, index, part).

    "video" [T, H, W, 1] uint8, bright on dark; "label" int32: one of eight directions, turning
    (either way: a mirror changes it) or growing. Everything wraps round: places, angles, and sizes,
    of which the largest is followed by the smallest. Place, size and angle begin anywhere, evenly, and
    what moves evenly on a circle is even at all times: so a frame has one law, whatever its class.
    """

    digits: Arrays
    count: int
    frames: int
    size: Size
    key: tuple[int, ...]  # seed and number of the part
    classes: tuple[str, ...] = CLASSES
    name: str = "moving digits (UCI digits on a torus)"

    @property
    def labels(self) -> np.ndarray:
        return np.arange(self.count, dtype=np.int32) % len(CLASSES)

    @property
    def mirrored(self) -> np.ndarray:
        return mirror_label_map(self.classes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        if not -self.count <= i < self.count:
            raise IndexError(f"{self.name}: there are {self.count} clips, none is number {i}")
        i %= self.count
        label = i % len(CLASSES)
        draws = uniform_draws(DRAW_STREAMS, *self.key, i, 0)
        places, sides, angles = motion_path(label, draws, frames=self.frames, size=self.size)
        digit = self.digits.images[int(draws[0] * len(self.digits)), ..., 0]
        video = (
            interpolate(LEVELS, draws[1])
            / 255
            * render_digit(digit, places, sides, angles, self.size)
        )
        video += frame_noise(video.shape, (*self.key, i, 1))
        pixels = np.round(255 * video.clip(0, 1)).astype(np.uint8)
        return {"video": pixels[..., None], "label": np.asarray(label, np.int32)}


def open_moving_digits(
    *, frames: int | None = None, size: Size | None = None, seed: int = 0
) -> dict[str, MovingDigits]:
    """{"train": 4,000, "val": 400, "test": 1,000} clips of 16 frames, 32 x 32, or what is said.

    `seed` draws the training clips; val and test are always the same ones. Each part has its own
    part of `open_digits`: no digit of val or test is seen in training. The classes of a part are
    equally frequent.

    Raises ValueError for sizes that cannot be.
    """
    frames, size = frames or CLIP_FRAMES, size or FRAME_SIZE
    if frames < 2 or len(size) != 3 or min(size[:2]) < 16 or size[2] != 1:
        raise ValueError(
            "moving_digits: expected 2 frames or more of (height, width, 1), 16 x 16 at least; "
            f"got {frames} of {size}"
        )
    digits = open_digits()
    return {
        part: MovingDigits(digits[part], count, frames, size, (seed if not number else 0, number))
        for number, (part, count) in enumerate(SPLIT_SIZES.items())
    }


def motion_path(
    label: int, draws: np.ndarray, *, frames: int, size: Size
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> places [T, 2] (x, y) and sides [T] in pixels, angles [T] in radians.

    Each is uniform on its circle at every time: draws[2:6] begin it, draws[6:8] say how it goes on.
    """
    time, (height, width, _) = np.arange(frames), size
    side, way = min(height, width), 1 if draws[7] < 0.5 else -1
    step, turn, growth = np.zeros(2), 0.0, 0.0
    if label == TURNING:
        turn = way * interpolate(ROTATION_SPEED, draws[6])
    elif label == GROWING:
        growth = interpolate(GROWTH, draws[6])
    else:
        heading = math.pi / 4 * label
        step = (
            interpolate(SPEED, draws[6]) * side * np.array([math.cos(heading), math.sin(heading)])
        )
    places = (draws[2:4] * (width, height) + time[:, None] * step) % (width, height)
    sides = side * interpolate(SIDES, (draws[4] + time * growth) % 1)
    return places, sides, 2 * math.pi * ((draws[5] + time * turn) % 1)


def interpolate(ends: tuple[float, float], share: float | np.ndarray) -> np.ndarray:
    """The share of the way from one end to the other."""
    return np.asarray(ends[0] + (ends[1] - ends[0]) * share)


def render_digit(
    digit: np.ndarray, places: np.ndarray, sides: np.ndarray, angles: np.ndarray, size: Size
) -> np.ndarray:
    """A digit [32, 32] -> frames [T, H, W] float32 on a torus, of the digit's gray values.

    Bilinear; beyond the digit's edge it fades to 0 within one of its pixels.
    """
    height, width, _ = size
    wide, (own, _) = digit.shape[1], digit.shape
    scale = (wide / sides)[:, None, None]
    # Of each pixel, how far it is from the digit's middle, the shorter way round.
    across = (np.arange(width) + 0.5 - places[:, :1] + width / 2) % width - width / 2
    down = (np.arange(height) + 0.5 - places[:, 1:] + height / 2) % height - height / 2
    cosine, sine = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    x, y = across[:, None, :], down[:, :, None]
    column = (scale * cosine * x + scale * sine * y + (wide + 1) / 2).astype(np.float32)
    row = (scale * cosine * y - scale * sine * x + (own + 1) / 2).astype(np.float32)
    padded = np.pad(digit, 1).astype(np.float32)  # what lies further out is as black
    column, row = column.clip(0, wide), row.clip(0, own)
    left, top = np.minimum(column.astype(np.int32), wide), np.minimum(row.astype(np.int32), own)
    flat, stride = padded.ravel(), wide + 2
    place = top * stride + left
    column -= left
    row -= top
    upper = flat[place] + column * (flat[place + 1] - flat[place])
    place += stride
    lower = flat[place] + column * (flat[place + 1] - flat[place])
    return upper + row * (lower - upper)


def frame_noise(shape: tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
    """Noise of standard deviation 0.03, near to normal, from the sums of four random bytes each."""
    count = math.prod(shape)
    raw = np.random.PCG64(key).random_raw(-(-count // 2))
    planes = raw.astype("<u8").view(np.uint8)[: 4 * count].reshape(4, -1)
    total = (planes[0].astype(np.int16) + planes[1]) + (planes[2].astype(np.int16) + planes[3])
    deviation = 2 * 256 / math.sqrt(12)  # of the sum, whose mean is 510
    return ((total - 510) * np.float32(NOISE_LEVEL / deviation)).reshape(shape)
