"""Faster R-CNN with VGG-16 on Pascal VOC, both parts at once."""

from functools import partial
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
from zoo.losses import rcnn_losses
from zoo.preprocess import Preprocessing
from zoo.registry import variant_card


def recipe(
    *,
    source: str = "tfds:voc/2007",
    weights: str | None = "torchvision://IMAGENET1K_V1",
    learning_rate: float = 1e-3,
    weight_decay: float = 5e-4,
    batch_size: int = 2,
    epochs: int = 28,
    seed: int = 0,
) -> Run:
    """Faster R-CNN, VGG-16, approximate joint training.

    Command: python -m train fasterrcnn_voc --source tfds:voc/2007
    Data: Pascal VOC 2007 trainval, difficult objects left out; short side 600, long 1000 at most.
    `weights` are a VGG-16's trained on ImageNet: the backbone, fc6 and fc7 start from them.
    Source: Ren et al. 2015 as in py-faster-rcnn's faster_rcnn_end2end: 70,000 steps of two images
    (28 epochs of 5,011), momentum 0.9 in Caffe's form, rate 1e-3 and 1e-4 from step 50,000 on, decay
    5e-4, conv1 and conv2 still, mirror images. Biases have their kernels' rate here, twice it there;
    their sides of 16 pixels at least are the file's, here the canvas's.
    Paper: VOC 2007 test mAP 69.9 %.
    Ours: not trained here, needs VOC and a GPU.
    """
    seen = Preprocessing(**variant_card("fasterrcnn_vgg16")[0]["preprocessing"])
    wide = create_canvas(seen)
    high = wide._replace(size=wide.size[::-1])
    both = wide._replace(size=(max(wide.size),) * 2)  # in evaluation pictures share one canvas
    data = open_boxes(source, canvas=both, training=(wide, high), seed=seed)
    train = data["train"]
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(5 / 7,))
    model = zoo.create_model("fasterrcnn_vgg16", num_classes=len(train.classes))
    optimizer = optimizers.create_optimizer("momentum_inside", rate, weight_decay=weight_decay)
    return Run(
        model=model,
        task=detection(
            preprocessing=seen,
            classes=train.classes,
            augment=augment.scenes(scene.flip),
            loss=partial(rcnn_losses, roi_beta=1.0),
            truth=True,
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=param_groups.freeze_by_path(optimizer, "backbone/stage[12]_.*"),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        variables=load_start_weights(model, weights) if weights else None,
        name="fasterrcnn_vgg16",
        preprocessing=seen,
    )


def load_start_weights(model: Any, weights: str) -> dict[str, Any]:
    """Fresh variables with a classifier's: its stages, and fc6 and fc7, which read 7 x 7 there too."""
    _, trained = zoo.load_model("vgg16", weights)
    fresh = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    known = dict(trained["params"])
    head = {name: known.pop(name) for name in ("fc6", "fc7")}
    known.pop("head")
    params = {**fresh["params"], "backbone": known}
    return {**fresh, "params": {**params, "head": {**params["head"], **head}}}
