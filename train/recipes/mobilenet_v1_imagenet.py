"""MobileNet v1 on ImageNet."""

import optax

import zoo
from train import augment
from train.data import evaluation_split, open_cropped
from train.optim import optimizers, param_groups
from train.run import Run, plan_steps
from train.tasks.classification import classification

DEPTHWISE = ".*/depthwise/.*"


def recipe(
    *,
    source: str = "tfds:imagenet2012",
    model: str = "mobilenet_v1",
    image_size: int = 224,
    learning_rate: float = 0.045,
    weight_decay: float = 4e-5,
    batch_size: int = 96,
    epochs: int = 200,
    seed: int = 0,
) -> Run:
    """MobileNet v1 with RMSProp, after its paper and TensorFlow's code.

    Command: python -m train mobilenet_v1_imagenet --model mobilenet_v1_050 --source folder:IMAGENET
    Data: ILSVRC 2012, random resized parts of 25 % or more of the image, and flips.
    Source: Howard et al. 2017, section 3.2: RMSProp as of Inception v3, small distortions, no decay
    of depthwise filters. The paper has no figures beyond that: those of RMSProp and the rate's
    drop of 6 % every 2.5 epochs are of the authors' code in TensorFlow-Slim, batch and decay of
    MobileNet v2's paper, the length ours. They trained on many machines without waiting for one
    another, so their rate is for nobody's batch.
    Paper: top-1 accuracy 70.6 % (table 8; width 0.75: 68.4, 0.5: 63.7, 0.25: 50.6, table 6).
    Ours: not run here, needs ImageNet.
    """
    seen = zoo.model_card(model).preprocessing._replace(size=(image_size, image_size))
    data = open_cropped(source, seen, scale=(0.25, 1.0), seed=seed)
    train, evaluate = data["train"], evaluation_split(data)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    every = max(1, round(2.5 * steps / epochs))
    rate = optax.exponential_decay(learning_rate, every, 0.94, staircase=True)
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=classification(
            preprocessing=seen, classes=train.classes, augment=augment.images(augment.flip)
        ),
        train=train,
        evaluate=evaluate,
        optimizer=optax.chain(
            optimizers.add_penalty(
                l2=weight_decay, mask=param_groups.path_mask(f"(?!{DEPTHWISE}).*/kernel")
            ),
            optax.rmsprop(rate, decay=0.9, eps=1.0, initial_scale=1.0, momentum=0.9),
        ),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
        preprocessing=seen,
    )
