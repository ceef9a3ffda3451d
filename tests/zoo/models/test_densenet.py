"""DenseNet's own parts: the whole of it in numpy, what dropout and remat do, its fields."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import zoo
from zoo.models.densenet import DenseLayer, DenseNet, Transition
from zoo.weights.publishers import export_tensors

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(2, 8, 8, 3)).astype(np.float32)

# As small as each form goes: blocks of two layers.
PLAIN = dict(depths=(2, 2), growth=4, width=6, bottleneck=0, compression=1.0, stem="cifar")
BC = dict(depths=(2, 2), growth=4, width=7, bottleneck=2, stem="cifar")


def filled(model, image):
    """Variables of the model, each drawn, running variances positive."""
    shapes = jax.eval_shape(model.init, KEY, image)

    def draw(path, leaf):
        low = 0.5 if path[-1].key == "var" else -0.5
        return RANDOM.uniform(low, low + 1, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def conv(x, kernel):
    """3 x 3 with a border of one, or 1 x 1, as a sum of shifted products."""
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return np.einsum("bijckl,klcd->bijd", windows, kernel)


def norm_relu(x, params, stats):
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return np.maximum(x * params["scale"] + params["bias"], 0)


def by_hand(w, stats, image):
    """The two blocks of PLAIN or BC, by equation 2: each layer sees all maps before it."""

    def layer(name, maps):
        x = norm_relu(np.concatenate(maps, -1), w[name]["norm"], stats[name]["norm"])
        if "reduce" in w[name]:
            x = conv(x, w[name]["reduce"]["conv"]["kernel"])
            x = norm_relu(x, w[name]["reduce"]["norm"], stats[name]["reduce"]["norm"])
        return conv(x, w[name]["spatial"]["kernel"])

    def block(stage, x):
        one = layer(f"stage{stage}_0", [x])
        return np.concatenate([x, one, layer(f"stage{stage}_1", [x, one])], -1)

    stage1 = block(1, conv(image, w["stem"]["conv"]["kernel"]))
    x = norm_relu(stage1, w["transition1"]["norm"], stats["transition1"]["norm"])
    x = conv(x, w["transition1"]["reduce"]["kernel"])
    x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    stage2 = norm_relu(block(2, x), w["norm"], stats["norm"])
    pooled = stage2.mean((1, 2))
    logits = pooled @ w["head"]["kernel"] + w["head"]["bias"]
    return dict(stage1=stage1, stage2=stage2, pooled=pooled, logits=logits)


@pytest.mark.parametrize("fields", [PLAIN, BC], ids=["plain", "bc"])
def test_cifar_forms_by_hand(fields):
    model = DenseNet(num_classes=5, **fields)
    variables = filled(model, IMAGE)
    wide = jax.tree.map(np.float64, variables)
    expected = by_hand(wide["params"], wide["batch_stats"], IMAGE.astype(np.float64))
    outputs = jax.jit(model.apply)(variables, IMAGE)
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-5)


def test_paths():
    params = jax.eval_shape(zoo.create_model("densenet121").init, KEY, jnp.zeros((1, 32, 32, 3)))
    params = params["params"]
    depths = [sum(name.startswith(f"stage{stage}_") for name in params) for stage in range(1, 5)]
    assert depths == [6, 12, 24, 16]
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(params["stage4_15"])
    ]
    assert paths == [
        "norm/bias",
        "norm/scale",
        "reduce/conv/kernel",
        "reduce/norm/bias",
        "reduce/norm/scale",
        "spatial/kernel",
    ]
    others = {name for name in params if not name.startswith("stage")}
    assert others == {"stem", "transition1", "transition2", "transition3", "norm", "head"}


def test_padding_is_torchs_or_xlas():
    """7 x 7 and 3 x 3 of stride 2 on an even side: SAME puts the odd pixel behind, torch before."""
    corner = jnp.zeros((1, 32, 32, 3)).at[0, 0, 0].set(1e3)
    corners = jnp.concatenate([corner, corner[:, ::-1, ::-1]])
    models = [
        DenseNet(0, depths=(1,), growth=2, width=2, bottleneck=0, padding=padding)
        for padding in ("torch", "SAME")
    ]
    variables = filled(models[0], corners)
    torch, same = (jax.jit(model.apply)(variables, corners)["stage1"] for model in models)
    assert torch.shape == same.shape == (2, 8, 8, 4)
    assert not np.allclose(torch[0], same[0]) and not np.allclose(torch[1], same[1])


@pytest.mark.parametrize("kind", ["group", "layer", "instance", "folded", None])
def test_other_norms_have_no_statistics(kind):
    model = DenseNet(3, **BC, norm=kind, act="elu")
    variables = jax.eval_shape(model.init, KEY, IMAGE)
    assert set(variables) == {"params"}
    has_bias = "bias" in variables["params"]["stage1_0"]["reduce"]["conv"]
    assert has_bias == (kind in (None, "folded"))


def test_dropout_drops_maps_in_training_alone():
    x = RANDOM.normal(size=(4, 16, 16, 8)).astype(np.float32)
    layer, transition = filled(DenseLayer(8), [x]), filled(Transition(8), x)

    @jax.jit
    def run():
        how = dict(train=True, rngs={"dropout": KEY}, mutable=["batch_stats"])
        dropped, _ = DenseLayer(8, dropout=0.25).apply(layer, [x], **how)
        full, _ = DenseLayer(8).apply(layer, [x], **how)
        none, _ = Transition(8, dropout=1.0).apply(transition, x, **how)
        return dropped, full, none, Transition(8, dropout=1.0).apply(transition, x)

    dropped, full, none, evaluated = run()
    assert abs((dropped == 0).mean() - 0.25) < 0.02
    expected = np.where(dropped == 0, 0, full / 0.75)
    np.testing.assert_allclose(dropped, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(none).max() == 0 and np.abs(evaluated).min() > 0


def test_remat_keeps_less_for_the_backward_pass():
    """That it computes the same is in the goldens, whose training has it."""

    def kept(remat):
        model = DenseNet(2, **(PLAIN | dict(depths=(12,))), remat=remat)
        variables = jax.eval_shape(model.init, KEY, IMAGE)

        def loss(params, stats):
            both = {"params": params, "batch_stats": stats}
            out, _ = model.apply(both, IMAGE, train=True, mutable=["batch_stats"])
            return out["logits"].sum()

        def forward(v):
            return jax.vjp(lambda params: loss(params, v["batch_stats"]), v["params"])[1]

        leaves = jax.tree.leaves(jax.eval_shape(forward, variables))
        return sum(leaf.size for leaf in leaves)

    assert kept(True) < kept(False) / 3


@pytest.mark.parametrize("spelling", ["norm1", "norm.1"])
def test_both_spellings_of_torchvision(spelling, tmp_path, draw):
    """denselayer1.norm1 in its models, denselayer1.norm.1 in its files of 2017."""
    fields = dict(depths=(2, 1, 1, 1), growth=4, width=6, num_classes=3)
    variables = draw(zoo.create_model("densenet121", **fields), (32, 32, 3))
    paths = traverse_util.flatten_dict(variables, sep="/")
    tensors = export_tensors("densenet121", paths, source="torchvision")
    assert "features.denseblock1.denselayer2.norm1.running_var" in tensors
    if spelling == "norm.1":
        tensors = {
            re.sub(r"(norm|conv)([12])\.", r"\1.\2.", name): tensors[name] for name in tensors
        }
    assert f"features.denseblock1.denselayer2.{spelling}.bias" in tensors
    np.savez(tmp_path / "a.npz", **tensors)
    _, values = zoo.load_model("densenet121", tmp_path / "a.npz", **fields)
    assert jax.tree.all(jax.tree.map(np.array_equal, values, variables))
