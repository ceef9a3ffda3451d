"""Tensor names of akamaster/pytorch_resnet_cifar10."""

from zoo.weights.names.rename import Table

RESNET: Table = [
    ("conv1", "stem/conv", "conv"),
    ("bn1", "stem/norm", "norm"),
    ("layer{stage}.{block}.conv1", "stage{stage}_{block}/first/conv", "conv"),
    ("layer{stage}.{block}.bn1", "stage{stage}_{block}/first/norm", "norm"),
    ("layer{stage}.{block}.conv2", "stage{stage}_{block}/second/conv", "conv"),
    ("layer{stage}.{block}.bn2", "stage{stage}_{block}/second/norm", "norm"),
    ("layer{stage}.{block}.shortcut.0", "stage{stage}_{block}/skip/conv", "conv"),
    ("layer{stage}.{block}.shortcut.1", "stage{stage}_{block}/skip/norm", "norm"),
    ("linear", "head", "dense"),
]

NAMES: dict[str, list[Table]] = {"resnet": [RESNET]}
