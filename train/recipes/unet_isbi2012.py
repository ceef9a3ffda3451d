"""U-Net on the membranes of the ISBI 2012 challenge."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

import zoo
from train import augment
from train.augment import scene
from train.data import evaluation_split, open_masks, with_pixel_weights
from train.data.source import Subset
from train.metrics.connected_components import border_weights, connected_components
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.segmentation import segmentation
from zoo.inference.tiling import average_rotations
from zoo.preprocess import Preprocessing


def recipe(
    *,
    source: str = "folder:isbi2012",
    splits: str = "0-19 / 20-24",
    width: int = 24,
    crop: int = 256,
    crops_per_image: int = 16,
    border_weight: float = 3.0,
    elastic_deviation: float = 0.0,
    test_time_flips: bool = True,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    batch_size: int = 4,
    epochs: int = 18,
    seed: int = 0,
) -> Run:
    """U-Net on the ISBI 2012 challenge: cells and the membranes between them, from 20 images.

    Command: python -m train unet_isbi2012 --source folder:PATH
    Data: PATH/image and PATH/label, 512 x 512, 0 = membrane, 255 = cell; neighboring slices are
    alike, so that blocks are held out. An epoch is `crops_per_image` crops of each image.
    Knobs: --border is w0 of the weights between cells (0: none), --elastic the deviation of the
    deformation in pixels (0: none), --no-mirrored leaves out the eight turned and mirrored views.
    Source: Ronneberger et al. 2015, sections 3 and 3.1; there 512 x 512 by valid convolutions and
    SGD of momentum 0.99, here padding, BatchNorm and AdamW.
    Ours: seed 0, five held-out slices, mean IoU, Rand and information after thinning:
        as it is                                0.801 (membrane 0.694, cell 0.908), 0.952, 0.971
        the same, four views, one view          0.799, 0.954, 0.971; 0.793, 0.956, 0.966
        --width 16 --epochs 25                  0.800 (0.79995), 0.967, 0.974
        and --border 4, four views (one)        0.798, 0.969, 0.976 (0.795, 0.962, 0.975)
        and --elastic 10                        0.796, 0.971, 0.975 (0.793, 0.954, 0.972)
    The first took 78 minutes of processor time, 67 by the clock beside others (curves.png: 0.802 after
    10 epochs, at best 0.805 after 13). --width 16, --elastic 10, four views, 10 epochs: --border 10
    0.780, 0.931, 0.964, --border 0 0.757, 0.880, 0.960.
    """
    data = open_masks(
        source, classes=("membrane", "cell"), values=(0, 255), splits=splits, seed=seed
    )
    preprocessing = Preprocessing(mean=(0.5,), std=(0.25,), size=(crop, crop), crop=1.0)
    train = with_pixel_weights(data["train"], partial(pixel_weights, border=border_weight))
    train = Subset(train, np.tile(np.arange(len(train)), crops_per_image))
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(learning_rate, steps=steps), steps // 20)
    return Run(
        model=zoo.create_model("unet_same", num_classes=2, width=width),
        task=segmentation(
            preprocessing=preprocessing,
            classes=train.classes,
            augment=create_augmentation(crop, elastic=elastic_deviation),
            predict=average_rotations if test_time_flips else None,
            membrane=0,
            palette=np.array([[0, 0, 0], [255, 255, 255]], np.uint8),
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=optimizers.create_optimizer("adamw", rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name="unet_same",
        preprocessing=preprocessing,
    )


def pixel_weights(example: Mapping[str, np.ndarray], *, border: float) -> np.ndarray:
    """An example -> [H, W], 1 and, between cells, up to `border` more."""
    return border_weights(
        connected_components(example["mask"]), w0=border, class_weights=(1.0, 1.0)
    )


def create_augmentation(crop: int, *, elastic: float) -> Callable:
    """Turned, scaled, bent, cut out and mirrored; brighter or darker."""
    bent = [partial(scene.elastic, deviation=elastic, mode="reflect")] if elastic > 0 else []
    return augment.scenes(
        partial(scene.affine, degrees=180.0, factors=(0.8, 1.25), mode="reflect"),
        *bent,
        partial(scene.crop, size=(crop, crop)),
        scene.flip,
        scene.image_only(partial(augment.brightness, amount=0.2)),
        scene.image_only(partial(augment.contrast, amount=0.2)),
    )
