"""Fine-tuning: from a file of weights to a trained model, and the parts of the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

import zoo
from tests.train.recipes.pictures import CLASSES, write_pictures
from train.__main__ import main
from train.optim import param_groups
from train.recipes import finetune
from train.step import freeze_norm_statistics
from zoo.layers.norm import BatchNorm
from zoo.preprocess import Preprocessing
from zoo.weights import read_card

SEEN = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.25), size=(32, 32), crop=0.8)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), train=4, val=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of a small ResNet for five classes, with preprocessing of its own."""
    model = zoo.create_model("resnet18", depths=(1, 1), width=8, num_classes=5)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    generator = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: np.abs(generator.normal(0, 0.2, leaf.shape)).astype(np.float32) + 0.1, shapes
    )
    path = tmp_path_factory.mktemp("weights") / "five.safetensors"
    zoo.save_model("resnet18", path, model, variables, extra={"preprocessing": SEEN})
    return path, flatten_dict(variables, sep="/")


def test_a_head_on_a_frozen_net(source, weights, tmp_path):
    path, before = weights
    words = ["--source", source, "--model", "resnet18", "--weights", str(path), "--head-only"]
    more = ["--epochs", "2", "--batch-size", "8", "--learning-rate", "0.01", "--balance"]
    workdir = tmp_path / "run"
    assert main(["finetune", *words, *more, "--workdir", str(workdir)]) == 0
    model, variables = zoo.load_model("resnet18", workdir)
    after = flatten_dict(variables, sep="/")
    assert (model.num_classes, model.depths, model.width) == (3, (1, 1), 8)
    for name, value in before.items():  # and the statistics among them
        if not name.startswith("params/head"):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    card = read_card(workdir)
    assert card["classes"] == list(CLASSES)
    kept = {**SEEN._asdict(), "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "size": [32, 32]}
    for of_others in ("sides", "frames", "stride"):  # detectors, and models of clips
        kept.pop(of_others)
    assert card["preprocessing"] == kept


def test_rates_and_frozen_parts_reach_the_optimizer(source, weights):
    run = finetune.recipe(
        source=source,
        model="resnet18",
        weights=str(weights[0]),
        freeze=("stem/.*",),
        layer_decay=0.5,
        optimizer="sgd",
        learning_rate=1.0,
        weight_decay=0.0,
        batch_size=6,
        epochs=4,
    )
    params = run.variables["params"]
    ones = jax.tree.map(jnp.ones_like, params)
    optimizer = run.optimizer
    moved, _ = jax.jit(lambda g: optimizer.update(g, optimizer.init(params), params))(ones)
    steps = {name: {float(v) for v in jnp.ravel(x)} for name, x in flatten_dict(moved).items()}
    found = {}
    for name, values in steps.items():
        found.setdefault(name[0].split("_")[0], set()).update(values)
    assert found == {"stem": {0.0}, "stage1": {-0.25}, "stage2": {-0.5}, "head": {-1.0}}
    assert run.frozen_norms == ("stem/.*",)


def test_from_scratch_at_another_size(source):
    knobs = dict(source=source, model="vit_ti_16", weights=None, image_size=64, batch_size=4)
    run = finetune.recipe(**knobs, augmentation="strong", mixup=0.2, label_smoothing=0.1)
    assert run.variables is None and run.model.image_size == 64
    assert run.preprocessing.size == (64, 64)
    batch = {"image": jnp.zeros((4, 64, 64, 3), jnp.uint8), "label": jnp.zeros(4, jnp.int32)}
    keys = jax.random.split(jax.random.key(0), 4)
    assert jax.eval_shape(run.task.augment, keys, batch)["target"].shape == (4, 3)


def test_the_published_preprocessing_comes_with_the_weights():
    seen, fields = finetune.input_preprocessing(
        "resnet50", "torchvision://IMAGENET1K_V2", image_size=None
    )
    assert seen.crop == 224 / 232 and fields == {}
    seen, fields = finetune.input_preprocessing(
        "vit_b_16", "torchvision://IMAGENET1K_V1", image_size=384
    )
    assert seen.size == (384, 384) and fields == {"image_size": 384}


def test_unknown_words_are_one_line(source, capsys, tmp_path):
    words = ["finetune", "--source", source, "--weights", "None", "--batch-size", "8"]
    words += ["--workdir", str(tmp_path)]
    assert main([*words, "--model", "resnet51"]) == 2
    assert main([*words, "--model", "mobilenet_v1_025", "--freeze", "stam/.*"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "resnet50" in said[0] and "stem/conv/kernel" in said[1]


LAYERS = {
    "alexnet": ["conv1/.*", "conv2/.*", "conv3/.*", "conv4/.*", "conv5/.*", "fc6/.*", "fc7/.*"],
    "densenet121": [
        *("stem/.*", "stage1_.*", "transition1/.*", "stage2_.*", "transition2/.*"),
        *("stage3_.*", "transition3/.*", "stage4_.*"),
    ],
    "mobilenet_v2": ["stem/.*", *(f"stage{k}_.*" for k in range(5)), "last/.*"],
    "vit_ti_16": [
        "patch/.*|class_token|positions",
        *(f"stage1_{block}/.*" for block in range(12)),
    ],
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_of_a_model(name):
    assert param_groups.count_layers(zoo.create_model(name), (224, 224, 3)) == [
        *LAYERS[name],
        "head/.*",
    ]


class TwoNorms(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        return BatchNorm(name="low")(x, train=train), BatchNorm(name="high")(x, train=train)


def test_a_held_norm_is_computed_as_in_evaluation():
    x = jnp.arange(8.0).reshape(4, 2)
    model = TwoNorms()
    variables = model.init(jax.random.key(0), x)
    with freeze_norm_statistics(["low/.*"]):
        (low, high), new = model.apply(variables, x, train=True, mutable=["batch_stats"])
    (evaluated, _), (_, trained) = (
        model.apply(variables, x),
        model.apply(variables, x, train=True, mutable=["batch_stats"])[0],
    )
    np.testing.assert_array_equal(low, evaluated)
    np.testing.assert_array_equal(high, trained)
    old, new = variables["batch_stats"], new["batch_stats"]
    np.testing.assert_array_equal(new["low"]["mean"], old["low"]["mean"])
    assert (new["high"]["mean"] != old["high"]["mean"]).all()
