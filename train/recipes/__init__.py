"""One file, one reproducible result; its docstring is the experiment card."""

from train.recipes import lenet5_digits, lenet5_mnist

RECIPES = {
    "lenet5_digits": lenet5_digits.recipe,
    "lenet5_mnist": lenet5_mnist.recipe,
}
