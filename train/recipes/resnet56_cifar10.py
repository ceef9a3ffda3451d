"""ResNets of CIFAR-10 as published."""

from typing import Literal

import zoo
from train import augment, optimizers, schedules
from train.data import open_source, split
from train.run import Run, plan
from train.tasks.classification import classification

HELD_BACK = 1 / 10  # the paper's 45,000 and 5,000


def recipe(
    *,
    source: str = "tfds:cifar10",
    model: Literal["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"] = "resnet56",
    learning_rate: float = 0.1,
    batch_size: int = 128,
    epochs: int = 182,
    seed: int = 0,
) -> Run:
    """ResNet-20 to ResNet-110 on CIFAR-10, the paper's 64,000 steps of 128 images.

    Command: python -m train resnet56_cifar10 --source folder:FOLDER --model resnet20
    Source: He et al. 2016, section 4.2 and table 6: 8.75 % error with 20 layers, 7.51 with 32, 7.17
    with 44, 6.97 with 56, 6.43 with 110 (which begins at a rate of 0.01 until it learns; here in
    the first epoch). Rate 0.1, a tenth at half of the steps and a hundredth at three quarters.
    Ours: not run to its end here; resnet20_cifar10 is the short form that was.
    """
    card = zoo.model_card(model)
    data = open_source(source, size=card.input, seed=seed)
    train, val = split(data["train"], HELD_BACK, seed=0)
    batch_size, steps = plan(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.step(learning_rate, boundaries=[steps // 2, 3 * steps // 4])
    if model == "resnet110":
        rate = schedules.warmup(rate, steps // epochs, start=learning_rate / 10)
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=classification(
            preprocessing=card.preprocessing,
            classes=train.classes,
            augment=augment.images(augment.pad_crop, augment.flip),
        ),
        train=train,
        evaluate={"val": val} | {name: data[name] for name in ("test",) if name in data},
        optimizer=optimizers.create_optimizer("momentum", rate, weight_decay=1e-4),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        monitor=("val/accuracy", "max"),
        name=model,
    )
