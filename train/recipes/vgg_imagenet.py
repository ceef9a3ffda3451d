"""VGG on ImageNet, as in 2014."""

from functools import partial

import zoo
from train import augment
from train.data import evaluation_split, open_source
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification
from zoo.preprocess import uncropped_size


def recipe(
    *,
    source: str = "tfds:imagenet2012",
    model: str = "vgg16",
    image_size: int = 224,
    learning_rate: float = 0.01,
    weight_decay: float = 5e-4,
    batch_size: int = 256,
    epochs: int = 74,
    seed: int = 0,
) -> Run:
    """VGG with the training of 2014, at one scale.

    Command: python -m train vgg_imagenet --model vgg16 --source folder:IMAGENET
    Data: ILSVRC 2012, the short side brought to S = 256; parts of 224 x 224 out of the middle
    256 x 256, where the paper takes them out of the whole image.
    Source: Simonyan and Zisserman 2015, section 3.1. The rate is for batches of 256. The paper
    drops it three times by hand; here after each quarter. The start is He et al. 2015's, with
    which deep ones train from the first; the paper begins with a trained vgg11.
    Paper: top-1 error 27.0 %, top-5 8.8 % on the validation set, configuration D, S = 256, whole
    images (table 3). Here one crop in the middle is evaluated.
    Ours: not run here, needs ImageNet.
    """
    seen = zoo.model_card(model).preprocessing._replace(size=(image_size, image_size))
    data = open_source(source, size=uncropped_size(seen), seed=seed)
    train, evaluate = data["train"], evaluation_split(data)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(1 / 4, 2 / 4, 3 / 4))
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=classification(
            preprocessing=seen,
            classes=train.classes,
            augment=augment.images(
                partial(augment.crop, size=seen.size), augment.flip, augment.pca_color
            ),
        ),
        train=train,
        evaluate=evaluate,
        optimizer=optimizers.create_optimizer("momentum", rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
        preprocessing=seen,
    )
