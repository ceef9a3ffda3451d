"""MobileNet v2 on ImageNet."""

import zoo
from train import augment
from train.data import evaluation_split, open_cropped
from train.optim import optimizers, param_groups, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification


def recipe(
    *,
    source: str = "tfds:imagenet2012",
    model: str = "mobilenet_v2",
    image_size: int = 224,
    learning_rate: float = 0.05,
    weight_decay: float = 4e-5,
    batch_size: int = 256,
    epochs: int = 150,
    seed: int = 0,
) -> Run:
    """MobileNet v2 with momentum and a cosine, 150 epochs.

    Command: python -m train mobilenet_v2_imagenet --source folder:IMAGENET
    Data: ILSVRC 2012, random resized parts and flips.
    Source: github.com/d-li14/mobilenetv2.pytorch, whose rate is for batches of 256. The paper
    (Sandler et al. 2018, section 6.1) has RMSProp, 0.045, 0.98 an epoch, on 16 machines that did
    not wait for one another, which one program cannot repeat. Decay is the paper's.
    Paper: top-1 accuracy 72.0 % (table 4). d-li14's: 72.2 %.
    Ours: not run here, needs ImageNet.
    """
    seen = zoo.model_card(model).preprocessing._replace(size=(image_size, image_size))
    data = open_cropped(source, seen, seed=seed)
    train, evaluate = data["train"], evaluation_split(data)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    return Run(
        model=zoo.create_model(model, num_classes=len(train.classes)),
        task=classification(
            preprocessing=seen, classes=train.classes, augment=augment.images(augment.flip)
        ),
        train=train,
        evaluate=evaluate,
        optimizer=optimizers.create_optimizer(
            "momentum",
            schedules.cosine(learning_rate, steps=steps),
            weight_decay=weight_decay,
            mask=param_groups.path_mask(".*"),
        ),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
        preprocessing=seen,
    )
