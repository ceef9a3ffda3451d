"""Folding BatchNorm changes what is computed, not what comes out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.zoo.small_models import SMALL, small
from zoo.layers.conv_norm import ConvNorm
from zoo.layers.norm import create_norm
from zoo.profile import count_batchnorms


class PreNorm(nn.Module):
    """Norm, activation, convolution: nothing before the norm to fold it into."""

    norm: str | None = "batch"

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(create_norm(self.norm, name="norm1")(x, train=train))
        x = ConvNorm(6, 3, groups=3, use_bias=True, norm=self.norm, name="spatial")(x, train=train)
        x = nn.relu(create_norm(self.norm, name="norm2")(x, train=train))
        return {"logits": nn.Conv(2, (1, 1), name="last")(x)}


class Assembly(nn.Module):
    """A norm of its own, and those of its backbone."""

    backbone: nn.Module
    norm: str = "batch"

    @nn.compact
    def __call__(self, x, *, train=False):
        x = self.backbone(x, train=train)["logits"]
        return {"logits": ConvNorm(3, act=None, norm=self.norm, name="head")(x, train=train)}


FOUND = {"boxes", "scores", "labels", "valid"}  # sorted, which rounding may change: of a grid
STREAMS = {"two_stream"}  # whose norms are those of the nets that it holds
NORMED = [name for name in SMALL if getattr(small(name)[0], "norm", None) or name in STREAMS]


def trunk(name):
    """A small model; of those that propose regions, which take long to compile, the trunk alone."""
    model, shape = small(name)
    return model.clone(num_classes=0) if hasattr(
        model, "box_batch_size_per_image"
    ) else model, shape


CASES = {
    **{name: trunk(name) for name in NORMED},
    "before the convolution": (PreNorm(), (8, 8, 3)),
    "backbone": (Assembly(PreNorm()), (8, 8, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_equal(case, draw):
    model, shape = CASES[case]
    image = np.random.default_rng(1).uniform(size=(2, *shape)).astype(np.float32)
    variables = draw(model, shape)
    before = jax.tree.map(np.array, variables)
    folded, lighter = zoo.fold_batchnorm(model, variables)

    assert type(folded) is type(model) and folded != model
    assert "batch_stats" not in lighter
    expected = jax.jit(model.apply)(variables, image)
    outputs = jax.jit(folded.apply)(lighter, image)
    assert set(outputs) == set(expected)
    for name in set(expected) - FOUND:
        value = expected[name]
        worst = np.abs(outputs[name] - value).max() / np.abs(value).max()
        assert worst < 1e-5, name
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, before)), "changed in place"
    fresh = jax.eval_shape(folded.init, jax.random.key(0), image)
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, lighter)


def test_there_are_models_to_fold():
    assert {"conv_autoencoder", "densenet121", "mobilenet_v2_035", "vgg11_bn"} <= set(NORMED)


@pytest.mark.parametrize("name", sorted(set(SMALL) - set(NORMED)))
def test_nothing_to_fold(name):
    model, shape = small(name)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    folded, same = zoo.fold_batchnorm(model, variables)
    assert folded == model and same == variables


def test_a_folded_model_is_saved_and_loaded(tmp_path, draw):
    model = zoo.create_model("conv_autoencoder", widths=(4,))
    folded, lighter = zoo.fold_batchnorm(model, draw(model, (28, 28, 1)))
    zoo.save_model("conv_autoencoder", tmp_path / "a", folded, lighter)
    loaded, same = zoo.load_model("conv_autoencoder", tmp_path / "a")
    assert loaded == folded and jax.tree.all(jax.tree.map(np.array_equal, same, lighter))


def test_statistics_without_a_norm_to_fold():
    with pytest.raises(
        ValueError, match="expected the field norm='batch' beside batch_stats, got Dense"
    ):
        zoo.fold_batchnorm(nn.Dense(3), {"batch_stats": {"norm": {}}, "params": {}})


# By the papers' tables: a norm after each convolution; in DenseNet one before each layer, and of
# its bottleneck's two the second after a convolution; before activation, the last of each block.
@pytest.mark.parametrize(
    ("name", "folded", "affine"),
    [
        ("resnet18", 20, 0),
        ("resnet50", 53, 0),
        ("resnet1202", 1201, 0),
        ("vgg16_bn", 13, 0),
        ("vgg16", 0, 0),
        ("mobilenet_v2", 52, 0),
        ("densenet121", 1 + 58, 58 + 3 + 1),
        ("densenet40_k12", 0, 36 + 2 + 1),
        ("preact_resnet1001", 2 * 333, 333 + 1),
    ],
)
def test_the_card_counts(name, folded, affine):
    assert zoo.model_card(name).batchnorms == {"folded": folded, "affine": affine}


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2_035", "preact_resnet164"])
def test_as_many_are_folded_as_counted(name):
    model, shape = small(name)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    counted = count_batchnorms(variables)
    weights = jax.eval_shape(lambda v: zoo.fold_batchnorm(model, v)[1], variables)["params"]
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(weights)]
    scales = sum(path[-1].key == "scale" for path in paths)
    norms = len(jax.tree.leaves(variables["batch_stats"])) // 2
    assert counted == {"folded": norms - scales, "affine": scales}
