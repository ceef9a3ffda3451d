"""LeNet-5 on the embedded UCI digits."""

from functools import partial
from typing import Literal

import zoo
from train import augment
from train.data import open_source
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification


def recipe(
    *,
    source: str = "digits",
    model: str = "lenet5_modern",
    optimizer: str = "adamw",
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    batch_size: int | Literal["all"] = 64,
    epochs: int = 40,
    patience: int | None = None,
    seed: int = 0,
) -> Run:
    """LeNet-5 on real handwritten digits in under a minute.

    Command: python -m train lenet5_digits
    Data: UCI digits, 1,257 / 180 / 360; the same writers in all three, so this is not MNIST's task.
    Ours: 99.17 % of the 360 test digits (seed 0; 98.33, 98.89, 99.44 with seeds 1 to 3), 40 epochs,
    16 s in all on 2 cores. With 13 training labels of the 1,257 (1 %) changed at random 99.17 and
    98.61 % (seeds 0 and 1; 99.17 and 98.61 today without), and 13 and 12 of them are among the 13
    least likely ones of `evaluate lenet5_modern --split train`, whose mistakes.csv begins with these.
    """
    card = zoo.model_card(model)
    data = open_source(source, size=card.input, seed=seed)
    train, evaluate = data["train"], {name: data[name] for name in ("val", "test") if name in data}
    judge = next(iter(evaluate))
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
        evaluate=evaluate,
        optimizer=optimizers.create_optimizer(optimizer, rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        monitor=(f"{judge}/loss", "min"),  # of 180 images: their accuracy has steps of 0.6 %
        patience=patience,
        name=model,
    )
