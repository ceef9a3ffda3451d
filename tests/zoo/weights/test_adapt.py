"""Weights made to fit: other channels, other image sizes, and nothing else."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from tests.zoo.small_models import SMALL, small
from zoo.preprocess import Preprocessing
from zoo.registry import input_spec, variant_card
from zoo.weights import publishers, read_card, read_preprocessing
from zoo.weights.adapt import flatten_variables

RANDOM = np.random.default_rng(0)
CLASSIFIERS = [name for name in SMALL if variant_card(name)[0]["task"] == "classification"]


def saved(name, path, draw, **fields):
    """A small model of a name, in a file -> model, its variables and the shape of its images."""
    model, shape = small(name)
    model = model.clone(**fields)
    variables = draw(model, shape)
    seen = input_spec(name)[1]._replace(size=shape[:2])
    zoo.save_model(name, path, model, variables, extra={"preprocessing": seen})
    return model, variables, shape


def loaded(name, path, **fields):
    """zoo.load_model, and the one warning that it gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, variables = zoo.load_model(name, path, **fields)
    assert len(caught) == 1 and caught[0].filename == __file__
    return model, variables, str(caught[0].message)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_first_kernel_of_every_family(name, tmp_path, draw):
    """Six channels, each seen as one of the file's; every other tensor as it is in the file."""
    _, variables, shape = saved(name, tmp_path / "a", draw)
    _, values, said = loaded(name, tmp_path / "a", in_channels=6)
    before, after = flatten_variables(variables), flatten_variables(values)
    (path,) = [path for path in before if not np.array_equal(before[path], after[path])]
    assert path in said and "in_channels=6" in said and f"file's {shape[-1]}" in said
    *sides, rows, width = before[path].shape
    pixels = rows // shape[-1]  # of a dense layer, which reads them all
    old = before[path].reshape(*sides, pixels, shape[-1], width)
    expected = np.concatenate([old * shape[-1] / 6] * (6 // shape[-1]), -2)
    np.testing.assert_allclose(
        after[path].reshape(*sides, pixels, 6, width), expected, rtol=1e-5, atol=1e-6
    )


def logits(model, variables, image):
    return jax.jit(model.apply)(variables, image)["logits"]


@pytest.mark.parametrize("name", ["resnet18", "vit_ti_16"])
def test_gray_is_color_of_equal_channels(name, tmp_path, draw):
    model, variables, shape = saved(name, tmp_path / "a", draw)
    gray = RANDOM.normal(size=(2, *shape[:2], 1)).astype(np.float32)
    one, values, said = loaded(name, tmp_path / "a", in_channels=1)
    assert one == model and "the sum of the file's 3" in said
    expected = logits(model, variables, np.repeat(gray, 3, 3))
    np.testing.assert_allclose(logits(one, values, gray), expected, rtol=1e-4, atol=1e-4)


def test_one_channel_made_many(tmp_path, draw):
    """LeNet-5's one kernel, thirded: a color image of equal channels is seen as the gray one."""
    model, variables, shape = saved("lenet5_modern", tmp_path / "a", draw)
    gray = RANDOM.normal(size=(2, *shape)).astype(np.float32)
    _, values, _ = loaded("lenet5_modern", tmp_path / "a", in_channels=3)
    np.testing.assert_allclose(
        logits(model, values, np.repeat(gray, 3, 3)),
        logits(model, variables, gray),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_same_channels_are_no_surgery(tmp_path, draw):
    _, variables, _ = saved("resnet18", tmp_path / "a", draw)
    _, values = zoo.load_model("resnet18", tmp_path / "a", in_channels=3)
    assert jax.tree.all(jax.tree.map(np.array_equal, values, variables))


def test_one_warning_for_all_that_is_new(tmp_path, draw):
    saved("resnet18", tmp_path / "a", draw)
    model, values, said = loaded("resnet18", tmp_path / "a", in_channels=2, num_classes=4)
    assert model.num_classes == 4 and values["params"]["stem"]["conv"]["kernel"].shape[2] == 2
    assert "copies of the file's 3" in said and "fresh head for 4 classes" in said


def test_the_card_after_surgery(tmp_path, draw):
    """What the images go through, and that the model of one channel is saved and loaded again."""
    saved("resnet18", tmp_path / "a", draw)
    model, values, _ = loaded("resnet18", tmp_path / "a", in_channels=1)
    seen = read_preprocessing("resnet18", tmp_path / "a", in_channels=1)
    assert seen.mean == pytest.approx((0.449,)) and seen.std == pytest.approx((0.226,))
    assert seen.size == (48, 48)
    zoo.save_model("resnet18", tmp_path / "b", model, values, extra={"preprocessing": seen})
    assert read_card(tmp_path / "b")["input"] == [48, 48, 1]
    _, again = zoo.load_model("resnet18", tmp_path / "b")
    assert jax.tree.all(jax.tree.map(np.array_equal, again, values))
    with pytest.raises(ValueError, match="224, 224, 3.*extra's preprocessing.*misshapen"):
        zoo.save_model("resnet18", tmp_path / "c", model, values)


def test_cards_of_other_channels():
    card = zoo.model_card("lenet5_modern", in_channels=3)
    assert card.input == (32, 32, 3) and len(card.preprocessing.mean) == 3
    assert card.parameters == 61_706 + 2 * 5 * 5 * 6
    with pytest.raises(ValueError, match="resnet18 has no field in_channels: a model takes the"):
        zoo.create_model("resnet18", in_channels=1)
    for wrong in (0, -1, 1.0, "3"):
        with pytest.raises(
            ValueError, match="expected in_channels to be an int of at least 1, got"
        ):
            zoo.load_model("resnet18", "absent", in_channels=wrong)


def test_what_is_made_of_images_is_not_refitted(tmp_path, draw):
    """An auto-encoder's last layer would have to change too."""
    saved("autoencoder", tmp_path / "a", draw)
    with pytest.raises(ValueError, match="in_channels=3: .*more than the first kernel") as caught:
        zoo.load_model("autoencoder", tmp_path / "a", in_channels=3)
    assert "\n" not in str(caught.value)


def torch_named(name, source, path, draw, channels=3):
    """A small model's tensors as `source` names them, in a file without a card."""
    model, shape = small(name)
    variables = draw(model, (*shape[:2], channels))
    tensors = publishers.export_tensors(name, flatten_variables(variables), source=source)
    save_file({key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()}, path)
    return model, variables, tensors


def test_channels_that_the_shapes_tell(tmp_path, draw):
    _, variables, _ = torch_named("resnet18", "torchvision", tmp_path / "a", draw, channels=2)
    fields = dict(depths=(2, 1))
    _, values = zoo.load_model("resnet18", tmp_path / "a", **fields)
    assert jax.tree.all(jax.tree.map(np.array_equal, values, variables))
    _, values, said = loaded("resnet18", tmp_path / "a", **fields, in_channels=1)
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    made = values["params"]["stem"]["conv"]["kernel"]
    np.testing.assert_allclose(made, kernel.sum(2, keepdims=True), rtol=1e-5, atol=1e-6)
    assert "the sum of the file's 2" in said


def test_surgery_hides_nothing(tmp_path, draw):
    """One error names all missing, extra and misshapen tensors of a torch file."""
    _, _, tensors = torch_named("resnet18", "torchvision", tmp_path / "a", draw)
    tensors["head.weight"] = tensors.pop("fc.bias")
    tensors["layer2.0.bn9.weight"] = tensors.pop("layer2.0.bn1.running_var")
    tensors["layer1.0.conv2.weight"] = tensors["layer1.0.conv2.weight"][:, :5]
    tensors["bn1.bias"] = np.zeros(3, np.float32)
    save_file(
        {key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()}, tmp_path / "a"
    )
    with pytest.raises(ValueError) as caught:
        zoo.load_model("resnet18", tmp_path / "a", depths=(2, 1), in_channels=1, num_classes=3)
    text = str(caught.value)
    assert "\n" not in text
    assert "unused: head.weight, layer2.0.bn9.weight; " in text
    assert "missing: batch_stats/stage2_0/first/norm/var, params/head/bias; " in text
    assert "params/stage1_0/second/conv/kernel (float32[3, 3, 5, 64] for float32[3, 3, 64" in text
    assert "params/stem/norm/bias (float32[3] for float32[64])" in text


# What timm 1.0.31's resample_abs_pos_embed makes of 7, then (5 i**2) mod 17 for i = 0 .. 15, as a
# class token's embedding and those of 4 x 4 patches: for 3 x 3.
TIMM = [7.0, 3.32385, 4.73993, 8.6258, 12.90052, 9.22893, 8.51979, 9.47077, 11.7408, 5.94399]


@pytest.mark.parametrize("card", [True, False])
def test_positions_of_another_image_size(card, tmp_path, draw):
    """Of our file, and of timm's, whose size its shapes tell."""
    fields = dict(depth=2, width=24, num_classes=7)
    model = zoo.create_model("vit_ti_16", image_size=64, **fields)
    variables = draw(model, (64, 64, 3))
    values = [7, *((5 * i * i) % 17 for i in range(16))]
    variables["params"]["positions"] = np.repeat(np.float32(values)[None, :, None], 24, 2)
    if card:
        zoo.save_model("vit_ti_16", tmp_path / "a", model, variables)
        assert read_card(tmp_path / "a")["input"] == [64, 64, 3]
        fields = {}
    else:
        tensors = publishers.export_tensors(
            "vit_ti_16", flatten_variables(variables), source="timm"
        )
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, tmp_path / "a")
    smaller, fitted = zoo.load_model("vit_ti_16", tmp_path / "a", image_size=48, **fields)
    assert (model.image_size, smaller.image_size) == (64, 48)
    np.testing.assert_allclose(fitted["params"]["positions"][0, :, 5], TIMM, atol=1e-4)
    image = RANDOM.normal(size=(1, 48, 48, 3)).astype(np.float32)
    np.testing.assert_allclose(  # a model resizes for itself what an image of another size needs
        logits(smaller, fitted, image), logits(model, variables, image), rtol=1e-4, atol=1e-5
    )
    zoo.save_model("vit_ti_16", tmp_path / "b", smaller, fitted)
    assert read_card(tmp_path / "b")["preprocessing"]["size"] == [48, 48]
    seen = read_preprocessing("vit_ti_16", tmp_path / "a", image_size=48)
    assert seen.size == (48, 48) and seen.crop == 0.875


def test_everything_at_once(tmp_path, draw):
    """Another size, one channel, and no head."""
    saved("vit_ti_16", tmp_path / "a", draw)
    fields = dict(image_size=(32, 64), in_channels=1, num_classes=0)
    model, values, _ = loaded("vit_ti_16", tmp_path / "a", **fields)
    assert "head" not in values["params"]
    assert values["params"]["positions"].shape == (1, 1 + 2 * 4, 24)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 64, 1)))
    assert jax.tree.map(jnp.shape, values) == jax.tree.map(jnp.shape, shapes)


STRANGE = [
    {"mean": [0.5], "std": [0.5]},
    {"mean": [0.5], "std": [0.5, 0.5], "size": [8, 8]},
    {"mean": [0.5], "std": [0.0], "size": [8, 8]},
    {"mean": ["a"], "std": [0.5], "size": [8, 8]},
    {"mean": [0.5], "std": [0.5], "size": [8]},
    {"mean": [0.5], "std": [0.5], "size": [8, 10**9]},
    {"mean": [0.5], "std": [0.5], "size": [8, 8], "crop": 0},
    {"mean": [0.5], "std": [0.5], "size": [8, 8], "crop": "all"},
    {"mean": [0.5], "std": [0.5], "size": [8, 8], "interpolation": "box"},
    {"mean": [0.5], "std": [0.5], "size": [8, 8], "more": 1},
    {"mean": [0.5], "std": [0.5], "size": [8, 8], "sides": [8]},
    {"mean": [0.5], "std": [0.5], "size": [8, 8], "sides": [8, 0]},
    {"mean": [0.5], "std": [0.5], "size": [8, 8], "frames": -1},
    {"mean": [0.5], "std": [0.5], "size": [8, 8], "frames": 8, "stride": 0},
    {"mean": 0.5, "std": 0.5, "size": 8},
    [0.5, 0.5],
]


@pytest.mark.parametrize("preprocessing", STRANGE, ids=str)
def test_a_preprocessing_that_is_none(preprocessing, tmp_path):
    save_file(
        {"x": np.zeros(1)}, tmp_path / "a", {"card": json.dumps({"preprocessing": preprocessing})}
    )
    with pytest.raises(ValueError, match="invalid preprocessing in") as caught:
        read_preprocessing("lenet5", tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_preprocessing_is_the_files(tmp_path, draw):
    seen = Preprocessing((0.5,), (0.25,), (40, 44), crop=0.9, interpolation="bicubic", sides=(4, 5))
    model = zoo.create_model("lenet5_modern")
    extra = {"preprocessing": seen}
    zoo.save_model("lenet5_modern", tmp_path / "a", model, draw(model, (40, 44, 1)), extra=extra)
    assert read_preprocessing("lenet5_modern", tmp_path / "a") == seen
    assert "frames" not in read_card(tmp_path / "a")["preprocessing"]  # older versions read it
    clip = seen._replace(frames=8, stride=2)
    extra = {"preprocessing": clip}
    zoo.save_model("lenet5_modern", tmp_path / "c", model, draw(model, (40, 44, 1)), extra=extra)
    assert read_preprocessing("lenet5_modern", tmp_path / "c") == clip
    plain = load_file(tmp_path / "a")
    save_file(plain, tmp_path / "b")
    assert read_preprocessing("lenet5_modern", tmp_path / "b") == input_spec("lenet5_modern")[1]
