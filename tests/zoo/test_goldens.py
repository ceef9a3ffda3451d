"""Every variant against its reference, by golden files that need no torch (tests/golden)."""

import zlib

import numpy as np
import pytest

import zoo
from tests.golden import compare, detection, parity
from tests.golden.cases import CASES
from tests.golden.fill import fill, image, uniform

TESTED = [case for case in CASES if case.test]
TRAINED = [case for case in CASES if case.test_training]


@pytest.mark.parametrize("case", TESTED, ids=lambda case: case.title)
def test_evaluation(case):
    errors = compare.evaluation(case)
    assert max(errors.values()) < case.tolerance, errors


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.title)
def test_training(case):
    errors = compare.training(case)
    assert max(errors.values()) < 1e-6, errors


def test_detection():
    """Each part of Faster R-CNN, and its boxes in pixels, where no decision is a near one."""
    errors = detection.evaluation()
    assert errors.pop("decisions") == 0, errors
    assert max(errors.pop("proposals"), errors.pop("boxes")) < 1e-3, errors
    assert errors.pop("scores") < 1e-4, errors
    assert max(errors.values()) < 1e-4, errors


def test_training_of_detection():
    errors = detection.training()
    assert max(errors.values()) < 1e-6, errors


def test_files():
    files = {path.stem: path.stat().st_size for path in compare.FOLDER.glob("*.npz")}
    detectors = (detection.EVALUATED, detection.TRAINED)
    assert set(files) == {case.title for case in (*TESTED, *detectors)}
    assert max(files.values()) <= 20_000


def test_rows():
    assert len({case.title for case in CASES}) == len(CASES)
    assert {case.name for case in CASES} <= set(zoo.list_models())
    assert all(case.training is not None for case in TRAINED)
    assert all(case.tolerance <= 1e-4 for case in CASES)


def scrambled(name: str, number: int) -> float:
    """The rule once more, in Python's own whole numbers."""
    bits = (number * 0x9E3779B1 % 2**32) ^ zlib.crc32(name.encode())
    bits = (bits ^ bits >> 16) * 0x85EBCA6B % 2**32
    bits = (bits ^ bits >> 13) * 0xC2B2AE35 % 2**32
    return ((bits ^ bits >> 16) >> 8) / 2**23 - 1


def test_rule():
    """The values that the files were made with: a change would make all of them worthless."""
    many = uniform("conv1.weight", (200, 1500))
    for number in (0, 1, 65_535, 65_536, 299_999):
        assert many.ravel()[number] == scrambled("conv1.weight", number)
    other = uniform("conv2.weight", many.shape)
    assert many.min() >= -1 and many.max() < 1 and many.std() == pytest.approx(3**-0.5, rel=0.01)
    assert abs(np.corrcoef(many.ravel(), other.ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(many.ravel()[1:], many.ravel()[:-1])[0, 1]) < 0.01


@pytest.mark.parametrize(
    ("name", "shape", "mean", "deviation"),
    [
        ("layer1.0.conv1.weight", (64, 32, 3, 3), 0, (2 / 288) ** 0.5),
        ("head.weight", (100, 512), 0, (2 / 512) ** 0.5),
        ("bn1.weight", (10_000,), 1, 0.25 / 3**0.5),
        ("layer1.0.bn3.weight", (10_000,), 0.35, 0.35 * 0.25 / 3**0.5),
        ("bn1.running_var", (10_000,), 1, 0.5 / 3**0.5),
        ("bn1.running_mean", (10_000,), 0, 0.2 / 3**0.5),
        ("pos_embed", (1, 197, 192), 0, 0.5 / 3**0.5),
    ],
)
def test_fill(name, shape, mean, deviation):
    values = fill(name, shape)
    assert values.dtype == np.float32 and values.shape == shape
    assert values.mean() == pytest.approx(mean, abs=0.02 * deviation)
    assert values.std() == pytest.approx(deviation, rel=0.02)


def test_table_of_parity():
    errors = [
        {"logits": 3e-7, "stage1": 4.2e-7},
        {"loss": 0.0, "gradients": 1.7e-12},
        {"loss": 1e-9},
    ]
    line = parity.row("resnet18", ["torchvision", "timm", "timm"], errors)
    assert line == "| resnet18 | timm, torchvision | 4e-07 | 1e-09 | 2e-12 |  |"
    text = f"before\n{parity.BEGIN}\nold\n{parity.END}\nafter\n"
    assert parity.insert(text, line) == text.replace("old", line)
    with pytest.raises(ValueError, match="expected the marks"):
        parity.insert("no marks", line)


def test_fill_of_counters():
    assert fill("bn1.num_batches_tracked", ()) == 0


def test_pictures():
    pictures = image(64)
    assert pictures.shape == (2, 3, 64, 64) and pictures.dtype == np.float32
    assert pictures.std() == pytest.approx(1, rel=0.1)
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("layer1.0.conv1.weight", "layer1.1.conv2.weight"),
        ("layer4.1.bn1.running_mean", "layer4.1.bn2.running_mean"),
        ("layer2.0.bn1.bias", "layer2.1.bn1.bias"),
    ],
)
def test_a_wrong_name_is_seen(one, other, monkeypatch):
    """Two tensors of equal shape, exchanged: what a slip in a rename table does."""
    case = next(case for case in CASES if case.title == "torchvision-resnet18")
    exchange = {one: other, other: one}
    monkeypatch.setattr(compare, "fill", lambda name, shape: fill(exchange.get(name, name), shape))
    assert max(compare.evaluation(case).values()) > 10 * case.tolerance
