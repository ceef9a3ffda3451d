"""ResNet-20 on CIFAR-10, in the hour that two cores have."""

import zoo
from train import augment, optimizers, schedules
from train.data import open_source
from train.run import Run, plan
from train.tasks.classification import classification

SIDE = 32
SUITED = {  # fields that suit a model of large images to small ones
    "mobilenet_v2": dict(strides=(1, 1, 2, 2, 2)),
    "vit_ti_16": dict(patch=4, image_size=SIDE),
}


def recipe(
    *,
    source: str = "tfds:cifar10",
    model: str = "resnet20",
    optimizer: str = "nesterov",
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    epochs: int = 13,
    seed: int = 0,
) -> Run:
    """ResNet-20 on CIFAR-10: a tenth of the paper's epochs, on a cosine.

    Command: python -m train resnet20_cifar10 --source folder:FOLDER
    Source: He et al. 2016, section 4.2 (91.25 % after 182 epochs, recipe resnet56_cifar10); pad,
    crop and flip are theirs, the schedule is Loshchilov and Hutter 2017.
    No choice is made on the test images: the last weights are kept.
    """
    fields = SUITED.get(model, {})
    card = zoo.model_card(model, **fields)
    preprocessing = card.preprocessing._replace(size=(SIDE, SIDE), crop=1.0)
    data = open_source(source, size=(SIDE, SIDE, 3), seed=seed)
    train, evaluate = data["train"], {name: data[name] for name in ("val", "test") if name in data}
    batch_size, steps = plan(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(learning_rate, steps=steps), steps // 20)
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes), **fields),
        task=classification(
            preprocessing=preprocessing,
            classes=train.classes,
            augment=augment.images(augment.pad_crop, augment.flip),
        ),
        train=train,
        evaluate=evaluate,
        optimizer=optimizers.create_optimizer(optimizer, rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
        preprocessing=preprocessing,
    )
