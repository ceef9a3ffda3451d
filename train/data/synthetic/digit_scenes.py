"""Scenes of real digits on cluttered canvases, drawn here: masks, instances and boxes for nothing."""

import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

from train.data.classification.digits import open_digits
from train.data.image_files import Size, check_size
from train.data.permutation import uniform_draws
from train.data.source import Arrays
from zoo.media.colormap import voc_colormap

SPLIT_SIZES = {"train": 1000, "val": 100, "test": 200}
IMAGE_SIZE = (128, 128, 1)
MAX_OBJECTS = 8  # digits in a scene
CLASSES = ("background", *"0123456789")

MIN_OBJECTS = 3
DIGIT_HEIGHT = (0.2, 0.38)  # of a digit, as a share of the scene's smaller side
MAX_ROTATION = 0.5  # radians to either side: further, a 6 would be a 9
MIN_VISIBLE = 0.75  # of a digit's pixels, under those that lie on it
PLACEMENT_ATTEMPTS = 12  # to place a digit
DISTRACTOR_STROKES = 12
DRAW_STREAMS = 12  # numbers that a digit or a stroke is drawn from


@dataclasses.dataclass(frozen=True, eq=False)
class DigitScenes:
    """`count` scenes of `digits`, each a pure function of (seed, index, part).

    "image" [H, W, C] uint8; "mask" [H, W] uint8, 0 = background, digit + 1 elsewhere; "instances"
    [H, W] int32, 0 = none, n + 1 = row n of "boxes" [8, 4] float32 (x0, y0, x1, y1), "labels" [8]
    int32 (as in the mask) and "box_valid" [8] bool. The boxes hold the visible pixels tightly:
    x1 and y1 are one past the last.
    """

    digits: Arrays
    count: int
    size: Size
    key: tuple[int, ...]  # seed and number of the part
    classes: tuple[str, ...] = CLASSES
    name: str = "digit scenes (UCI digits on clutter)"

    @property
    def palette(self) -> np.ndarray:
        return voc_colormap(len(self.classes))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int, /) -> dict[str, np.ndarray]:
        if not -self.count <= i < self.count:
            raise IndexError(f"{self.name}: there are {self.count} scenes, none is number {i}")
        key = (*self.key, i % self.count)
        canvas = draw_background(self.size, key)
        draws = uniform_draws(MAX_OBJECTS * (DRAW_STREAMS + 2 * PLACEMENT_ATTEMPTS) + 2, *key, 0)
        wanted = MIN_OBJECTS + int(draws[0] * (MAX_OBJECTS - MIN_OBJECTS + 1))
        instances = np.zeros(self.size[:2], np.int32)
        labels, areas = [], []
        for of_one in draws[2:].reshape(MAX_OBJECTS, -1)[:wanted]:
            number = int(of_one[0] * len(self.digits))
            digit = self.digits.images[number, ..., 0]
            ink = place_digit(digit, instances, areas, of_one)
            if ink is None:  # no room: fewer digits
                continue
            labels.append(int(self.digits.labels[number]) + 1)
            level = (0.55 + 0.45 * of_one[5]) * sample_tint(of_one[6:9], self.size[2])
            # The ink's soft edge, four pixels wide from 8 x 8, is made a sharper one, with a dark
            # rim: without it digits of one brightness that overlap are not to be told apart.
            canvas *= 1 - 0.5 * color_ramp(ink, 0.1, 0.3)
            canvas += color_ramp(ink, 0.35, 0.65) * (level - canvas)
            instances[ink >= 0.5] = len(labels)
            areas.append(np.count_nonzero(ink >= 0.5))
        canvas += value_noise(self.size, key)
        if draws[1] < 1 / 3:  # dark on bright
            canvas = 1 - canvas
        return scene_annotations(canvas, instances, labels)


def open_digit_scenes(*, size: Size | None, seed: int) -> dict[str, DigitScenes]:
    """{"train": 1,000, "val": 100, "test": 200} scenes, 128 x 128 and gray unless `size` says else.

    3 to 8 digits of different height, turn and brightness, partly on one another (at least 75 % of
    each is seen), on a gradient with strokes and noise; bright on dark, in a third dark on bright.
    `seed` draws the training scenes; val and test are always the same ones. Each part draws on its
    own part of `open_digits`: no digit of val or test is seen in training.
    """
    size = check_size(size or IMAGE_SIZE, source="digit_scenes")
    if min(size[:2]) < 64:
        raise ValueError(f"digit_scenes: expected a size of at least 64 x 64, got {size}")
    digits = open_digits()
    return {
        part: DigitScenes(digits[part], count, size, (seed if part == "train" else 0, number))
        for number, (part, count) in enumerate(SPLIT_SIZES.items())
    }


def draw_background(size: Size, key: tuple[int, ...]) -> np.ndarray:
    """A gradient with strokes on it: [H, W, C] float32, up to 0.4, the strokes to 0.9."""
    height, width, channels = size
    draws = uniform_draws(8 + DISTRACTOR_STROKES * DRAW_STREAMS, *key, 1)
    angle = 2 * math.pi * draws[0]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    along = columns / width * math.cos(angle) + rows / height * math.sin(angle)
    along = (along - along.min()) / np.ptp(along)
    ends = 0.4 * draws[1:3]
    gradient = ends[0] + (ends[1] - ends[0]) * along
    canvas = gradient[..., None] * sample_tint(draws[3:6], channels)
    for stroke in draws[8:].reshape(DISTRACTOR_STROKES, DRAW_STREAMS)[
        : int(4 + draws[6] * (DISTRACTOR_STROKES - 3))
    ]:
        sheet = Image.new("L", (width, height))
        draw_stroke(ImageDraw.Draw(sheet), stroke, width, height)
        cover = np.asarray(sheet, np.float32)[..., None] / 255
        canvas = canvas + cover * (
            (0.25 + 0.65 * stroke[8]) * sample_tint(stroke[9:12], channels) - canvas
        )
    return canvas.astype(np.float32)


def draw_stroke(sheet: ImageDraw.ImageDraw, stroke: np.ndarray, width: int, height: int) -> None:
    """A line, an arc or a dot, as the numbers of `stroke` say."""
    side = min(width, height)
    x, y, length = stroke[0] * width, stroke[1] * height, (0.05 + 0.2 * stroke[2]) * side
    thick, angle = 1 + int(stroke[3] * side / 32), 360 * stroke[4]
    around = (x - length / 2, y - length / 2, x + length / 2, y + length / 2)
    if stroke[5] < 0.5:
        turn = math.radians(angle)
        end = (x + length * math.cos(turn), y + length * math.sin(turn))
        sheet.line(((x, y), end), fill=255, width=thick)
    elif stroke[5] < 0.85:
        sheet.arc(around, angle, angle + 60 + 120 * stroke[6], fill=255, width=thick)
    else:
        sheet.ellipse((x - thick, y - thick, x + thick, y + thick), fill=255)


def sample_tint(draws: np.ndarray, channels: int) -> np.ndarray:
    """[C] about 1: what a gray value is multiplied by to have a color; 1 where there is none."""
    if channels == 1:
        return np.ones(1, np.float32)
    return (0.65 + 0.5 * draws[:3] / max(float(draws[:3].max()), 1e-3)).astype(np.float32)


def place_digit(
    digit: np.ndarray, instances: np.ndarray, areas: list[int], draws: np.ndarray
) -> np.ndarray | None:
    """A digit [32, 32] -> its ink in the scene [H, W] float32, 0 to 1; None without room.

    Turned, sized and laid where the numbers of `draws` say: the first place that leaves enough to
    be seen of the digits below it, which have the `areas` in pixels.
    """
    height, width = instances.shape
    side = (DIGIT_HEIGHT[0] + (DIGIT_HEIGHT[1] - DIGIT_HEIGHT[0]) * draws[1]) * min(height, width)
    turn = MAX_ROTATION * (2 * draws[2] - 1)
    # Strokes that reach the frame fade out over a margin instead of being cut off straight.
    sheet = Image.fromarray(np.pad(digit, 4, "linear_ramp", end_values=0))
    # Of a place in the scene, the place in the sheet: turned back, then enlarged.
    across, down = np.array([math.cos(turn), math.sin(turn)]) * 32 / side
    reach = side / 2 * (abs(math.cos(turn)) + abs(math.sin(turn)))
    for u, v in draws[DRAW_STREAMS:].reshape(PLACEMENT_ATTEMPTS, 2):
        x, y = reach + u * (width - 2 * reach), reach + v * (height - 2 * reach)
        back = (
            *(across, down, 20 - across * x - down * y),
            *(-down, across, 20 + down * x - across * y),
        )
        turned = sheet.transform(
            (width, height), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR
        )
        ink = np.asarray(turned, np.float32) / 255
        seen = np.bincount(instances[ink < 0.5], minlength=len(areas) + 1)[1:]
        if (seen >= MIN_VISIBLE * np.array(areas)).all() and (ink >= 0.5).any():
            return ink
    return None


def color_ramp(ink: np.ndarray, low: float, high: float) -> np.ndarray:
    """[H, W] -> [H, W, 1]: 0 up to `low`, 1 from `high` on, linear between."""
    return np.clip((ink[..., None] - low) / (high - low), 0, 1)


def value_noise(size: Size, key: tuple[int, ...]) -> np.ndarray:
    """Noise of standard deviation 0.03, near to normal: [H, W, 1] float32."""
    height, width, _ = size
    draws = uniform_draws(3 * height * width, *key, 2).reshape(3, height, width, 1)
    return (0.06 * (draws.sum(0) - 1.5)).astype(np.float32)  # the sum's deviation is a half


def scene_annotations(
    canvas: np.ndarray, instances: np.ndarray, labels: list[int]
) -> dict[str, np.ndarray]:
    """What a scene gives: see `DigitScenes`."""
    boxes = np.zeros((MAX_OBJECTS, 4), np.float32)
    for n in range(len(labels)):
        rows, columns = np.nonzero(instances == n + 1)
        boxes[n] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return {
        "image": np.round(255 * canvas.clip(0, 1)).astype(np.uint8),
        "mask": np.array([0, *labels], np.uint8)[instances],
        "instances": instances,
        "boxes": boxes,
        "labels": np.array(labels + [0] * (MAX_OBJECTS - len(labels)), np.int32),
        "box_valid": np.arange(MAX_OBJECTS) < len(labels),
    }
