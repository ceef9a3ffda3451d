"""Layouts against each layer's definition in plain numpy; names there and back."""

import zlib

import flax.linen as nn
import numpy as np
import pytest

from zoo.weights.names import rename
from zoo.weights.names.rename import (
    choose_table,
    flattened_conv_layout,
    flattened_layout,
    to_names,
    to_paths,
)
from zoo.weights.publishers import SOURCES

TABLES = [
    pytest.param(table, id=f"{source}-{family}-{number}")
    for source, families in SOURCES.items()
    for family, tables in families.items()
    for number, table in enumerate(tables)
]


def uniform(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def renamed(layout, **leaves: np.ndarray) -> dict:
    """A single layer of theirs to the variables of ours."""
    paths, unused = to_paths({f"a.{leaf}": x for leaf, x in leaves.items()}, [("a", "b", layout)])
    assert unused == []
    assert all(path.split("/")[1] == "b" for path in paths)
    variables = {"params": {}, "batch_stats": {}}
    for path, value in paths.items():
        collection, _, leaf = path.split("/")
        variables[collection][leaf] = value
    return variables


def convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    """torch.nn.Conv2d without padding: [C, H, W], [K, C / groups, h, w] -> [K, H - h + 1, …]."""
    outputs, inputs, height, width = weight.shape
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    y = np.zeros((outputs, rows, columns))
    for k in range(outputs):
        first = k // (outputs // groups) * inputs
        for i in range(rows):
            for j in range(columns):
                patch = x[first : first + inputs, i : i + height, j : j + width]
                y[k, i, j] = (patch * weight[k]).sum() + bias[k]
    return y


def transposed_convolution(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """torch.nn.ConvTranspose2d: every pixel of [C, H, W] lays down its [C, K, h, w]."""
    _, height, width = x.shape
    h, w = weight.shape[2:]
    y = np.zeros((weight.shape[1], (height - 1) * stride + h, (width - 1) * stride + w))
    for i in range(height):
        for j in range(width):
            stamp = np.einsum("c,ckhw->khw", x[:, i, j], weight)
            y[:, i * stride : i * stride + h, j * stride : j * stride + w] += stamp
    return y


def last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 0, -1)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution(groups):
    x, weight, bias = uniform(4, 5, 6), uniform(8, 4 // groups, 3, 2, seed=1), uniform(8, seed=2)
    layer = nn.Conv(8, (3, 2), padding="VALID", feature_group_count=groups)
    variables = renamed("conv", weight=weight, bias=bias)
    y = layer.apply(variables, last(x)[None])[0]
    np.testing.assert_allclose(y, last(convolution(x, weight, bias, groups)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolution(stride):
    x, weight = uniform(3, 4, 5), uniform(3, 2, 3, 2, seed=1)
    layer = nn.ConvTranspose(2, (3, 2), (stride, stride), padding="VALID")
    variables = renamed("conv_transpose", weight=weight, bias=np.zeros(2, np.float32))
    y = layer.apply(variables, last(x)[None])[0]
    expected = last(transposed_convolution(x, weight, stride))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "flatten", "from_conv"])
def test_dense(kind):
    """The same map, flattened as C, H, W there and as H, W, C here."""
    x = uniform(3, 2, 4)
    weight, bias = uniform(5, 24, seed=1), uniform(5, seed=2)
    layout = {
        "dense": "dense",
        "flatten": flattened_layout(2, 4),
        "from_conv": flattened_conv_layout(2, 4),
    }[kind]
    theirs = weight.reshape(5, 3, 2, 4) if kind == "from_conv" else weight
    variables = renamed(layout, weight=theirs, bias=bias)
    y = nn.Dense(5).apply(variables, x.ravel() if kind == "dense" else last(x).ravel())
    np.testing.assert_allclose(y, weight @ x.ravel() + bias, rtol=1e-4, atol=1e-5)


def test_norm():
    mean, var, scale, bias = (uniform(6, seed=n) + 2 for n in range(4))
    variables = renamed(
        "norm", weight=scale, bias=bias, running_mean=mean, running_var=var,
        num_batches_tracked=np.int64(7),
    )  # fmt: skip
    x = uniform(4, 6, seed=9)
    y = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, rtol=1e-4)


def test_parts():
    """One fused projection there is three here, or the other way round."""
    fused, bias = uniform(6, 4), uniform(6, seed=1)
    apart = [
        (f"attn.qkv[{n}/3]", f"attention/{name}", "dense")
        for n, name in enumerate(("query", "key", "value"))
    ]
    tensors = {"attn.qkv.weight": fused, "attn.qkv.bias": bias}
    paths, unused = to_paths(tensors, apart)
    assert unused == [] and len(paths) == 6
    np.testing.assert_array_equal(paths["params/attention/key/kernel"], fused[2:4].T)
    np.testing.assert_array_equal(paths["params/attention/value/bias"], bias[4:])
    back, unused = to_names(paths, apart)
    assert unused == []
    assert back.keys() == tensors.keys()
    np.testing.assert_array_equal(back["attn.qkv.weight"], fused)

    together = [(f"attn.{name}", f"qkv[{n}/3]", "dense") for n, name in enumerate("qkv")]
    parts = {f"attn.{name}.weight": uniform(2, 4, seed=n) for n, name in enumerate("qkv")}
    paths, unused = to_paths(parts, together)
    assert unused == []
    expected = np.concatenate(list(parts.values())).T
    np.testing.assert_array_equal(paths["params/qkv/kernel"], expected)
    back, unused = to_names(paths, together)
    assert unused == []
    assert all(np.array_equal(back[name], parts[name]) for name in parts)

    del parts["attn.k.weight"]
    assert to_paths(parts, together) == ({}, ["attn.q.weight", "attn.v.weight"])


def test_numbers_count_from_anywhere():
    table = [("layer{stage}.{block+1}.{n-1}.fc", "stage{stage}_{block}/{n}", "dense")]
    tensors = {"layer3.2.4.fc.weight": np.zeros((2, 1))}
    paths, _ = to_paths(tensors, table)
    assert list(paths) == ["params/stage3_1/5/kernel"]
    assert list(to_names(paths, table)[0]) == list(tensors)
    assert to_paths({"layer3.0.4.fc.weight": np.zeros((2, 1))}, table)[1] != []  # none before 1


def test_what_does_not_fit_is_kept_and_listed():
    table = [("a", "b", "conv"), ("old", None, "dense"), ("f", "f", flattened_layout(2, 2))]
    tensors = {
        "a.weight": np.zeros(3), "old.weight": np.zeros((2, 2)), "a.what": np.zeros(1),
        "f.weight": np.zeros((4, 7)), "ab.weight": np.zeros(1), "a.weight.more": np.zeros(1),
    }  # fmt: skip
    paths, unused = to_paths(tensors, table)
    assert {path: x.shape for path, x in paths.items()} == {
        "params/b/kernel": (3,),
        "params/f/kernel": (4, 7),
    }
    assert unused == ["a.what", "ab.weight", "a.weight.more"]


def value(entry: rename.Entry) -> np.ndarray:
    """An array that fits a row, alike for rows with the same place."""
    seed = zlib.crc32(f"{entry.ours}".encode())
    for shape in [(6, 2, 7, 7), (6, 1764), (6,)]:
        try:
            x = uniform(*shape, seed=seed)
            return entry.change.from_flax(entry.change.to_flax(x))
        except ValueError:
            continue
    raise AssertionError(entry)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_goes_there_and_back(table):
    numbers = dict(stage=2, block=3, n=5)
    rows = list(rename.expand_table(table))
    tensors = {rename.write_name(row.theirs, numbers): value(row) for row in rows}
    paths, unused = to_paths(tensors, table)
    assert unused == []
    back, unused = to_names(paths, table)
    assert unused == []
    places = {}
    for row in rows:
        if row.ours is not None:  # a second row of one place is an older name
            places.setdefault(
                (row.ours.text, row.ours.part), rename.write_name(row.theirs, numbers)
            )
    assert set(back) == set(places.values())
    assert all(np.array_equal(back[name], tensors[name]) for name in back)


def resnet20() -> dict[str, np.ndarray]:
    """The state dict of akamaster's resnet20, written out: 269,722 parameters."""
    sizes = {"conv1.weight": (16, 3, 3, 3), "linear.weight": (10, 64), "linear.bias": (10,)}
    norms = {"bn1": 16}
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(3):
            before = width // 2 if stage > 1 and block == 0 else width
            sizes[f"layer{stage}.{block}.conv1.weight"] = (width, before, 3, 3)
            sizes[f"layer{stage}.{block}.conv2.weight"] = (width, width, 3, 3)
            norms |= {f"layer{stage}.{block}.bn{n}": width for n in (1, 2)}
    for name, width in norms.items():
        leaves = ("weight", "bias", "running_mean", "running_var")
        sizes |= {f"{name}.{leaf}": (width,) for leaf in leaves}
        sizes[f"{name}.num_batches_tracked"] = ()
    return {name: uniform(*size, seed=n) for n, (name, size) in enumerate(sizes.items())}


def test_a_resnet_of_cifar():
    tensors = resnet20()
    (table,) = SOURCES["akamaster"]["resnet"]
    paths, unused = to_paths(tensors, table)
    assert unused == []
    assert sum(x.size for path, x in paths.items() if path.startswith("params/")) == 269_722
    assert paths["params/stage2_0/first/conv/kernel"].shape == (3, 3, 16, 32)
    np.testing.assert_array_equal(
        paths["params/stage3_2/second/conv/kernel"][0, 1, 2],
        tensors["layer3.2.conv2.weight"][:, 2, 0, 1],
    )
    np.testing.assert_array_equal(paths["batch_stats/stem/norm/var"], tensors["bn1.running_var"])
    back, unused = to_names(paths, table)
    assert unused == []
    assert back.keys() == {name for name in tensors if not name.endswith("num_batches_tracked")}
    assert all(np.array_equal(back[name], tensors[name]) for name in back)


def test_the_table_is_told_by_the_names():
    tensors = resnet20()
    (table,) = SOURCES["akamaster"]["resnet"]
    every = [one for source in SOURCES.values() for one in source.get("resnet", [])]
    expected = to_paths(tensors, table)[0].keys()
    assert choose_table(tensors, every, expected=expected) is table
    basic, bottleneck = SOURCES["torchvision"]["resnet"]
    theirs, _ = to_names(to_paths(tensors, table)[0], basic)
    assert choose_table(theirs, every, expected=expected) is basic
    assert choose_table(theirs, [bottleneck, basic], expected=expected) is basic
