"""DenseNet on ImageNet."""

from functools import partial

import zoo
from train import augment
from train.data import evaluation_split, open_cropped
from train.optim import optimizers, param_groups, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification


def recipe(
    *,
    source: str = "tfds:imagenet2012",
    model: str = "densenet121",
    image_size: int = 224,
    learning_rate: float = 0.1,
    weight_decay: float = 1e-4,
    batch_size: int = 256,
    epochs: int = 90,
    seed: int = 0,
) -> Run:
    """DenseNet-121 in 90 epochs.

    Command: python -m train densenet_imagenet --model densenet121 --source folder:IMAGENET
    Data: ILSVRC 2012, random resized parts, flips and colors as in fb.resnet.torch, which the
    authors used (whose order of the colors is random).
    Source: Huang et al. 2017, section 4.2. The rate is for batches of 256, with Nesterov's
    momentum; all parameters decay, as in their code.
    Paper: top-1 error 25.02 %, top-5 7.71 % with one crop (table 3; 169: 23.80, 201: 22.58).
    Ours: not run here, needs ImageNet.
    """
    seen = zoo.model_card(model).preprocessing._replace(size=(image_size, image_size))
    data = open_cropped(source, seen, seed=seed)
    train, evaluate = data["train"], evaluation_split(data)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(30 / 90, 60 / 90))
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=classification(
            preprocessing=seen,
            classes=train.classes,
            augment=augment.images(
                augment.flip,
                partial(augment.brightness, amount=0.4),
                partial(augment.contrast, amount=0.4),
                partial(augment.saturation, amount=0.4),
                augment.pca_color,
            ),
        ),
        train=train,
        evaluate=evaluate,
        optimizer=optimizers.create_optimizer(
            "nesterov", rate, weight_decay=weight_decay, mask=param_groups.path_mask(".*")
        ),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
        preprocessing=seen,
    )
