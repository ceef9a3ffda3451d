"""YOLO's first version on Pascal VOC, by the paper's schedule."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

import zoo
from train import augment
from train.augment import scene, zoom
from train.data import evaluation_split, open_boxes
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.detection import detection
from zoo.canvas import Canvas
from zoo.losses import yolo_v1_loss


def recipe(
    *,
    source: str = "tfds:voc/2007",
    model: str = "yolov1",
    weights: str | None = None,
    image_size: int = 448,
    learning_rate: float = 1e-2,
    weight_decay: float = 5e-4,
    batch_size: int = 64,
    epochs: int = 135,
    seed: int = 0,
) -> Run:
    """YOLO, Fast YOLO and darknet's form of it with the training of 2016.

    Command: python -m train yolov1_voc --model yolov1 --source tfds:voc/2007
    Data: Pascal VOC; the paper trains on 2007 and 2012 together. `weights` are a YOLO's, darknet's
    .weights too, from which the training goes on; the paper's first 20 layers come from ImageNet.
    Source: Redmon et al. 2016, section 2.2: batches of 64, momentum 0.9, decay 5e-4, 135 epochs,
    75 of them at 1e-2, to which the rate rises from 1e-3 in the first (here five), 30 at 1e-3 and
    30 at 1e-4; scale and translation by up to 20 %, exposure and saturation by up to 1.5.
    Mirror images and the hue's 0.1 are darknet's, whose gradient is half of equation 3's.
    Paper: VOC 2007 mAP 63.4 (yolov1), 52.7 (yolov1_tiny).
    Ours: not trained here, needs VOC and a GPU.
    """
    canvas = Canvas((image_size, image_size))
    data = open_boxes(source, canvas=canvas, seed=seed)
    train = data["train"]
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(75 / 135, 105 / 135))
    rate = schedules.warmup(rate, steps * 5 // 135, start=learning_rate / 10)
    preprocessing = zoo.model_card(model).preprocessing._replace(size=canvas.size)
    classes = len(train.classes)
    module, variables = zoo.create_model(model, num_classes=classes), None
    if weights is not None:
        module, variables = zoo.load_model(model, weights, num_classes=classes)
    return Run(
        model=module,
        task=detection(
            preprocessing=preprocessing,
            classes=train.classes,
            augment=augment.scenes(
                scene.flip, zoom.jitter_crop, scene.image_only(partial(augment.hsv, hue=0.1))
            ),
            loss=partial(zero_loss_half, classes=classes),
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=optimizers.create_optimizer("momentum", rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        variables=variables,
        name=model,
        preprocessing=preprocessing,
    )


def zero_loss_half(
    outputs: Mapping[str, Any], batch: Mapping[str, Any], *, classes: int
) -> dict[str, jax.Array]:
    """{"grid" [B, H, W, 5 P + K]}, batch -> {name: [B]}: what the rates of darknet are for."""
    parts = yolo_v1_loss(outputs, batch, classes=classes)
    return {name: part / 2 for name, part in parts.items()}
