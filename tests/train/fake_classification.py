"""A training of a second: softmax regression on colored noise that a line can separate."""

from functools import partial
from typing import Any

import numpy as np
import optax

import zoo
from train import augment
from train.run import Run
from train.tasks.classification import classification
from zoo.preprocess import Preprocessing

CLASSES = ("dark", "bright")
PREPROCESSING = Preprocessing(mean=(0.5,), std=(0.25,), size=(8, 8), crop=1.0)


class Shades:
    """Pictures [8, 8, 1] of noise, the bright ones 60 gray levels brighter."""

    name, classes = "shades", CLASSES

    def __init__(self, size: int, *, seed: int = 0):
        generator = np.random.default_rng(seed)
        self.label = (np.arange(size) % 2).astype(np.int32)
        noise = generator.integers(0, 190, (size, 8, 8, 1))
        self.image = (noise + 60 * self.label[:, None, None, None]).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": self.image[index], "label": self.label[index]}


def run(**changes: Any) -> Run:
    """A Run of 3 epochs of 4 steps, with what a test wants otherwise."""
    task = classification(
        preprocessing=PREPROCESSING,
        classes=CLASSES,
        augment=augment.images(partial(augment.shift, pixels=1)),
    )
    return Run(
        model=zoo.create_model("softmax_regression", num_classes=2),
        task=task,
        train=Shades(64),
        evaluate={"val": Shades(21, seed=1)},
        optimizer=optax.sgd(0.01, momentum=0.9),
        epochs=3,
        batch_size=16,
        monitor=("val/accuracy", "max"),
        name="softmax_regression",
        preprocessing=PREPROCESSING,
    )._replace(**changes)
