"""ResNets of CIFAR-10 as published."""

import zoo
from train import augment
from train.data import evaluation_split, open_source
from train.optim import optimizers, param_groups, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification


def recipe(
    *,
    source: str = "tfds:cifar10",
    model: str = "resnet56",
    learning_rate: float = 0.1,
    weight_decay: float = 1e-4,
    batch_size: int = 128,
    epochs: int = 164,
    seed: int = 0,
) -> Run:
    """ResNet-20 to ResNet-110 on CIFAR-10, the paper's 64,000 steps of 128 images.

    Command: python -m train resnet56_cifar10 --model resnet20
    Data: CIFAR-10, 50,000 / 10,000; --source folder:FOLDER/{train,test} for another form of it.
    Source: He et al. 2016, section 4.2: a tenth of the rate from half of the steps on, a hundredth
    from three quarters; ResNet-110 begins its first epoch at a tenth too. All parameters decay, as
    in Caffe.
    Paper: error 8.75 % with 20 layers, 7.51 with 32, 7.17 with 44, 6.97 with 56, 6.43 with 110
    (table 6). The last weights are kept: none are chosen on the test set.
    Ours: not run here; resnet20_cifar10 is the short form that was.
    """
    card = zoo.model_card(model)
    data = open_source(source, size=card.input, seed=seed)
    train, evaluate = data["train"], evaluation_split(data)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(32 / 64, 48 / 64))
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
        evaluate=evaluate,
        optimizer=optimizers.create_optimizer(
            "momentum_inside", rate, weight_decay=weight_decay, mask=param_groups.path_mask(".*")
        ),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
    )
