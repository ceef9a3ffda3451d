"""darknet's .weights: files laid out by hand, and run by hand as darknet runs them, in plain numpy."""

import struct
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.__main__ import main
from zoo.models import yolo
from zoo.ops.yolo_grid import split_grid
from zoo.registry import variant_card
from zoo.weights.adapt import flatten_variables
from zoo.weights.readers import read_tensors

LAYERS = ((2, 3, 2), None, None, None, (3, 1, 1), None, (4, 3, 2))  # 448 to 7
CASES: dict[str, dict[str, Any]] = {  # the variants, made small; what follows the convolutions
    "yolov1": dict(layers=LAYERS, hidden=5),
    "yolov1_darknet": dict(layers=LAYERS, local=2),
    "yolov1_tiny": dict(layers=LAYERS),
}
K, SIDE = 3, 7


def header(major=0, minor=2, revision=0, seen=64, long=True):
    return struct.pack("<3iQ" if long else "<3iI", major, minor, revision, seen)


def write(path, name, head, *, transposed=False, classes=K, seed=0):
    """Layers in darknet's layouts, [(kind, arrays)], and their numbers in a file, in its order."""
    random = np.random.default_rng(seed)
    model = zoo.create_model(name, **CASES[name])

    def draw(*shape):
        return random.normal(0, 0.5, shape).astype("<f4")

    layers, inputs = [], 3
    for layer in model.layers:
        if layer is None:
            layers.append(("maxpool", {}))
            continue
        n, size, stride = layer
        arrays = {"biases": draw(n)}
        if model.norm:
            arrays |= {"scales": draw(n), "mean": draw(n), "variance": draw(n) ** 2 + 0.5}
        layers.append(
            ("convolutional", {**arrays, "weights": draw(n, inputs, size, size), "stride": stride})
        )
        inputs = n
    if model.local:
        weights = draw(SIDE * SIDE, model.local, inputs * 9)
        layers.append(("local", {"biases": draw(model.local * SIDE * SIDE), "weights": weights}))
        inputs = model.local
    inputs *= SIDE * SIDE
    for units in [model.hidden] * bool(model.hidden) + [SIDE * SIDE * (5 * model.boxes + classes)]:
        layers.append(("connected", {"biases": draw(units), "weights": draw(units, inputs)}))
        inputs = units
    with open(path, "wb") as file:
        file.write(head)
        for kind, arrays in layers:
            for part in ("biases", "scales", "mean", "variance", "weights"):
                if part in arrays:
                    turned = transposed and kind == "connected" and part == "weights"
                    file.write((arrays[part].T if turned else arrays[part]).tobytes())
    return layers


def columns(x, size, stride):
    """im2col: [C, H, W] -> [C size size, h, w]."""
    pad = size // 2
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.moveaxis(windows, (3, 4), (1, 2)).reshape(-1, *windows.shape[1:3])


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def run(layers, image):
    """darknet's forward pass of one image [3, H, W] -> [outputs], in float64."""
    x = image.astype(np.float64)
    for number, (kind, given) in enumerate(layers):
        if kind == "maxpool":
            channels, high, wide = x.shape
            x = x.reshape(channels, high // 2, 2, wide // 2, 2).max((2, 4))
        elif kind == "convolutional":
            weights = given["weights"].reshape(len(given["weights"]), -1)
            x = np.tensordot(weights, columns(x, given["weights"].shape[2], given["stride"]), 1)
            if "scales" in given:
                mean, variance, scale = (
                    given[part].reshape(-1, 1, 1) for part in ("mean", "variance", "scales")
                )
                x = scale * (x - mean) / np.sqrt(variance + 1e-5)
            x = leaky(x + given["biases"].reshape(-1, 1, 1))
        elif kind == "local":
            patches = columns(x, 3, 1).reshape(-1, SIDE * SIDE)
            x = np.einsum("lnk,kl->nl", given["weights"], patches)
            x = leaky(x.ravel() + given["biases"]).reshape(-1, SIDE, SIDE)
        else:
            x = given["weights"] @ x.ravel() + given["biases"]
            x = leaky(x) if number < len(layers) - 1 else x
    return x


@pytest.mark.parametrize("name", CASES)
def test_a_file_computes_what_darknet_computes(name, tmp_path):
    layers = write(tmp_path / "net.weights", name, header())
    model, variables = zoo.load_model(name, tmp_path / "net.weights", **CASES[name])
    assert model.num_classes == K, "the size of the file determines it"
    image = np.random.default_rng(1).uniform(size=(448, 448, 3)).astype(np.float32)
    outputs: dict[str, jax.Array] = jax.jit(model.apply)(variables, image[None])
    ours = split_grid(outputs["grid"], classes=K)
    theirs = run(layers, image.transpose(2, 0, 1))
    flat = np.concatenate([np.ravel(part) for part in ours])
    np.testing.assert_allclose(flat, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name, tmp_path, monkeypatch, capsys):
    """To our file and back, by the command line: the same bytes, the number of images seen too."""
    path, ours, back = (tmp_path / file for file in ("a.weights", "b.safetensors", "c.weights"))
    write(path, name, header(seen=12_800_064))
    row = variant_card(name)[1]
    monkeypatch.setitem(yolo.VARIANTS, name, {**row, **CASES[name]})
    assert main(["convert", name, str(path), str(ours)]) == 0
    assert main(["convert", name, str(ours), str(back), "--to", "darknet"]) == 0
    assert back.read_bytes()[20:] == path.read_bytes()[20:]
    assert main(["convert", name, str(path), str(back), "--to", "darknet", "--force"]) == 0
    assert back.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("head", "transposed"),
    [
        (header(0, 1, 0, long=False), False),
        (header(0, 2, 5), False),
        (header(1, 0, 0), False),
        (struct.pack("<3fI", 5e-4, 0.9, 5e-4, 64), True),  # of before there were versions
    ],
)
def test_headers(head, transposed, tmp_path):
    name = "yolov1"
    for file in ("new.weights", "old.WEIGHTS"):
        given = (header(), False) if file.startswith("new") else (head, transposed)
        write(tmp_path / file, name, given[0], transposed=given[1])
    new, old = (
        flatten_variables(zoo.load_model(name, tmp_path / file, **CASES[name])[1])
        for file in ("new.weights", "old.WEIGHTS")
    )
    assert all(np.array_equal(new[path], old[path]) for path in new)
    assert read_tensors(tmp_path / "old.WEIGHTS")[1] == {"checkpoint": {"seen": 64}}


def test_another_number_of_classes(tmp_path):
    write(tmp_path / "net.weights", "yolov1_tiny", header())
    with pytest.warns(UserWarning, match=r"fresh head for 2 classes, where .* has 3: params/cells"):
        model, variables = zoo.load_model(
            "yolov1_tiny", tmp_path / "net.weights", **CASES["yolov1_tiny"], num_classes=2
        )
    assert variables["params"]["cells"]["bias"].shape == (SIDE * SIDE * (5 * model.boxes + 2),)


def test_told_by_content(tmp_path):
    write(tmp_path / "net.bin", "yolov1_tiny", header())
    assert set(read_tensors(tmp_path / "net.bin")[0]) == {"darknet"}
    (tmp_path / "page.weights").write_text("<html>sign in</html>")
    with pytest.raises(ValueError, match="is an HTML page"):
        read_tensors(tmp_path / "page.weights")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0" * 12, "is cut short: darknet's header has 16 bytes or more, got 12"),
        (header()[:18], "is cut short or foreign: 18 bytes are no header of 20"),
        (
            header() + b"\0" * 13,
            "is cut short or foreign: 33 bytes are no header of 20 and numbers",
        ),
        (header(), r"got 0; use a complete file"),
        (header() + b"\0" * 4000, r"expected [\d,]+ numbers, for 20 classes, .*, got 1,000"),
        (
            struct.pack("<3iQ", 2**31 - 1, -(2**31), -1, 2**64 - 1) + b"\0" * 400,
            "use a complete file",
        ),
    ],
)
def test_files_that_lie(content, message, tmp_path):
    path = tmp_path / "net.weights"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        zoo.load_model("yolov1_tiny", path, **CASES["yolov1_tiny"])
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_models_that_darknet_does_not_have(tmp_path):
    path = tmp_path / "net.weights"
    write(path, "yolov1_tiny", header())
    for name in ("lenet5_modern", "yolo_grid"):
        with pytest.raises(ValueError, match=r"read and written for YOLOs with a head"):
            zoo.load_model(name, path)
    npz = tmp_path / "a.npz"
    np.savez(npz, darknet=jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="unused: darknet"):
        zoo.load_model("yolov1_tiny", npz, **CASES["yolov1_tiny"])
