"""A small U-Net on scenes of real digits that the project draws itself: offline."""

from functools import partial

import zoo
from train import augment
from train.augment import scene
from train.data import evaluation_split, open_masks
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.segmentation import segmentation
from zoo.preprocess import Preprocessing


def recipe(
    *,
    source: str = "digit_scenes",
    width: int = 16,
    depth: int = 3,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    batch_size: int = 16,
    epochs: int = 40,
    seed: int = 0,
) -> Run:
    """U-Net on digit_scenes: which pixel belongs to which digit, on cluttered canvases.

    Command: python -m train unet_digit_scenes
    Data: synthetic scenes of the embedded real digits (UCI), 128 x 128, 1,000 / 100 / 200 images;
    no digit of one part is in another.
    Source: Ronneberger et al. 2015, padded, with BatchNorm; dice beside the cross-entropy, for nine
    pixels of ten are background: Milletari et al. 2016, V-Net, section 3.
    Ours: not measured to the end; --epochs 4 parts digits from background, mean IoU 0.104, no more.
    """
    data = open_masks(source, seed=seed)
    train = data["train"]
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(learning_rate, steps=steps), steps // 20)
    side = train[0]["image"].shape
    gray = (0.5,) * side[2], (0.25,) * side[2]
    preprocessing = Preprocessing(*gray, size=side[:2], crop=1.0)
    return Run(
        model=zoo.create_model(
            "unet_same", num_classes=len(train.classes), width=width, depth=depth
        ),
        task=segmentation(
            preprocessing=preprocessing,
            classes=train.classes,
            augment=augment.scenes(
                partial(scene.affine, degrees=10.0, factors=(0.8, 1.25), mode="reflect"),
                scene.image_only(partial(augment.brightness, amount=0.2)),
            ),
            loss=("cross_entropy", "dice"),
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=optimizers.create_optimizer("adamw", rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        monitor=("val/mean_iou", "max") if "val" in data else None,
        name="unet_same",
        preprocessing=preprocessing,
    )
