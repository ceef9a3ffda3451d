"""A segmentation of a second: which pixels of a noisy picture are in the bright square."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from train.run import Run
from train.tasks.segmentation import segmentation
from zoo.preprocess import Preprocessing

CLASSES = ("ground", "square")
PREPROCESSING = Preprocessing(mean=(0.5,), std=(0.25,), size=(4, 4), crop=0.875)  # size: not ours
SIDE = 16


class Squares:
    """Pictures [16, 16, 1] of noise with a brighter square, whose mask's rim is ignored."""

    name, classes = "squares", CLASSES

    def __init__(self, count: int, *, seed: int = 0):
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng((self.seed, index))
        top, left, side = *random.integers(0, 8, 2), random.integers(4, 8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[top : top + side, left : left + side] = 255
        mask[top + 1 : top + side - 1, left + 1 : left + side - 1] = 1
        image = random.integers(0, 120, (SIDE, SIDE, 1)) + 120 * (mask > 0)[..., None]
        weight = random.uniform(0.5, 2, mask.shape).astype(np.float32)
        return {"image": image.astype(np.uint8), "mask": mask, "weight": weight}


class Convolutions(nn.Module):
    """Two convolutions: [B, H, W, C] -> {"logits" [B, h, w, K]}."""

    num_classes: int = 2
    padding: str = "SAME"
    auxiliary: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        del train
        convolution = partial(nn.Conv, kernel_size=(3, 3), padding=self.padding)
        x = nn.tanh(convolution(8, name="first")(image))
        outputs = {"stage1": x, "logits": convolution(self.num_classes, name="second")(x)}
        if self.auxiliary:
            outputs["auxiliary_logits"] = nn.Dense(self.num_classes, name="side")(x)
        return outputs


def run(model: nn.Module | None = None, task: dict[str, Any] | None = None, **changes: Any) -> Run:
    """A Run of 4 epochs of 4 steps, with what a test wants otherwise."""
    return Run(
        model=model or Convolutions(),
        task=segmentation(preprocessing=PREPROCESSING, classes=CLASSES, **(task or {})),
        train=Squares(64),
        evaluate={"val": Squares(21, seed=1)},
        optimizer=optax.adam(0.03),
        epochs=4,
        batch_size=16,
        monitor=("val/mean_iou", "max"),
    )._replace(**changes)
