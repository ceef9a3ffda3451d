"""python -m zoo convert: to our file and back to the publisher's."""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import zoo
from tests.zoo.small_models import small
from zoo.__main__ import main
from zoo.weights import publishers, read_card
from zoo.weights.adapt import flatten_variables


@pytest.fixture
def theirs(tmp_path, draw):
    """A ResNet-20 as akamaster names it, and its variables by path."""
    model = zoo.create_model("resnet20")
    variables = flatten_variables(draw(model, (32, 32, 3)))
    tensors = publishers.export_tensors("resnet20", variables, source="akamaster")
    tensors["bn1.num_batches_tracked"] = np.int64(3)
    path = tmp_path / "theirs.npz"
    np.savez(path, **tensors)
    return path, variables, tensors


def test_there_and_back(theirs, tmp_path, capsys):
    path, variables, tensors = theirs
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    assert main(["convert", "resnet20", str(path), str(ours)]) == 0
    read, wrote = capsys.readouterr().out.splitlines()
    numbers = sum(np.size(value) for value in variables.values())
    assert read == f"read {path}: {len(tensors)} tensors, {numbers + 1:,} numbers, " + (
        f"{path.stat().st_size:,} bytes"
    )
    assert wrote == f"wrote {ours}: {len(variables)} tensors, {numbers:,} numbers, " + (
        f"{ours.stat().st_size:,} bytes"
    )
    written = load_file(ours)
    assert written.keys() == variables.keys()
    assert all(np.array_equal(written[key], variables[key]) for key in written)
    assert read_card(ours)["name"] == "resnet20" and read_card(ours)["input"] == [32, 32, 3]

    assert main(["convert", "resnet20", str(ours), str(back), "--to", "akamaster"]) == 0
    named = load_file(back)
    assert named.keys() == tensors.keys() - {"bn1.num_batches_tracked"}
    assert all(np.array_equal(named[key], tensors[key]) for key in named)
    with safe_open(back, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    _, again = zoo.load_model("resnet20", back)
    again = flatten_variables(again)
    assert all(np.array_equal(again[key], variables[key]) for key in again)


def test_what_a_run_said_is_kept(tmp_path, draw):
    model, shape = small("lenet5_modern")
    path = tmp_path / "model.safetensors"
    extra = {"classes": ["a", "b"], "note": {"seed": 3}}
    zoo.save_model("lenet5_modern", path, model, draw(model, shape), extra=extra)
    assert main(["convert", "lenet5_modern", str(tmp_path), str(tmp_path / "b")]) == 0
    assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_mistakes(theirs, tmp_path, capsys):
    path, _, tensors = theirs
    save_file({"linear.bias": tensors["linear.bias"]}, tmp_path / "few")
    (tmp_path / "there").write_text("mine")
    there, new = str(tmp_path / "there"), str(tmp_path / "new")
    cases = [
        ([str(path), there], "there already exists; use --force to overwrite it"),
        ([str(path), str(tmp_path / "no" / "b")], "expected an output file in an existing fol"),
        ([str(path), str(tmp_path), "--force"], "expected an output file"),
        (
            [str(path), new, "--to", "torchvison"],
            "unknown source 'torchvison': did you mean torchv",
        ),
        ([str(tmp_path / "few"), there, "--force"], "missing: "),
        ([str(tmp_path / "absent"), new], "no file "),
    ]
    for arguments, message in cases:
        assert main(["convert", "resnet20", *arguments]) == 2
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert (tmp_path / "there").read_text() == "mine" and not (tmp_path / "new").exists()
    assert main(["convert", "resnet20", str(path), there, "--force"]) == 0
    assert zoo.load_model("resnet20", there)[0] == zoo.create_model("resnet20")
