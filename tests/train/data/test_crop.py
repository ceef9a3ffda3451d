"""Random parts of photographs: torchvision's law, the same after a restart, from any file."""

import io
import logging
import math
import pickle
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import zoo
from tests.train.data.test_tfds import RAGGED, example, prepared
from train.data import Crop, balance_classes, eval_batches, open_source, train_batches
from train.data.image_files import read_image, sample_crop
from train.data.tfds import open_tfds
from train.step import init_state, train_step
from train.tasks.classification import classification
from zoo.preprocess import Preprocessing, preprocess

WIDTH, HEIGHT = 400, 300
CROP = Crop()
NUMBERS = range(8000)


def reference(generator, width, height, crop):
    """RandomResizedCrop.get_params of torchvision, in numpy."""
    for _ in range(10):
        area = height * width * generator.uniform(*crop.scale)
        ratio = math.exp(generator.uniform(*np.log(crop.ratio)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = generator.integers(0, width - w + 1)
            return left, generator.integers(0, height - h + 1), w, h
    ratio = width / height
    if ratio < crop.ratio[0]:
        w, h = width, round(width / crop.ratio[0])
    elif ratio > crop.ratio[1]:
        w, h = round(height * crop.ratio[1]), height
    else:
        w, h = width, height
    return (width - w) // 2, (height - h) // 2, w, h


def furthest(a, b):
    """Kolmogorov's distance of two samples."""
    both = np.sort(np.concatenate([a, b]))
    share = lambda x: np.searchsorted(np.sort(x), both, side="right") / len(x)
    return np.abs(share(a) - share(b)).max()


@pytest.mark.parametrize("shape", [(400, 300), (120, 500), (37, 41)])
def test_the_law_is_torchvision_s(shape):
    generator = np.random.default_rng(0)
    expected = np.array([reference(generator, *shape, CROP) for _ in NUMBERS])
    found = np.array([sample_crop(*shape, CROP, key=(4, n, 1)) for n in NUMBERS])
    left, top, w, h = found.T
    assert (found[:, :2] >= 0).all() and (w > 0).all() and (h > 0).all()
    assert (left + w <= shape[0]).all() and (top + h <= shape[1]).all()
    figures = [lambda x: x[:, 2] * x[:, 3], lambda x: np.log(x[:, 2] / x[:, 3])]
    figures += [lambda x: x[:, 0], lambda x: x[:, 1]]
    for figure in figures:  # one in a thousand for two samples of 8,000 of one law
        assert furthest(figure(found), figure(expected)) < 0.031


def test_areas_are_uniform_and_ratios_in_their_logarithm():
    crop = Crop(scale=(0.2, 0.4), ratio=(0.5, 2.0))  # in a square all of these fit
    found = np.array([sample_crop(500, 500, crop, key=(n,)) for n in NUMBERS])
    area = found[:, 2] * found[:, 3] / 500**2
    ratio = np.log(found[:, 2] / found[:, 3])
    quarters = np.linspace(0.25, 0.75, 3)
    np.testing.assert_allclose(np.quantile(area, quarters), 0.2 + 0.2 * quarters, atol=0.01)
    expected = np.log(0.5) + quarters * np.log(4)
    np.testing.assert_allclose(np.quantile(ratio, quarters), expected, atol=0.06)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 20), (36, 0, 27, 20)), ((20, 100), (0, 36, 20, 27)), ((90, 100), (0, 0, 90, 100))],
)
def test_where_nothing_fits_the_center_is_taken(shape, expected):
    assert sample_crop(*shape, Crop(scale=(9.0, 9.0)), key=(0,)) == expected


ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RAMP = np.stack([COLUMNS * 255 / WIDTH, ROWS * 255 / HEIGHT, 0 * ROWS + 128], -1).astype(np.uint8)
GRAY = (0.5 * RAMP[..., 0] + 0.5 * RAMP[..., 1]).astype(np.uint8)
EXIF = Image.Exif()
EXIF[0x0112] = 6  # stored lying, shown after a quarter turn to the right


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file


def cmyk(pixels):
    return Image.fromarray(pixels).convert("CMYK")


def alpha(pixels):
    image = Image.fromarray(pixels).convert("RGBA")
    image.putalpha(200)
    return image


FILES = {
    "photograph": (encoded(Image.fromarray(RAMP), quality=95), RAMP),
    "png": (encoded(Image.fromarray(RAMP), "PNG"), RAMP),
    "turned": (encoded(Image.fromarray(np.rot90(RAMP)), quality=95, exif=EXIF), RAMP),
    "gray": (encoded(Image.fromarray(GRAY), quality=95), np.stack([GRAY] * 3, -1)),
    "cmyk": (encoded(cmyk(RAMP), quality=95), RAMP),
    "4 channels": (encoded(alpha(RAMP), "PNG"), (RAMP * (200 / 255) + 55)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [(24, 32), (160, 120), (400, 400)])
def test_the_part_is_where_it_was_drawn(name, size):
    """On a ramp a part's mean tells where it lies, whatever it is resized to."""
    file, pixels = FILES[name]
    for number in range(6):
        got = read_image(file, size=(*size, 3), crop=CROP, key=(1, number))
        assert got.shape == (*size, 3) and got.dtype == np.uint8
        left, top, w, h = sample_crop(WIDTH, HEIGHT, CROP, key=(1, number))
        part = pixels[top : top + h, left : left + w].astype(float)
        assert np.abs(got.mean((0, 1)) - part.mean((0, 1))).max() < 3
        for corner in (0, -1):
            assert np.abs(got[corner, corner].astype(float) - part[corner, corner]).max() < 14


def test_decoding_at_a_half_changes_little(monkeypatch):
    file = FILES["photograph"][0]
    fast = [read_image(file, size=(32, 32, 3), crop=CROP, key=(n,)) for n in range(8)]
    asked = []
    monkeypatch.setattr(
        "PIL.JpegImagePlugin.JpegImageFile.draft", lambda self, mode, size: asked.append(size)
    )
    slow = [read_image(file, size=(32, 32, 3), crop=CROP, key=(n,)) for n in range(8)]
    off = np.abs(np.subtract(fast, slow, dtype=float))
    assert asked and off.max() <= 6 and off.mean() < 1
    assert off.any(), "nothing was decoded smaller"


def test_gray_is_delivered_too():
    got = read_image(FILES["photograph"][0], size=(8, 8, 1), crop=CROP, key=(0,))
    assert got.shape == (8, 8, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ramps")
    for name in ("a", "b"):
        (place / name).mkdir()
        for i in range(10):
            Image.fromarray(np.roll(RAMP, 9 * i, 1)).save(place / name / f"{i}.jpg")
    return place


KNOBS = dict(batch_size=4, seed=5)
CODE = """
import sys, numpy as np
from train.data import Crop, open_source, train_batches
source = open_source(sys.argv[1], size=(8, 8, 3), crop=Crop())["train"]
for batch in train_batches(source, batch_size=4, seed=5, start=6, stop=8, process=1, processes=2):
    print(int(batch["image"].astype(np.int64).sum()), batch["index"].tolist())
"""


def test_a_restart_and_other_processes_draw_the_same(folder):
    source = open_source(f"folder:{folder}", size=(8, 8, 3), crop=CROP)["train"]
    whole = list(train_batches(source, start=0, stop=9, **KNOBS))
    again = list(train_batches(pickle.loads(pickle.dumps(source)), start=6, stop=9, **KNOBS))
    for batch, same in zip(whole[6:], again, strict=True):
        np.testing.assert_array_equal(batch["image"], same["image"])
    command = [sys.executable, "-W", "ignore", "-c", CODE, f"folder:{folder}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for batch, line in zip(whole[6:8], said.splitlines(), strict=True):
        rows = batch["image"][2:].astype(np.int64).sum(), batch["index"][2:].tolist()
        assert line == f"{rows[0]} {rows[1]}"


def test_every_pass_draws_anew_and_evaluation_sees_the_center(folder):
    sources = open_source(f"folder:{folder}", size=(8, 8, 3), crop=CROP)
    plain = open_source(f"folder:{folder}", size=(8, 8, 3))
    assert sources["train"].crop == CROP and sources["val"].crop is None
    for name in ("train", "val"):
        for one, other in zip(
            eval_batches(sources[name], batch_size=4),
            eval_batches(plain[name], batch_size=4),
            strict=True,
        ):
            np.testing.assert_array_equal(one["image"], other["image"])
    even = balance_classes(sources["train"])
    first, second, other = (
        even.draw(0, number=n, seed=s)["image"] for n, s in ((0, 0), (16, 0), (0, 1))
    )
    assert (first != second).any() and (first != other).any()


def test_ragged_sets_of_tfds_are_cropped_and_fixed_ones_are_not(tmp_path):
    ramp = {"image": Image.fromarray(RAMP), "label": 1}
    splits = {"train": [ramp, ramp], "test": [ramp]}
    prepared(tmp_path, "ragged", RAGGED, splits)
    fixed = RAGGED | {"image": tfds.features.Image(shape=(6, 5, 3))}
    color = example(9, 0, channels=3)
    prepared(tmp_path, "fixed", fixed, {"train": [color]})
    ragged = open_tfds("ragged", size=(8, 8, 3), crop=CROP, data_dir=str(tmp_path))
    assert ragged["train"].crop == CROP and ragged["test"].crop is None
    one, other = (ragged["train"].draw(0, number=n, seed=0)["image"] for n in (0, 1))
    assert (one != other).any()
    same = open_tfds("fixed", size=None, crop=CROP, data_dir=str(tmp_path))["train"]
    np.testing.assert_array_equal(same.draw(0, number=3, seed=0)["image"], same[0]["image"])


def torchvision_s(image, short, size):
    """Resize(short) and CenterCrop(size) of torchvision, by its own arithmetic, with Pillow."""
    width, height = image.size
    scaled = (
        (short, int(short * height / width))
        if width <= height
        else (int(short * width / height), short)
    )
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    top, left = (round((side - size) / 2) for side in (image.height, image.width))
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("shape", [(300, 400), (451, 337), (256, 256), (900, 300)])
def test_evaluation_s_geometry_is_torchvision_s(shape):
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / 17), np.cos(rows / 23), np.sin((rows + columns) / 31)]
    image = Image.fromarray(np.uint8(127.5 + 120 * np.stack(waves, -1)))
    opened = read_image(encoded(image, "PNG"), size=(256, 256, 3))
    card = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=(224, 224), crop=0.875)
    found = np.asarray(preprocess(opened[None], card))[0] * 255
    expected = torchvision_s(image, 256, 224).astype(float)
    # Half a pixel apart at most, where the long side has an odd number of pixels too many.
    steepest = np.abs(np.diff(expected, axis=1)).max(), np.abs(np.diff(expected, axis=0)).max()
    assert np.abs(found - expected).max() <= 1.5 + 0.55 * max(steepest)


def test_a_folder_of_odd_files_trains_and_says_what_it_replaced(tmp_path, caplog):
    """Gray, CMYK, four channels, turned and truncated, in training with crops."""
    for kind in ("a", "b"):
        for split in ("train", "val"):
            (tmp_path / split / kind).mkdir(parents=True)
            for name, (file, _) in FILES.items():
                (
                    tmp_path / split / kind / f"{name}.{'png' if name == 'png' else 'jpg'}"
                ).write_bytes(file.getvalue())
    whole = FILES["photograph"][0].getvalue()
    (tmp_path / "train" / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    sources = open_source(f"folder:{tmp_path}", size=(8, 8, 3), crop=CROP)
    card = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, size=(8, 8))
    task = classification(preprocessing=card, classes=sources["train"].classes)
    model = zoo.create_model("softmax_regression", num_classes=2)
    knobs = dict(model=model, task=task, optimizer=optax.sgd(0.1))
    batches = list(train_batches(sources["train"], batch_size=13, seed=0, start=0, stop=2))
    state = init_state(jax.random.key(0), batches[0], **knobs)
    for batch in batches:
        state, sums = jax.jit(lambda state, batch: train_step(state, batch, **knobs))(state, batch)
        assert np.isfinite(sums["loss"])
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and "cut.jpg is unreadable" in warnings[0]
    assert "stands in for it" in warnings[0]
