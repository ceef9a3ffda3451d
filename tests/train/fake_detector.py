"""A detector that reads its detections off the image, and a source of such images."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.run import Run
from train.tasks.detection import detection
from zoo.preprocess import Preprocessing

CLASSES = ("ring", "disc", "cross")
PREPROCESSING = Preprocessing(
    mean=(0.0,), std=(1 / 255,), size=(4, 4), crop=0.875
)  # size: not ours
HEIGHT, WIDTH, OBJECTS, MOST = 20, 24, 5, 8


class Told:
    """Pictures [20, 24, 1] whose row m holds detection m: box, score of 255, class, whether it is.

    Some are near to an object, the last object is crowd now and then, and the files were half as high.
    """

    name, classes = "told", CLASSES

    def __init__(self, count: int, *, seed: int = 0):
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng((self.seed, index))
        corner = random.integers(0, 10, (OBJECTS, 2))
        boxes = np.concatenate([corner, corner + random.integers(4, 12, corner.shape)], 1)
        labels = random.integers(0, len(CLASSES), OBJECTS)
        valid = np.arange(OBJECTS) < random.integers(0, OBJECTS + 1)
        image = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
        near = np.arange(MOST) % OBJECTS
        shifted = boxes[near] + random.integers(0, 2, (MOST, 4))
        scores = np.sort(random.integers(0, 32, MOST))[::-1] * 8
        rows = [shifted, scores[:, None], labels[near][:, None], (np.arange(MOST) < 6)[:, None]]
        image[:MOST, :7, 0] = np.concatenate(rows, 1)
        return {
            "image": image,
            "boxes": np.where(valid[:, None], boxes, 0).astype(np.float32),
            "labels": labels.astype(np.int32),
            "box_valid": valid,
            "crowd": valid & (np.arange(OBJECTS) == 3),
            "size": np.array([HEIGHT, WIDTH], np.int32),
            "scale": np.array([2.0, 1.0], np.float32),
        }


class Reader(nn.Module):
    """[B, H, W, 1] -> boxes and the rest, as told in the first rows; "confidence" [B] is trained."""

    num_classes: int = len(CLASSES)

    @nn.compact
    def __call__(
        self, image: jax.Array, truth: Any = None, *, train: bool = False
    ) -> dict[str, jax.Array]:
        weight = self.param("weight", nn.initializers.ones, ())
        rows = jnp.round(image[:, :MOST, :, 0])
        return {
            "stage1": image,
            "boxes": rows[..., :4],
            "scores": rows[..., 4] / 255,
            "labels": rows[..., 5].astype(jnp.int32),
            "valid": rows[..., 6] > 0,
            "confidence": weight * rows[..., 4].mean(-1),
        }


def loss(outputs: Any, batch: Any) -> dict[str, jax.Array]:
    """{"much" [B], "many" [B]}: how confident, and how many objects that are not crowd."""
    return {
        "much": outputs["confidence"] ** 2 / 100,
        "many": batch["box_valid"].sum(-1).astype(jnp.float32),
    }


task = partial(detection, preprocessing=PREPROCESSING, classes=CLASSES, loss=loss)


def run(**changes: Any) -> Run:
    """A Run of 2 epochs of 4 steps, with what a test wants otherwise."""
    return Run(
        model=Reader(),
        task=task(),
        train=Told(32),
        evaluate={"val": Told(21, seed=1)},
        optimizer=optax.sgd(0.001),
        epochs=2,
        batch_size=8,
        monitor=("val/ap50", "max"),
    )._replace(**changes)
