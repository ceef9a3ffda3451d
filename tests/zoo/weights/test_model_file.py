"""Saved and loaded again, every tensor accounted for; and files that mean harm."""

import json
import pickle
import struct

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from tests.zoo.small_models import SMALL, small
from zoo.preprocess import Preprocessing
from zoo.registry import input_spec, variant_card
from zoo.weights import adapt, model_file, read_card

NAME = "lenet5_modern"


def same(ours, theirs) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))


@pytest.fixture
def saved(tmp_path, draw):
    """A file, its model and its variables."""
    model = zoo.create_model(NAME)
    variables = draw(model, (32, 32, 1))
    path = tmp_path / "model.safetensors"
    zoo.save_model(NAME, path, model, variables)
    return path, model, variables


@pytest.mark.parametrize("name", SMALL)
def test_round_trip(name, tmp_path, draw):
    model, shape = small(name)
    variables = draw(model, shape)
    extra = dict(preprocessing=input_spec(name)[1]._replace(size=shape[:2]))
    zoo.save_model(name, tmp_path / "a", model, variables, extra=extra)
    loaded, values = zoo.load_model(name, tmp_path / "a")
    assert loaded == model and same(values, variables)
    assert isinstance(jax.tree.leaves(values)[0], jax.Array)
    again = tmp_path / "b"
    zoo.save_model(name, again, loaded, values, extra=extra)
    assert again.read_bytes() == (tmp_path / "a").read_bytes()


OTHER = dict(num_classes=3, image_size=64, act="silu", padding="SAME", dropout=0.25)


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_variant_keeps_its_fields(name, tmp_path, monkeypatch):
    """Their card alone: values, of which some have gigabytes, are the test's above."""
    monkeypatch.setattr(model_file, "trace_shapes", lambda model, image: {})
    monkeypatch.setattr(adapt, "trace_shapes", lambda model, image: {})
    own = zoo.create_model(name)
    fields = {key: value for key, value in OTHER.items() if hasattr(own, key)}
    for model in (own, own.clone(**fields)):
        zoo.save_model(name, tmp_path / "a", model, {})
        again, _ = zoo.load_model(name, tmp_path / "a")
        assert again == model and type(again) is type(model)
        if hasattr(model, "remat"):  # how it is computed is no file's business
            zoo.save_model(name, tmp_path / "a", model.clone(remat=True), {})
            assert zoo.load_model(name, tmp_path / "a")[0] == model
        card = read_card(tmp_path / "a")
        seen = variant_card(name)[0]["input"]
        seen = (64, 64, *seen[2:]) if getattr(model, "image_size", 0) == 64 else seen
        assert (*card["input"],) == seen


def test_a_folder_of_a_run(saved):
    path, model, variables = saved
    loaded, values = zoo.load_model(NAME, path.parent)
    assert loaded == model and same(values, variables)


def test_keys_are_paths(saved):
    path, _, variables = saved
    tensors = load_file(path)
    assert np.array_equal(tensors["params/c3/kernel"], variables["params"]["c3"]["kernel"])
    assert len(tensors) == len(jax.tree.leaves(variables))


def test_fields_come_from_the_file(tmp_path, draw):
    model = zoo.create_model(NAME, num_classes=3, act="silu", dtype=jnp.bfloat16)
    zoo.save_model(NAME, tmp_path / "a", model, draw(model, (32, 32, 1)))
    assert zoo.load_model(NAME, tmp_path / "a")[0] == model.clone(dtype=jnp.float32)
    given, _ = zoo.load_model(NAME, tmp_path / "a", act="relu", dtype=jnp.float16)
    assert (given.act, given.dtype, given.num_classes) == ("relu", jnp.float16, 3)


def test_images_of_another_shape(tmp_path, draw):
    """Six channels at 40 x 44: what the card says of the input is the run's, not the variant's."""
    model = zoo.create_model(NAME)
    variables = draw(model, (40, 44, 6))
    preprocessing = Preprocessing((0.5,) * 6, (0.25,) * 6, (40, 44), crop=0.9)
    extra = {"preprocessing": preprocessing, "classes": ["zero", "one"]}
    zoo.save_model(NAME, tmp_path / "a", model, variables, extra=extra)
    assert same(zoo.load_model(NAME, tmp_path / "a")[1], variables)
    card = read_card(tmp_path / "a")
    assert card["input"] == [40, 44, 6] and card["classes"] == ["zero", "one"]
    assert card["preprocessing"]["crop"] == 0.9
    with pytest.raises(ValueError, match="do not fit .*32, 32, 1.*misshapen: params/c1/kernel"):
        zoo.save_model(NAME, tmp_path / "b", model, variables)
    assert not (tmp_path / "b").exists()


def test_another_number_of_classes(saved):
    path, _, variables = saved
    with pytest.warns(UserWarning, match="fresh head for 4 classes.*has 10.*output/kernel"):
        model, values = zoo.load_model(NAME, path, num_classes=4)
    assert model.num_classes == 4 and values["params"]["output"]["kernel"].shape == (84, 4)
    image = jnp.zeros((1, 32, 32, 1))
    fresh = model.init(jax.random.key(0), image)["params"].pop("output")
    head = values["params"].pop("output")
    np.testing.assert_allclose(head["kernel"], fresh["kernel"], rtol=1e-6)
    assert same(values["params"], {k: v for k, v in variables["params"].items() if k != "output"})


def test_no_head(saved):
    path, _, variables = saved
    model, values = zoo.load_model(NAME, path, num_classes=0)
    assert model.num_classes == 0 and "output" not in values["params"]
    assert same(values["params"]["f6"], variables["params"]["f6"])


def test_a_head_for_a_file_without_one(tmp_path, draw):
    model = zoo.create_model(NAME, num_classes=0)
    zoo.save_model(NAME, tmp_path / "a", model, draw(model, (32, 32, 1)))
    assert zoo.load_model(NAME, tmp_path / "a")[0] == model
    with pytest.warns(UserWarning, match="fresh head for 5 classes"):
        _, values = zoo.load_model(NAME, tmp_path / "a", num_classes=5)
    assert values["params"]["output"]["bias"].shape == (5,)


def test_accounting_lists_everything_at_once(saved):
    path, _, _ = saved
    tensors = load_file(path)
    tensors["params/c9/kernel"] = tensors.pop("params/c1/kernel")
    tensors["params/c3/bias"] = np.zeros(17, np.float32)
    tensors["params/f6/bias"] = np.zeros(84, np.int32)
    save_file(tensors, path, {"card": json.dumps({"name": NAME})})
    with pytest.raises(ValueError) as caught:
        zoo.load_model(NAME, path)
    text = str(caught.value)
    assert "\n" not in text
    assert "unused: params/c9/kernel; missing: params/c1/kernel; misshapen: " in text
    assert "params/c3/bias (float32[17] for float32[16])" in text
    assert "params/f6/bias (int32[84] for float32[84])" in text


def test_half_precision_is_widened_and_no_card_is_no_matter(saved):
    path, model, variables = saved
    half = {key: value.astype(jnp.bfloat16) for key, value in load_file(path).items()}
    save_file(half, path)
    loaded, values = zoo.load_model(NAME, path, num_classes=10)
    assert loaded == model
    for ours, theirs in zip(jax.tree.leaves(values), jax.tree.leaves(variables), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-2)


def test_another_model(saved):
    path = saved[0]
    with pytest.raises(ValueError, match="expected weights of lenet5, got lenet5_modern"):
        zoo.load_model("lenet5", path)
    with pytest.raises(ValueError, match="unknown model 'lenet_5'"):
        zoo.load_model("lenet_5", path)
    with pytest.raises(ValueError, match="unknown field of lenet5_modern 'classes'"):
        zoo.load_model(NAME, path, classes=3)


def test_saving_fails_whole(saved, monkeypatch):
    """A full disk, or a wrong model: what was there before stays, and nothing beside it."""
    path, model, variables = saved
    before = path.read_bytes()

    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_file.safetensors, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        zoo.save_model(NAME, path, model, variables)
    with pytest.raises(ValueError, match="missing: params/c1/bias"):
        zoo.save_model(NAME, path, model, {"params": {}})
    with pytest.raises(ValueError, match="expected numbers, strings and tuples of them in a card"):
        zoo.save_model(NAME, path, model.clone(act=print), variables)
    with pytest.raises(ValueError, match="expected a LeNet5 for lenet5_modern, got a Dense"):
        zoo.save_model(NAME, path, nn.Dense(3), variables)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def header(entries: dict, body: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: list[int], end: int, dtype: str = "F32") -> dict:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def with_card(card) -> bytes:
    text = card if isinstance(card, str) else json.dumps(card)
    return header({"__metadata__": {"card": text}, **entry([1], 4)}, b"1234")


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


HOSTILE = {
    "empty": (b"", "is empty"),
    "text": (
        b"hello, world: no weights\n" * 9,
        "is of an unknown format: it begins with b'hello, w'",
    ),
    "pickle": (pickle.dumps(Bomb()), "is a Python pickle that torch did not write"),
    "zip": (b"PK\x03\x04" + b"\0" * 90, "damaged or cut short"),
    "one byte": (b"\x08", "is of an unknown format: it begins with"),
    "huge header": (header({}, length=1 << 62), "damaged, cut short or foreign"),
    "long header": (header({}, length=90_000_000), "damaged, cut short or foreign"),
    "huge tensor": (header(entry([1 << 40], 1 << 42)), "damaged, cut short or foreign"),
    "overflow": (header(entry([1 << 40, 1 << 40], 4), b"1234"), "damaged, cut short or foreign"),
    "unknown dtype": (header(entry([1], 4, "F99"), b"1234"), "damaged, cut short or foreign"),
    "not JSON": (struct.pack("<Q", 9) + b"{broken!}", "damaged, cut short or foreign"),
    "deep header": (struct.pack("<Q", 50_000) + b'{"a":' * 10_000, "damaged, cut short or f"),
    "card of words": (with_card("words"), "card that is not a JSON object"),
    "card of a list": (with_card("[1, 2]"), "card that is not a JSON object"),
    "deep card": (with_card("[" * 100_000), "card that is not a JSON object"),
    "fields of a list": (
        with_card({"fields": [1]}),
        "expected fields and input in the file's card, got .1. and",
    ),
    "huge fields": (
        with_card({"fields": ["x" * 10**6]}),
        "expected fields and input in the file's card",
    ),
    "input of words": (with_card({"input": "32"}), "file's card, got .* and '32'"),
    "negative input": (with_card({"input": [-1, 2, 3]}), "file's card, got .* and .-1, 2, 3"),
    "unknown field": (with_card({"fields": {"acts": "relu"}}), "unknown field .* 'acts'"),
    "field of an object": (
        with_card({"fields": {"act": {"a": 1}}}),
        "expected a number, word or list in the file's card, got {'a': 1}",
    ),
    "strange field": (
        with_card({"fields": {"act": [1]}}),
        r"unknown activation .1,.: expected elu",
    ),
    "strange classes": (
        with_card({"fields": {"num_classes": 1.5}}),
        "expected num_classes to be an int of at least 0, got 1.5",
    ),
    "vast classes": (with_card({"fields": {"num_classes": 10**12}}), "do not fit|make no"),
    "strange name": (with_card({"name": ["a"]}), "expected weights of lenet5_modern, got .'a'. in"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case, tmp_path, capfd):
    content, message = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        zoo.load_model(NAME, path)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 2000
    assert capfd.readouterr().out == "", "nothing of it was executed"


@pytest.mark.parametrize("part", [0.001, 0.01, 0.5, 0.999])
def test_cut_short(saved, part):
    path, _, _ = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match="damaged, cut short or foreign"):
        zoo.load_model(NAME, path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="got .* without model.safetensors"):
        zoo.load_model(NAME, tmp_path)
    with pytest.raises(FileNotFoundError, match="no file .*absent"):
        zoo.load_model(NAME, tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no file /dev/zero"):
        zoo.load_model(NAME, "/dev/zero")
