"""Faster R-CNN on a small pyramid, from scratch: blood cells under the microscope."""

from functools import partial

import zoo
from train import augment
from train.augment import scene, zoom
from train.data import evaluation_split, open_boxes
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.detection import detection
from zoo.canvas import Canvas
from zoo.losses import rcnn_losses
from zoo.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

SIZE = (320, 416)  # of images of 480 x 640: maps of 40 x 52 and 20 x 26


def recipe(
    *,
    source: str = "folder:bccd",
    width: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 5e-2,
    batch_size: int = 4,
    epochs: int = 60,
    seed: int = 0,
) -> Run:
    """Faster R-CNN on BCCD: red and white blood cells and platelets, 205 images to train on.

    Command: python -m train fasterrcnn_bccd --source folder:PATH
    Data: PATH in Pascal VOC's layout (BCCD, Cosmicad and Shenggan, MIT license), 640 x 480. Some of
    the red cells are not annotated, on which every detector of them stops near 0.83.
    Source: Ren et al. 2015, approximate joint training, and Lin et al. 2017 for the pyramid; on a
    ResNet of three stages with BatchNorm, its maps of stride 8 and 16 and one of 32, with anchors
    of 24, 64 and 128 pixels for cells of 26 to 150, with AdamW from scratch; 64 regions an image
    of 256 proposals. A cell is its mirror image too.
    Ours: AP50 0.902 on the 87 validation images (platelets 0.897, red cells 0.812, white 0.997), by
    VOC 2007's eleven points 0.872; seed 0, 60 epochs, 82 minutes on two cores that three other
    trainings shared; 0.035 s a picture (YOLO 0.029, by turns). curves.png: 0.866 after 8 epochs.
    """
    data = open_boxes(source, canvas=Canvas(SIZE), seed=seed)
    train = data["train"]
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(learning_rate, steps=steps), steps // 20)
    preprocessing = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=SIZE)
    return Run(
        model=zoo.create_model(
            "faster_rcnn",
            backbone=zoo.create_model("resnet18", depths=(1, 2, 3), width=width, num_classes=0),
            num_classes=len(train.classes),
            width=2 * width,
            hidden=8 * width,
            anchor_sizes=((24,), (64,), (128,)),
            canonical_box_size=112.0,
            box_score_thresh=0.01,  # average precision also uses detections of low score
        ),
        task=detection(
            preprocessing=preprocessing,
            classes=train.classes,
            augment=augment.scenes(
                scene.flip,
                partial(scene.flip, vertical=True),
                zoom.jitter_crop,
                scene.image_only(partial(augment.hsv, hue=0.05)),
            ),
            loss=rcnn_losses,
            truth=True,
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=optimizers.create_optimizer("adamw", rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name="faster_rcnn",
        preprocessing=preprocessing,
    )
