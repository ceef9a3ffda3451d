"""Faster R-CNN with ResNet-50 and a feature pyramid on COCO, as torchvision trains it."""

from typing import Any

import jax
import jax.numpy as jnp

import zoo
from train import augment
from train.augment import scene
from train.data import evaluation_split, open_boxes
from train.optim import optimizers, param_groups, schedules
from train.run import Run, plan_steps
from train.tasks.detection import detection
from zoo.canvas import create_canvas
from zoo.layers.norm import freeze_norms
from zoo.losses import rcnn_losses
from zoo.preprocess import Preprocessing
from zoo.registry import variant_card


def recipe(
    *,
    source: str = "tfds:coco/2017",
    backbone: str = "resnet50",
    weights: str | None = "torchvision://IMAGENET1K_V1",
    learning_rate: float = 0.02,
    weight_decay: float = 1e-4,
    batch_size: int = 16,
    epochs: int = 26,
    seed: int = 0,
) -> Run:
    """Faster R-CNN, ResNet-50 and FPN, torchvision's reference training.

    Command: python -m train fasterrcnn_resnet50_fpn_coco --source tfds:coco/2017
    Data: COCO 2017; short side 800, long 1333 at most, wide and high pictures in batches of their
    own. `weights` are those of a classifier on ImageNet, from which the backbone starts; its norms,
    stem and first stage stay as they are. Other batches: the rate in proportion.
    Source: torchvision's references/detection: 26 epochs of 16 images, momentum 0.9, rate 0.02,
    tenths after epochs 16 and 22, a thousand steps of warm-up from a thousandth, decay 1e-4, mirror
    images. Biases do not decay here, there they do.
    Paper: box AP 37.0 % on val2017 (torchvision's weights COCO_V1).
    Ours: not trained here, needs COCO and GPUs.
    """
    seen = Preprocessing(**variant_card("fasterrcnn_resnet50_fpn")[0]["preprocessing"])
    wide = create_canvas(seen)
    high = wide._replace(size=wide.size[::-1])
    both = wide._replace(size=(max(wide.size),) * 2)  # in evaluation pictures share one canvas
    data = open_boxes(source, canvas=both, training=(wide, high), seed=seed)
    train = data["train"]
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(16 / 26, 22 / 26))
    rate = schedules.warmup(rate, min(1000, steps // 20), start=learning_rate / 1000)
    model = zoo.create_model(
        "fasterrcnn_resnet50_fpn", backbone=backbone, num_classes=len(train.classes)
    )
    optimizer = optimizers.create_optimizer("momentum", rate, weight_decay=weight_decay)
    return Run(
        model=model,
        task=detection(
            preprocessing=seen,
            classes=train.classes,
            augment=augment.scenes(scene.flip),
            loss=rcnn_losses,
            truth=True,
            metric="coco",
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=param_groups.freeze_by_path(optimizer, "backbone/stem/.*", "backbone/stage1_.*"),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        variables=load_start_weights(model, backbone, weights) if weights else None,
        name="fasterrcnn_resnet50_fpn",
        preprocessing=seen,
    )


def load_start_weights(model: Any, backbone: str, weights: str) -> dict[str, Any]:
    """Fresh variables with a classifier's trained ones in the backbone, its norms frozen."""
    _, trained = zoo.load_model(backbone, weights, num_classes=0)
    fresh = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    still = freeze_norms(trained)
    return {kind: {**tree, "backbone": still[kind]} for kind, tree in fresh.items()}
