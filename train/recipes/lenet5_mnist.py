"""LeNet-5 on MNIST."""

from functools import partial
from typing import Literal

import zoo
from train import augment
from train.data import open_source, split_source
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification

VALIDATION_FRACTION = 1 / 12  # of the training images, so that no choice is made on the test images


def recipe(
    *,
    source: str = "tfds:mnist",
    model: str = "lenet5_modern",
    optimizer: str = "adamw",
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
    batch_size: int | Literal["all"] = 128,
    epochs: int = 15,
    patience: int | None = None,
    seed: int = 0,
) -> Run:
    """LeNet-5 on MNIST, shifted by up to two pixels.

    Command: python -m train lenet5_mnist --source idx:FOLDER
    Source: LeCun et al. 1998; there 99.05 % without distortions, 99.2 % with (from memory).
    Ours: 99.23 % of the 10,000 test images, seed 0, 15 epochs, 5 minutes on 2 busy cores. 5,000 of
    the 60,000 training images choose the snapshot.
    """
    card = zoo.model_card(model)
    data = open_source(source, size=card.input, seed=seed)
    train, val = split_source(data["train"], VALIDATION_FRACTION, seed=0)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(learning_rate, steps=steps), steps // 20)
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=classification(
            preprocessing=card.preprocessing,
            classes=train.classes,
            augment=augment.images(partial(augment.shift, pixels=2)),
        ),
        train=train,
        evaluate={"val": val, "test": data["test"]},
        optimizer=optimizers.create_optimizer(optimizer, rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        monitor=("val/accuracy", "max"),
        patience=patience,
        name=model,
    )
