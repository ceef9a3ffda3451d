"""C3D on UCF101 from scratch."""

from functools import partial

import zoo
from train import augment
from train.augment import clip
from train.data import evaluation_split, open_clips
from train.optim import optimizers, param_groups, schedules
from train.run import Run, plan_steps
from train.tasks.video import video


def recipe(
    *,
    source: str = "ucf101:UCF101",
    model: str = "c3d_small",
    image_size: int = 112,
    views: tuple[int, int] = (1, 1),
    learning_rate: float = 3e-3,
    weight_decay: float = 5e-3,
    batch_size: int = 30,
    epochs: int = 190,
    seed: int = 0,
) -> Run:
    """C3D on UCF101, the small form that its authors train from scratch.

    Command: python -m train c3d_ucf101 --source ucf101:FOLDER
    Others: --views 10 1 for ten clips of each video in evaluation; the official splits 2 and 3 are
    ucf101:FOLDER:2 and :3; tfds:ucf101.
    Data: UCF101, 16 frames, sides of 128 cut to 112 x 112 and mirrored.
    Source: Tran et al. 2015, and its example for UCF101: batches of 30, 0.003 divided by 10 every 20,000
    of 60,000 steps (190 epochs of split 1), momentum 0.9, all parameters decay by 0.005.
    Paper: about 45 % of the clips of split 1 (figure 2, from scratch).
    Ours: not trained here, needs UCF101.
    """
    seen = zoo.model_card(model).preprocessing._replace(size=(image_size,) * 2)
    side = image_size * 8 // 7
    data = open_clips(source, seen, sides=(side, side), views=views, seed=seed)
    train = data["train"]
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(1 / 3, 2 / 3))
    turned = getattr(train, "mirrored", None)
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=video(
            preprocessing=seen,
            classes=train.classes,
            augment=augment.clips(partial(clip.flip, mirrored=turned)),
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=optimizers.create_optimizer(
            "momentum", rate, weight_decay=weight_decay, mask=param_groups.path_mask(".*")
        ),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
        preprocessing=seen,
    )
