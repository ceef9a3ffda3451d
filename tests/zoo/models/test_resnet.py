"""ResNets' own parts against plain numpy and published counts; scanned against unrolled."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.layers.residual import stack_blocks, unstack_blocks
from zoo.models.preact_resnet import PreactBlock
from zoo.models.resnet import Basic, Bottleneck, ResNet

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)


def convolve(x, kernel, stride=1):
    """`[B, H, W, C], [k, k, C, D] -> [B, h, w, D]`, k // 2 zeros on every side."""
    side = kernel.shape[0]
    x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))
    return np.einsum("bijckl,klcd->bijd", windows[:, ::stride, ::stride], kernel)


def normalize(x, params, stats):
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]


def relu(x):
    return np.maximum(x, 0)


class Oracle:
    """A block's layers by name, in float64."""

    def __init__(self, variables):
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        self.params, self.stats = variables["params"], variables["batch_stats"]

    def conv(self, x, name, stride=1):
        return convolve(x, self.params[name]["conv"]["kernel"], stride)

    def norm(self, x, name):
        return normalize(x, self.params[name]["norm"], self.stats[name]["norm"])

    def conv_norm(self, x, name, stride=1):
        return self.norm(self.conv(x, name, stride), name)


def basic(f, x, stride):
    y = f.conv_norm(relu(f.conv_norm(x, "first", stride)), "second")
    return relu(y + (f.conv_norm(x, "skip", stride) if "skip" in f.params else x))


def padded(f, x, stride):
    y = f.conv_norm(relu(f.conv_norm(x, "first", stride)), "second")
    more = (y.shape[3] - x.shape[3]) // 2
    x = np.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (more, more)))
    return relu(y + x)


def bottleneck(f, x, early, late):
    y = relu(f.conv_norm(x, "reduce", early))
    y = f.conv_norm(relu(f.conv_norm(y, "spatial", late)), "expand")
    return relu(y + (f.conv_norm(x, "skip", early * late) if "skip" in f.params else x))


def preact_first(f, x, stride):
    x = relu(f.norm(x, "before"))
    y = relu(f.conv_norm(x, "reduce", stride))
    y = f.conv(relu(f.conv_norm(y, "spatial")), "expand")
    return y + f.conv(x, "skip", stride)


def preact_next(f, x):
    y = relu(f.conv_norm(relu(f.norm(x, "before")), "reduce"))
    return x + f.conv(relu(f.conv_norm(y, "spatial")), "expand")


def preact_padded(f, x, stride):
    x = relu(f.norm(x, "before"))
    y = f.conv(relu(f.conv_norm(x, "first", stride)), "second")
    more = (y.shape[3] - x.shape[3]) // 2
    return y + np.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (more, more)))


def preact_basic(f, x):
    y = relu(f.conv_norm(relu(f.norm(x, "before")), "first"))
    return x + f.conv(y, "second")


BLOCKS = [
    (Basic(6), lambda f, x: basic(f, x, 1)),
    (Basic(8, stride=2), lambda f, x: basic(f, x, 2)),
    (Basic(10, stride=2, pad=True), lambda f, x: padded(f, x, 2)),
    (Bottleneck(6, 4), lambda f, x: bottleneck(f, x, 1, 1)),
    (Bottleneck(8, 4, stride=2), lambda f, x: bottleneck(f, x, 1, 2)),
    (Bottleneck(8, 4, stride=2, stride_first=True), lambda f, x: bottleneck(f, x, 2, 1)),
    (PreactBlock(8, stride=2, inner=4, shared=True), lambda f, x: preact_first(f, x, 2)),
    (PreactBlock(8, inner=4, shared=True), lambda f, x: preact_first(f, x, 1)),
    (PreactBlock(6, inner=4), preact_next),
    (PreactBlock(6), preact_basic),
    (PreactBlock(10, stride=2, shared=True, pad=True), lambda f, x: preact_padded(f, x, 2)),
]


class Evaluated(nn.Module):
    block: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.block(x, train=False)


@pytest.mark.parametrize(("block", "oracle"), BLOCKS, ids=range(len(BLOCKS)))
def test_block(block, oracle, draw):
    x = RANDOM.normal(size=(2, 7, 8, 6)).astype(np.float32)
    variables = draw(Evaluated(block), x.shape[1:])
    variables = {collection: tree["block"] for collection, tree in variables.items()}
    y = block.apply(variables, x, train=False)
    np.testing.assert_allclose(y, oracle(Oracle(variables), x), rtol=1e-4, atol=1e-4)


def test_stride_of_2015():
    """The first 1x1 of three blocks sees a quarter of the pixels; nothing else changes."""
    late, early = zoo.model_card("resnet50"), zoo.model_card("resnet50", stride_first=True)
    assert early.parameters == late.parameters and early.features == late.features
    assert late.macs - early.macs == 3 / 4 * 3 * 56 * 56 * 256 * 128


def test_shortcuts_of_option_b():
    """1x1 convolutions of 16 x 32 and 32 x 64 weights, and their norms'."""
    assert zoo.model_card("resnet20", shortcut="B").parameters == 269_722 + 512 + 2048 + 192


@pytest.mark.parametrize(("block", "last"), [("basic", "second"), ("bottleneck", "expand")])
def test_zero_init(block, last):
    """The last norm of a block, and none else, begins at 0: the block begins as its skip."""
    model = ResNet((1,), block=block, width=4, stem="cifar", num_classes=0, zero_init=True)
    params = model.init(KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    zeros = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree.leaves_with_path(params)
        if path[-1].key == "scale" and not np.asarray(leaf).any()
    ]
    assert zeros == [f"stage1_0/{last}/norm/scale"]


def test_a_block_that_begins_as_its_skip():
    x = jnp.abs(RANDOM.normal(size=(1, 4, 4, 6))).astype(jnp.float32)
    same, _ = Basic(6, zero_init=True).init_with_output(KEY, x, train=True)
    np.testing.assert_array_equal(same, x)


def test_kernels_begin_as_published():
    """N(0, 2 / (k k out)), the authors' own initialization."""
    x = jnp.zeros((1, 4, 4, 64))
    params = PreactBlock(256, inner=64).init(KEY, x, train=False)["params"]
    for name, size in (("reduce", 64), ("spatial", 9 * 64), ("expand", 256)):
        kernel = np.asarray(params[name]["conv"]["kernel"])
        assert kernel.std() == pytest.approx((2 / size) ** 0.5, rel=0.03)


TINY = {
    "resnet20": dict(depths=(3,), width=4, num_classes=3),
    "resnet50": dict(depths=(3,), width=4, num_classes=3, stem="cifar"),
    "preact_resnet164": dict(depths=(3,), width=4, num_classes=3),
}
IMAGES = RANDOM.uniform(size=(4, 8, 8, 3)).astype(np.float32)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), a, b)


@pytest.mark.parametrize("name", TINY)
def test_scanned_is_unrolled(name, draw):
    """Features, gradients and statistics, after stacking; with blocks recomputed, too."""
    model = zoo.create_model(name, act="tanh", **TINY[name])
    variables = draw(model, IMAGES.shape[1:])
    scanned, stacked = model.clone(scan=True, remat=True), stack_blocks(variables)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(
        jnp.shape, jax.eval_shape(scanned.init, KEY, IMAGES)
    )

    def loss(params, stats, model):
        variables = dict(params=params, batch_stats=stats)
        out, new = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
        return jnp.square(out["logits"]).sum(), (out, new)

    learn = jax.jit(jax.grad(loss, has_aux=True), static_argnums=2)
    grads, (out, new) = learn(variables["params"], variables["batch_stats"], model)
    theirs, (out2, new2) = learn(stacked["params"], stacked["batch_stats"], scanned)
    close(out2, out)
    close(unstack_blocks(new2), new)
    close(unstack_blocks(theirs), grads)


@pytest.mark.parametrize("name", ["resnet50", "preact_resnet164"])
def test_files_know_no_scanning(name, draw, tmp_path):
    """A scanned model's file is the unrolled one's, and either can be loaded from it."""
    fields = dict(depths=(3,), width=4, num_classes=3)
    model = zoo.create_model(name, **fields)
    variables = draw(model, zoo.model_card(name).input)
    scanned, stacked = model.clone(scan=True, remat=True), stack_blocks(variables)
    zoo.save_model(name, tmp_path / "one", model, variables)
    zoo.save_model(name, tmp_path / "other", scanned, stacked)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    for wanted, expected in ((False, variables), (True, stacked)):
        loaded, tensors = zoo.load_model(name, tmp_path / "other", scan=wanted)
        assert loaded == model.clone(scan=wanted)
        jax.tree.map(np.testing.assert_array_equal, tensors, expected)
    with pytest.warns(UserWarning, match="fresh head for 5 classes"):
        loaded, tensors = zoo.load_model(name, tmp_path / "one", scan=True, num_classes=5)
    kept = [{k: v for k, v in tree["params"].items() if k != "head"} for tree in (tensors, stacked)]
    jax.tree.map(np.testing.assert_array_equal, *kept)


@pytest.mark.parametrize("name", TINY)
def test_folding(name, draw):
    """Scanned or not; in a bottleneck of the pre-activation net two norms of three are folded."""
    model = zoo.create_model(name, **TINY[name])
    variables = draw(model, IMAGES.shape[1:])
    expected = model.apply(variables, IMAGES)
    folded, thinner = zoo.fold_batchnorm(model, variables)
    close(folded.apply(thinner, IMAGES), expected)
    norms = [path for path, _ in jax.tree.leaves_with_path(thinner) if path[-1].key == "scale"]
    assert len(norms) == (3 + 1 if name.startswith("preact") else 0)
    folded, thinner = zoo.fold_batchnorm(model.clone(scan=True), stack_blocks(variables))
    close(folded.apply(thinner, IMAGES), expected)


@pytest.mark.parametrize("scan", [False, True])
def test_stochastic_depth_and_dropout(scan, draw):
    """Each key draws a net of its own; evaluation draws nothing."""
    model = zoo.create_model("resnet20", **TINY["resnet20"])
    variables = draw(model, IMAGES.shape[1:])
    model = model.clone(scan=scan, stochastic_depth=0.9, dropout=0.5)
    variables = stack_blocks(variables) if scan else variables

    @jax.jit
    def draws(key):
        rngs = {"dropout": key}
        out, _ = model.apply(variables, IMAGES, train=True, rngs=rngs, mutable=["batch_stats"])
        head = variables["params"]["head"]
        plain = out["pooled"] @ head["kernel"] + head["bias"].reshape(1, -1)
        return out["pooled"], out["logits"], plain

    one, same, other = (draws(jax.random.key(k)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert np.abs(one[0] - other[0]).max() > 0.01, "blocks are dropped"
    assert np.abs(one[1] - one[2]).max() > 0.01, "and so are pooled features"
    close(model.apply(variables, IMAGES), model.clone(dropout=0.0).apply(variables, IMAGES))


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet164"])
def test_statistics_are_global(name, draw):
    """Two shards that know each other, against one batch."""
    model = zoo.create_model(name, **TINY[name])
    variables = draw(model, IMAGES.shape[1:])

    def logits(x, model):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])[0]["logits"]

    shards = jax.vmap(partial(logits, model=model.clone(axis_name="shard")), axis_name="shard")
    apart = shards(IMAGES.reshape(2, 2, *IMAGES.shape[1:])).reshape(4, 3)
    np.testing.assert_allclose(apart, logits(IMAGES, model), rtol=1e-4, atol=1e-5)


def test_padding_of_xla(draw):
    """SAME puts the odd pixel behind: another net from the stem on, of equal shapes."""
    x = RANDOM.uniform(size=(1, 32, 29, 3)).astype(np.float32)
    model = zoo.create_model("resnet18", depths=(1, 1), width=8, num_classes=3)
    variables = draw(model, x.shape[1:])
    ours, theirs = model.apply(variables, x), model.clone(padding="SAME").apply(variables, x)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, theirs)
    assert ours["stage2"].shape == (1, 4, 4, 16)
    assert np.abs(ours["stage1"] - theirs["stage1"]).max() > 0.01


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(block="basik"), "unknown block 'basik': did you mean basic"),
        (dict(shortcut="C"), "unknown shortcut 'C'"),
        (dict(stem="cifar10"), "unknown stem 'cifar10': did you mean cifar"),
        (dict(norm="bach"), "unknown norm 'bach': did you mean batch"),
        (dict(stochastic_depth=1.0), "from 0 to below 1, got 1.0"),
    ],
)
def test_fields_that_are_none(fields, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**{"depths": (1,), **fields}).init(KEY, jnp.zeros((1, 32, 32, 3)))
