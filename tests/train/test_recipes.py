"""Every recipe trains, from the command line, on a handful of real examples."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.train.test_command import run
from tests.train.test_loop import rows_of
from train.__main__ import main
from train.data import open_source


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """MNIST's files with 240 and 40 digits in them, 28 x 28."""
    folder = tmp_path_factory.mktemp("idx")
    digits = open_source("digits")
    for part, name, count in (("train", "train", 240), ("test", "t10k", 40)):
        examples = [digits[part][i] for i in range(count)]
        images = np.stack([example["image"][2:-2, 2:-2, 0] for example in examples])
        write_idx(folder / f"{name}-images-idx3-ubyte", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", np.stack([e["label"] for e in examples]))
    return folder


EXTRA = {
    "autoencoder_mnist": ["--loss", "huber"],
    "mlp_digits": ["--loss", "squared", "--activation", "tanh", "--widths", "32", "16"],
    "denoising_autoencoder_mnist": ["--noise", "0.3"],
    "greedy_autoencoder_mnist": ["--widths", "20", "10", "--pretrain-epochs", "1"],
}
TRAINED = {
    "lenet5_digits": "lenet5_modern",
    "lenet5_mnist": "lenet5_modern",
    "mlp_digits": "mlp",
    "perceptron_digits": "perceptron",
    "autoencoder_mnist": "autoencoder",
    "denoising_autoencoder_mnist": "conv_autoencoder",
    "greedy_autoencoder_mnist": "autoencoder",
}


@pytest.mark.parametrize("name", TRAINED)  # the others: tests/train/recipes
def test_a_recipe_trains_and_its_weights_load(name, few, tmp_path):
    workdir = tmp_path / "run"
    source = "digits" if name.endswith("digits") else f"idx:{few}"
    words = ["--source", source, "--epochs", "1", "--batch-size", "40", "--workdir", str(workdir)]
    assert main([name, *words, *EXTRA.get(name, [])]) == 0
    if name == "greedy_autoencoder_mnist":
        assert {folder.name for folder in workdir.iterdir()} == {"level1", "level2", "whole"}
        workdir = workdir / "whole"
    rows = rows_of(workdir)
    assert rows[-1]["epoch"] == 1
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    for picture in ("curves.png", "predictions.png"):
        assert (workdir / picture).stat().st_size > 5_000
    zoo.load_model(TRAINED[name], workdir)
    assert json.loads((workdir / "run.json").read_text())["finished"] == {
        **rows[-1],
        **{k: v for k, v in read_last(workdir).items() if k.startswith("time/")},
    }


def read_last(workdir: Path) -> dict[str, float]:
    return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])


def test_greedy_training_starts_the_whole_from_its_levels(few, tmp_path):
    words = ["--source", f"idx:{few}", "--epochs", "1", "--batch-size", "40", "--workdir"]
    more = [*EXTRA["greedy_autoencoder_mnist"], "--learning-rate", "0"]
    assert main(["greedy_autoencoder_mnist", *words, str(tmp_path / "run"), *more]) == 0
    _, whole = zoo.load_model("autoencoder", tmp_path / "run" / "whole")
    for level in (1, 2):
        _, part = zoo.load_model("autoencoder", tmp_path / "run" / f"level{level}")
        for way in ("encode", "decode"):
            np.testing.assert_array_equal(
                whole["params"][f"{way}_{level}"]["kernel"], part["params"][f"{way}_1"]["kernel"]
            )


def test_own_images_are_one_flag(tmp_path):
    from PIL import Image

    digits = open_source("digits")["train"]
    for number in range(200):
        example = digits[number]
        if example["label"] < 2:
            folder = tmp_path / "data" / ("zero", "one")[example["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example["image"][..., 0]).save(folder / f"{number}.png")
    workdir = tmp_path / "run"
    words = ["--source", f"folder:{tmp_path / 'data'}", "--epochs", "4", "--batch-size", "8"]
    assert main(["lenet5_digits", *words, "--workdir", str(workdir)]) == 0
    assert rows_of(workdir)[-1]["val/accuracy"] > 0.9
    model, _ = zoo.load_model("lenet5_modern", workdir)
    assert model.num_classes == 2


def test_batch_size_all_is_one_step_an_epoch(tmp_path):
    workdir = tmp_path / "run"
    words = ["--batch-size", "all", "--epochs", "2", "--workdir", workdir]
    code, said = run("mlp_digits", "--widths", "8", *words)
    assert code == 0, said
    assert [row["step"] for row in rows_of(workdir)] == [1, 2]
