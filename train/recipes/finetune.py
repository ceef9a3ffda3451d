"""Any model, from any weights, on any folder of images."""

import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import optax
from flax import linen as nn

import zoo
from train import augment
from train.data import evaluation_split, inverse_frequency, labels_of, open_cropped
from train.optim import optimizers, param_groups, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification
from zoo.preprocess import Preprocessing
from zoo.weights import read_preprocessing

logger = logging.getLogger("train")
AugmentationName = Literal["none", "light", "strong"]
CROP_SCALES = {"none": None, "light": (0.35, 1.0), "strong": (0.08, 1.0)}  # of a part's area
IMAGE_SHAPE = {
    "none": (),
    "light": (augment.flip,),
    "strong": (augment.flip, augment.trivial_augment, partial(augment.erase, probability=0.25)),
}


def recipe(
    *,
    source: str = "folder:images",
    model: str = "resnet50",
    weights: str | None = "torchvision://IMAGENET1K_V1",
    image_size: int | None = None,
    augmentation: AugmentationName = "light",
    mixup: float = 0.0,
    label_smoothing: float = 0.0,
    balance: bool = False,
    head_only: bool = False,
    freeze: tuple[str, ...] = (),
    layer_decay: float = 1.0,
    optimizer: str = "adamw",
    learning_rate: float = 1e-4,
    weight_decay: float = 0.05,
    batch_size: int | Literal["all"] = 32,
    epochs: int = 20,
    patience: int | None = None,
    seed: int = 0,
) -> Run:
    """Fine-tuning: any model, any weights (or none), any folder of class folders.

    Command: python -m train finetune --source folder:PATH --weights torchvision://IMAGENET1K_V2
    The head alone: --head-only --learning-rate 1e-3. A ViT: --model vit_b_16 --layer-decay 0.75. A
    part: --freeze 'stem/.*' 'stage1_.*', whose BatchNorm statistics stay too, as in timm.
    Ours: depends on the folder; nothing is claimed.
    """
    seen, fields = input_preprocessing(model, weights, image_size=image_size)
    data = open_cropped(source, seen, scale=CROP_SCALES[augmentation], seed=seed)
    train, classes = data["train"], len(data["train"].classes)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(learning_rate, steps=steps), steps // 20)
    module, variables = load_start_weights(model, weights, num_classes=classes, **fields)
    *groups, head = param_groups.count_layers(module, (*seen.size, len(seen.mean)))
    frozen = (f"(?!{head}).*",) if head_only else freeze
    whole = optimizers.create_optimizer(optimizer, rate, weight_decay=weight_decay)
    chain = optax.chain(whole, param_groups.layer_decay(groups, decay=layer_decay))
    return Run(
        model=module,
        task=classification(
            preprocessing=seen,
            classes=train.classes,
            augment=create_augmentation(augmentation, mixup=mixup, classes=classes),
            label_smoothing=label_smoothing,
            class_weights=inverse_frequency(labels_of(train), classes) if balance else None,
        ),
        train=train,
        evaluate={name: source for name, source in data.items() if name != "train"},
        optimizer=param_groups.freeze_by_path(chain, *frozen) if frozen else chain,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        monitor=(f"{next(iter(evaluation_split(data)))}/accuracy", "max"),
        patience=patience,
        variables=variables,
        frozen_norms=frozen,
        name=model,
        preprocessing=seen,
    )


def input_preprocessing(
    model: str, weights: str | None, *, image_size: int | None
) -> tuple[Preprocessing, dict[str, int]]:
    """-> the weights' preprocessing, else the model's, at `image_size`; the fields that follow it."""
    if weights:
        seen = read_preprocessing(model, weights)
    else:
        seen = zoo.model_card(model).preprocessing
    if image_size is None:
        return seen, {}
    sized = hasattr(zoo.create_model(model), "image_size")
    return seen._replace(size=(image_size,) * 2), {"image_size": image_size} if sized else {}


def load_start_weights(
    model: str, weights: str | None, **fields: Any
) -> tuple[nn.Module, Mapping[str, Any] | None]:
    """-> the module, and the variables to start from; None where the loop draws them."""
    if weights is None:
        return zoo.create_model(model, **fields), None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded = zoo.load_model(model, weights, **fields)
    for warning in said:  # the fresh head, which here is no accident
        logger.info("%s", warning.message)
    return loaded


def create_augmentation(strength: AugmentationName, *, mixup: float, classes: int) -> Callable:
    """-> augment(keys [B], batch) -> batch, without the parts that are cut while decoding."""
    functions = [augment.images(*IMAGE_SHAPE[strength])]
    if mixup:
        functions.append(partial(augment.mixup, classes=classes, alpha=mixup))
    return augment.chain(*functions)
