"""ResNet-50 on ImageNet, 90 epochs."""

import zoo
from train import augment
from train.data import evaluation_split, open_cropped
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification


def recipe(
    *,
    source: str = "tfds:imagenet2012",
    model: str = "resnet50",
    image_size: int = 224,
    learning_rate: float = 0.1,
    weight_decay: float = 1e-4,
    batch_size: int = 256,
    epochs: int = 90,
    seed: int = 0,
) -> Run:
    """ResNet-50 in 90 epochs, the classic training.

    Command: python -m train resnet_imagenet --source folder:IMAGENET
    Larger batches: --batch_size 1024 --learning_rate 0.4, and so on in proportion (section 2.1).
    Data: ILSVRC 2012, random resized parts and flips.
    Source: Goyal et al. 2017, section 5.1: drops after 30, 60 and 80 epochs, the last norm of each
    block begins at 0, norms do not decay, five epochs of warm-up from 0.1, which do nothing at the
    default rate, for batches of 256. Torchvision's reference differs: no zeros, decay of norms
    too, plain momentum, drops at 30 and 60.
    Paper: top-1 error 23.60 % +- 0.12 (table 1, batch 256). Torchvision's: 76.13 % accuracy.
    Ours: not run here, needs ImageNet.
    """
    seen = zoo.model_card(model).preprocessing._replace(size=(image_size, image_size))
    data = open_cropped(source, seen, seed=seed)
    train, evaluate = data["train"], evaluation_split(data)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(30 / 90, 60 / 90, 80 / 90))
    rate = schedules.warmup(rate, steps * 5 // 90, start=min(0.1, learning_rate))
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes), zero_init=True),
        task=classification(
            preprocessing=seen,
            classes=train.classes,
            augment=augment.images(augment.flip),
        ),
        train=train,
        evaluate=evaluate,
        optimizer=optimizers.create_optimizer("nesterov", rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
        preprocessing=seen,
    )
