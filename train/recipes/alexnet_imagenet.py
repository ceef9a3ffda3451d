"""AlexNet on ImageNet, as in 2012."""

from functools import partial

import optax

import zoo
from train import augment
from train.data import evaluation_split, open_source
from train.optim import optimizers, param_groups, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification
from zoo.preprocess import uncropped_size


def recipe(
    *,
    source: str = "tfds:imagenet2012",
    model: str = "alexnet_2012",
    image_size: int | None = None,
    learning_rate: float = 0.01,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    epochs: int = 90,
    seed: int = 0,
) -> Run:
    """AlexNet with the training of 2012: ten-crop evaluation, colors along their main axes.

    Command: python -m train alexnet_imagenet --source folder:IMAGENET
    Data: ILSVRC 2012, the middle 256 x 256 of each image, parts of 227 x 227 out of it.
    Source: Krizhevsky et al. 2012, sections 4 and 5. The rate is for batches of 128. The paper
    drops it three times by hand; here after 20, 40 and 60 of 90 epochs, Caffe's first three.
    Biases learn twice as fast and do not decay, as in Caffe.
    Paper: top-1 error 40.7 %, top-5 18.2 % on the validation set, one net, ten crops (table 2).
    Ours: not run here, needs ImageNet.
    """
    seen = zoo.model_card(model).preprocessing
    seen = seen._replace(size=(image_size, image_size)) if image_size else seen
    data = open_source(source, size=uncropped_size(seen), seed=seed)
    train, evaluate = data["train"], evaluation_split(data)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(20 / 90, 40 / 90, 60 / 90))
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=classification(
            preprocessing=seen,
            classes=train.classes,
            augment=augment.images(
                partial(augment.crop, size=seen.size), augment.flip, augment.pca_color
            ),
            crops=10,
        ),
        train=train,
        evaluate=evaluate,
        optimizer=optax.chain(
            optimizers.create_optimizer("momentum_inside", rate, weight_decay=weight_decay),
            param_groups.scale_by_path({".*/bias": 2.0}),
        ),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
        preprocessing=seen,
    )
