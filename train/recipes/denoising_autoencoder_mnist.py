"""Denoising with a convolutional auto-encoder on MNIST."""

from typing import Literal

from train.recipes import autoencoder_mnist
from train.run import Run
from train.tasks.reconstruction import Loss


def recipe(
    *,
    source: str = "tfds:mnist",
    model: str = "conv_autoencoder",
    noise: float = 0.5,
    loss: Loss = "cross_entropy",
    optimizer: str = "adam",
    learning_rate: float = 2e-3,
    weight_decay: float = 0.0,
    batch_size: int | Literal["all"] = 128,
    epochs: int = 8,
    patience: int | None = None,
    seed: int = 0,
) -> Run:
    """A convolutional auto-encoder that takes Gaussian noise off MNIST.

    Command: python -m train denoising_autoencoder_mnist --source idx:FOLDER
    Source: Vincent et al. 2008, with convolutions and Gaussian noise.
    Ours: squared error 9.08 per test image, seed 0, 8 epochs, 23 minutes on 2 busy cores.
    """
    return autoencoder_mnist.recipe(**locals())
