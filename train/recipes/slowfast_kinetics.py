"""SlowFast on Kinetics."""

from functools import partial

import zoo
from train import augment
from train.augment import clip
from train.data import evaluation_split, open_clips
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.video import video


def recipe(
    *,
    source: str = "csv:kinetics400",
    model: str = "slowfast_r50",
    image_size: int = 224,
    views: tuple[int, int] = (1, 1),
    learning_rate: float = 0.1,
    weight_decay: float = 1e-4,
    batch_size: int = 64,
    epochs: int = 196,
    seed: int = 0,
) -> Run:
    """SlowFast on Kinetics-400 from scratch.

    Command: python -m train slowfast_kinetics --source csv:FOLDER
    Others: --model slowfast_4x16_r50, slow_r50. The published figures are of --views 10 3; one view of
    the middle is looked at between epochs unless that is said.
    Data: Kinetics' train.csv and validate.csv beside the videos, sides of 256 to 320, parts of 224.
    Source: Feichtenhofer et al. 2019, section 4, by PySlowFast's schedule: half a cosine of 196 epochs
    from 0.1 for 64 clips, warm-up of 34 from 0.01, dropout 0.5, the last norm of each block from 0,
    statistics of the norms over 200 batches in the end.
    Paper: top-1 75.6 % (4 x 16, R50), 77.0 % (8 x 8, R50), 77.9 % (8 x 8, R101; table 2).
    Ours: not trained here, needs Kinetics.
    """
    seen = zoo.model_card(model).preprocessing._replace(size=(image_size,) * 2)
    side = image_size * 8 // 7
    data = open_clips(source, seen, sides=(side, side * 5 // 4), views=views, seed=seed)
    train = data["train"]
    # The whole of a crop is looked at, 256 of 256.
    whole = seen._replace(size=(side, side), crop=1.0)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.cosine(learning_rate, steps=steps)
    rate = schedules.warmup(rate, steps * 34 // 196, start=learning_rate / 10)
    turned = getattr(train, "mirrored", None)
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=video(
            preprocessing=whole,
            classes=train.classes,
            augment=augment.clips(partial(clip.flip, mirrored=turned)),
        ),
        train=train,
        evaluate=evaluation_split(data),
        optimizer=optimizers.create_optimizer("nesterov", rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        precise_bn_batches=min(200, steps),
        name=model,
        preprocessing=seen,
    )
