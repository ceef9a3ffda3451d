"""A segmenter of one's choice on CamVid's road scenes; torchvision's FCN unless told otherwise."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from train import augment
from train.augment import scene
from train.data import evaluation_split, open_masks
from train.data.source import Source
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.segmentation import segmentation
from zoo.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip
IGNORE_VALUE = 11
IMAGENET_TAG = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=(180, 240), crop=1.0)


def recipe(
    *,
    source: str = "folder:camvid",
    model: str = "fcn_resnet50",
    backbone: str | None = None,
    weights: str | None = None,
    width: int | None = None,
    crop: int = 160,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    batch_size: int = 8,
    epochs: int = 40,
    seed: int = 0,
) -> Run:
    """CamVid: eleven classes of road scenes, 367 images to train on.

    Command: python -m train fcn_resnet50_camvid --source folder:PATH
    On a CPU: --model unet_same --width 16. With another backbone: --backbone resnet18, and
    --weights torchvision://IMAGENET1K_V1, a classifier's that the backbone starts from.
    Data: PATH/{train,trainannot,val,valannot}, 11 = ignored (Brostow et al. 2009, as SegNet cut it).
    Source: Long et al. 2015 for the net; classes by the median of frequencies, Badrinarayanan et
    al. 2017, SegNet, section 4; random scales and crops as in DeepLab.
    Ours: --model unet_same --width 16, 40 epochs, seed 0: mean IoU 0.501 on val, pixels 79.6 %; sky
    .91, building .47, pole .05, road .91, pavement .76, tree .85, sign .14, fence .29, car .49,
    pedestrian .17, bicyclist .47; 58 minutes on two cores that other work shared.
    """
    data = open_masks(source, classes=CLASSES, ignore=IGNORE_VALUE, seed=seed)
    train = data["train"]
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(learning_rate, steps=steps), steps // 20)
    fields = {name: value for name, value in (("backbone", backbone), ("width", width)) if value}
    module = zoo.create_model(model, num_classes=len(CLASSES), **fields)
    return Run(
        model=module,
        task=segmentation(
            preprocessing=IMAGENET_TAG,
            classes=CLASSES,
            augment=augment.scenes(
                partial(scene.scaled_crop, size=(crop, crop), factors=(0.75, 2.0)),
                scene.flip,
                scene.image_only(partial(augment.brightness, amount=0.3)),
                scene.image_only(partial(augment.contrast, amount=0.3)),
                scene.image_only(partial(augment.saturation, amount=0.3)),
            ),
            class_weights=median_frequency(train),
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=optimizers.create_optimizer("adamw", rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        variables=load_start_weights(module, backbone, weights) if weights else None,
        name=model,
        preprocessing=IMAGENET_TAG,
    )


def median_frequency(source: Source) -> np.ndarray:
    """Masks [H, W] of K classes -> [K] weights: the median of the classes' frequencies over each.

    A class's frequency is its share of the images that it is in; one that is in none weighs 0.

    Source: Eigen and Fergus 2015, section 4.3.2.
    """
    pixels = [
        np.bincount(source[i]["mask"].ravel(), minlength=256)[: len(source.classes)]
        for i in range(len(source))
    ]
    counts = np.stack(pixels).astype(np.float64)
    present = counts > 0
    frequency = counts.sum(0) / np.maximum((present * counts.sum(1, keepdims=True)).sum(0), 1)
    median = np.median(frequency[frequency > 0])
    return np.where(frequency > 0, median / np.maximum(frequency, 1e-12), 0.0)


def load_start_weights(module: Any, backbone: str | None, weights: str) -> dict[str, Any]:
    """The segmenter's fresh variables with a classifier's trained ones in its backbone."""
    if backbone is None:
        raise ValueError("weights are a classifier's: name it, --backbone resnet50 for instance")
    _, trained = zoo.load_model(backbone, weights, num_classes=0)
    image = jnp.zeros((1, *IMAGENET_TAG.size, 3))
    fresh = module.init(jax.random.key(0), image)
    return {kind: {**tree, "backbone": trained[kind]} for kind, tree in fresh.items()}
