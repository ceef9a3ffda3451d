"""One file, one reproducible result; its docstring is the experiment card.

A recipe returns a Run. A method of several trainings is a script: it takes `workdir` and `layout`
besides its knobs, calls the loop itself and returns nothing.
"""

from train.recipes import (
    autoencoder_mnist,
    denoising_autoencoder_mnist,
    greedy_autoencoder_mnist,
    lenet5_digits,
    lenet5_mnist,
    mlp_digits,
    perceptron_digits,
    resnet20_cifar10,
)

RECIPES = {
    "lenet5_digits": lenet5_digits.recipe,
    "lenet5_mnist": lenet5_mnist.recipe,
    "mlp_digits": mlp_digits.recipe,
    "perceptron_digits": perceptron_digits.recipe,
    "resnet20_cifar10": resnet20_cifar10.recipe,
    "autoencoder_mnist": autoencoder_mnist.recipe,
    "denoising_autoencoder_mnist": denoising_autoencoder_mnist.recipe,
    "greedy_autoencoder_mnist": greedy_autoencoder_mnist.script,
}
