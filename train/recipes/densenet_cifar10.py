"""DenseNet-BC on CIFAR-10."""

import zoo
from train import augment
from train.data import evaluation_split, open_source
from train.optim import optimizers, param_groups, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification


def recipe(
    *,
    source: str = "tfds:cifar10",
    model: str = "densenet_bc100_k12",
    learning_rate: float = 0.1,
    weight_decay: float = 1e-4,
    batch_size: int = 64,
    epochs: int = 300,
    seed: int = 0,
) -> Run:
    """DenseNet-BC (100 layers, growth 12) on CIFAR-10 with padded parts and flips.

    Command: python -m train densenet_cifar10
    Data: CIFAR-10, 50,000 / 10,000; --source folder:FOLDER/{train,test} for another form of it.
    Source: Huang et al. 2017, section 4.2. The rate is for batches of 64, divided by 10 after 50 %
    and 75 %; no dropout, which is for training without augmentation; all parameters decay, as in
    their code.
    Paper: error 4.51 % (table 2, C10+). The last weights are kept: none are chosen on the test set.
    Ours: not run here.
    """
    card = zoo.model_card(model)
    data = open_source(source, size=card.input, seed=seed)
    train, evaluate = data["train"], evaluation_split(data)
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.decay_every(learning_rate, steps=steps, after=(0.5, 0.75))
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
            "nesterov", rate, weight_decay=weight_decay, mask=param_groups.path_mask(".*")
        ),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        name=model,
    )
