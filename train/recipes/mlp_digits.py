"""A multi-layer perceptron on the embedded UCI digits."""

from functools import partial
from typing import Literal

import jax

import zoo
from train import augment
from train.data import open_source
from train.optim import optimizers, schedules
from train.run import Run, plan_steps
from train.tasks.classification import classification
from zoo import losses


def squared_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    """[B, K], [B] -> [B]: the squared error of the logits to the label's one-hot code."""
    return losses.squared_error(logits, jax.nn.one_hot(label, logits.shape[-1]))


def recipe(
    *,
    source: str = "digits",
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    input_dropout: float = 0.1,
    dropout: float = 0.3,
    loss: Literal["cross_entropy", "squared"] = "cross_entropy",
    optimizer: str = "adamw",
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    batch_size: int | Literal["all"] = 64,
    epochs: int = 60,
    patience: int | None = None,
    seed: int = 0,
) -> Run:
    """A multi-layer perceptron with dropout on real handwritten digits.

    Command: python -m train mlp_digits
    Ours: 98.61 % of the 360 test digits, seed 0, 60 epochs, 42 s on 2 busy cores.
    """
    card = zoo.model_card("mlp")
    data = open_source(source, size=card.input, seed=seed)
    train, evaluate = data["train"], {name: data[name] for name in ("val", "test") if name in data}
    batch_size, steps = plan_steps(train, batch_size=batch_size, epochs=epochs)
    rate = schedules.warmup(schedules.cosine(learning_rate, steps=steps), steps // 20)
    task = partial(classification, loss=squared_loss) if loss == "squared" else classification
    return Run(
        model=zoo.create_model(
            "mlp",
            num_classes=len(train.classes),
            widths=widths,
            act=activation,
            input_dropout=input_dropout,
            dropout=dropout,
        ),
        task=task(
            preprocessing=card.preprocessing,
            classes=train.classes,
            augment=augment.images(partial(augment.shift, pixels=2)),
        ),
        train=train,
        evaluate=evaluate,
        optimizer=optimizers.create_optimizer(optimizer, rate, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        monitor=(f"{next(iter(evaluate))}/loss", "min"),
        patience=patience,
        name="mlp",
    )
