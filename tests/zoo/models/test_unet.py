"""U-Net against plain numpy: values and gradients, geometry, and the assembly over other families."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.golden.compare import double_precision
from zoo.models.unet import UNet, nearest_valid_sizes, valid_margin
from zoo.registry import variant_card
from zoo.weights import adapt, model_file, read_card

RANDOM = np.random.default_rng(0)


def conv3(x, layer, *, pad):
    if pad:
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))  # [B, H, W, C, 3, 3]
    y = np.einsum("bhwcij,ijcd->bhwd", windows, layer["kernel"], optimize=True)
    return y + layer.get("bias", 0)


def normalized(y, layer, stats, *, kind, train, seen):
    """Batch or group norm; what BatchNorm saw goes to the list `seen`."""
    if kind == "group":
        groups = math.gcd(32, y.shape[-1])
        parted = y.reshape(*y.shape[:3], groups, -1)
        mean, var = (f(parted, (1, 2, 4), keepdims=True) for f in (np.mean, np.var))
        y = ((parted - mean) / np.sqrt(var + 1e-5)).reshape(y.shape)
    else:
        mean, var = (f(y, (0, 1, 2)) for f in (np.mean, np.var)) if train else stats
        seen.append((mean, var * y[..., 0].size / (y[..., 0].size - 1)))
        y = (y - mean) / np.sqrt(var + 1e-5)
    return y * layer["scale"] + layer["bias"]


def brick(x, name, variables, *, model, train, seen):
    layers = variables["params"][name]
    y = conv3(x, layers["conv"], pad=model.padding != "VALID")
    if model.norm:
        stats = variables.get("batch_stats", {}).get(name, {}).get("norm")
        stats = stats and (stats["mean"], stats["var"])
        y = normalized(y, layers["norm"], stats, kind=model.norm, train=train, seen=seen)
    return np.maximum(y, 0)


def enlarged(x, k, params, *, model):
    if model.upsample == "nearest":
        return x.repeat(2, 1).repeat(2, 2)
    layer = params[f"up{k}"]
    y = np.zeros((x.shape[0], 2 * x.shape[1], 2 * x.shape[2], layer["kernel"].shape[3]))
    for row in (0, 1):  # flax lays the kernel on the spread map: the last tap on the first pixel
        for column in (0, 1):
            y[:, row::2, column::2] = x @ layer["kernel"][1 - row, 1 - column]
    y = y + layer["bias"]
    return np.maximum(y, 0) if model.release else y


def oracle(model, variables, image, *, train=False, maps=None):
    """-> (maps of the way down, logits, what each BatchNorm saw); `maps` spares the way down."""
    seen = []
    call = functools.partial(brick, variables=variables, model=model, train=train, seen=seen)
    if maps is None:
        maps, x = [], image
        for k in range(1, model.depth + 2):
            if k > 1:
                b, h, w, c = x.shape
                x = x[:, : h // 2 * 2, : w // 2 * 2]
                x = x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))
            x = call(call(x, f"stage{k}_0"), f"stage{k}_1")
            maps.append(x)
    x = maps[-1]
    for k in range(len(maps) - 1, 0, -1):
        x, skip = enlarged(x, k, variables["params"], model=model), maps[k - 1]
        if skip is None:
            skip = np.zeros((*x.shape[:3], 0))
        if model.padding == "VALID":
            top, left = ((a - b) // 2 for a, b in zip(skip.shape[1:3], x.shape[1:3], strict=True))
            skip = skip[:, top : top + x.shape[1], left : left + x.shape[2]]
        else:
            rows, columns = (
                np.arange(n).clip(0, m - 1)
                for n, m in zip(skip.shape[1:3], x.shape[1:3], strict=True)
            )
            x = x[:, rows][:, :, columns]
        x = call(call(np.concatenate([x, skip], -1), f"decode{k}_0"), f"decode{k}_1")
    head = variables["params"]["head"]
    return maps, x @ head["kernel"][0, 0] + head["bias"], seen


CASES = {
    "2015": (UNet(3, width=3, depth=2), (44, 48, 2)),
    "release": (UNet(2, width=3, depth=1, release=True), (20, 18, 1)),
    "padded": (UNet(3, width=3, depth=1, padding="torch", norm="batch"), (8, 11, 2)),
    "group, nearest": (
        UNet(2, width=4, depth=1, padding="SAME", norm="group", upsample="nearest"),
        (9, 8, 1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_evaluation(case, draw):
    model, shape = CASES[case]
    image = RANDOM.normal(size=(2, *shape)).astype(np.float32)
    variables = draw(model, shape)
    out = jax.jit(model.apply)(variables, image)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    maps, logits, _ = oracle(model, wide, image.astype(np.float64))
    for k, theirs in enumerate(maps, 1):
        assert np.abs(out[f"stage{k}"] - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert out["logits"].shape == logits.shape
    assert np.abs(out["logits"] - logits).max() < 1e-5 * np.abs(logits).max()


@pytest.mark.parametrize("case", CASES)
def test_training(case, draw):
    """Gradients in float64: along a direction for each tensor, by the oracle's differences."""
    model, shape = CASES[case]
    image = RANDOM.normal(size=(2, *shape))
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), draw(model, shape))
    target = RANDOM.normal(size=oracle(model, variables, image)[1].shape)
    with double_precision():
        ours = model.clone(dtype=jnp.float64, dropout=0.0, remat=case == "padded")

        def loss(params):
            rest = {k: v for k, v in variables.items() if k != "params"}
            out, new = ours.apply({"params": params, **rest}, image, train=True, mutable=[*rest])
            return jnp.square(out["logits"] - target).sum(), new

        step = jax.value_and_grad(loss, has_aux=True)
        step = jax.jit(step)
        (value, new), grads = jax.tree.map(np.asarray, step(variables["params"]))

    def theirs(params):
        logits = oracle(model, {**variables, "params": params}, image, train=True)[1]
        return np.square(logits - target).sum()

    assert abs(value - theirs(variables["params"])) < 1e-9 * value
    leaves, tree = jax.tree.flatten(variables["params"])
    errors, whole = [], max(np.linalg.norm(grad) for grad in jax.tree.leaves(grads))
    for k, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads), strict=True)):
        way = grad / np.linalg.norm(grad) + RANDOM.normal(size=leaf.shape) * leaf.size**-0.5
        ahead, behind = (
            theirs(tree.unflatten([*leaves[:k], leaf + h * way, *leaves[k + 1 :]]))
            for h in (1e-6, -1e-6)
        )
        slope = float((grad * way).sum())
        errors.append(abs((ahead - behind) / 2e-6 - slope) / max(abs(slope), 1e-3 * whole))
    assert max(errors) < 1e-6, errors
    if model.norm == "batch":
        seen = oracle(model, variables, image, train=True)[2]
        names = [f"stage{k}_{i}" for k in (1, 2) for i in (0, 1)]
        names += ["decode1_0", "decode1_1"]
        for name, (mean, var) in zip(names, seen, strict=True):
            old, now = (tree["batch_stats"][name]["norm"] for tree in (variables, new))
            np.testing.assert_allclose(
                now["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-6, atol=1e-6
            )
            np.testing.assert_allclose(now["var"], 0.9 * old["var"] + 0.1 * var, rtol=1e-6)


def sides_of_2015(side):
    """The sides of figure 1, by its arrows."""
    down = [side - 4]
    for _ in range(4):
        down.append(down[-1] / 2 - 4)
    x = down[-1]
    for _ in range(4):
        x = 2 * x - 4
    return [*down, x]


def test_sides():
    """All from 188 to 572: one is the height where the other is the width."""
    model = zoo.create_model("unet", width=1)
    image = jax.ShapeDtypeStruct((1, 188, 188, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    assert sides_of_2015(572) == [568, 280, 136, 64, 28, 388]
    names = [*(f"stage{k}" for k in range(1, 6)), "logits"]
    for side in range(188, 381, 16):
        image = jax.ShapeDtypeStruct((1, side, 760 - side, 1), jnp.float32)
        out = jax.eval_shape(model.apply, variables, image)
        assert [out[name].shape[1] for name in names] == sides_of_2015(side)
        assert [out[name].shape[2] for name in names] == sides_of_2015(760 - side)


def test_which_sides_fit():
    """By trying: every map before a pooling is even, and something is left."""

    def fits(side, depth):
        down = [side - 4]
        for _ in range(depth):
            if down[-1] % 2 or down[-1] <= 0:
                return 0
            down.append(down[-1] // 2 - 4)
        x = down[-1]
        for _ in range(depth):
            x = 2 * x - 4 if x > 0 else x
        return max(x, 0)

    for depth in (1, 2, 3, 4, 5):
        good = [side for side in range(700) if fits(side, depth)]
        assert all(side - fits(side, depth) == 2 * valid_margin(depth=depth) for side in good)
        for side in range(600):
            below = max((n for n in good if n < side), default=None)
            assert nearest_valid_sizes(side, depth=depth) == (
                below,
                min(n for n in good if n >= side),
            )


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        (
            {},
            (256, 572, 1),
            "sides of 16k \\+ 60 from 188 for valid convolutions: "
            "256 is not, 252 and 268 are \\(images",
        ),
        ({}, (64, 572, 1), "64 is not, 188 are \\(images of \\(1, 64, 572, 1\\)\\)"),
        ({"depth": 0}, (64, 64, 1), "expected a depth of at least 1 pooling, got 0"),
        (
            {"padding": "torch"},
            (64, 15, 1),
            "at least 16 x 16 for a U-Net of depth 4, got \\(1, 64, 15",
        ),
        ({"upsample": "bilinear"}, (188, 188, 1), "unknown upsample 'bilinear': .*linear"),
        (
            {"backbone": "vgg11", "padding": "VALID"},
            (64, 64, 3),
            "expected padding 'torch' or 'SAME' for a U-Net on a VGG",
        ),
        (
            {"backbone": "resnet18"},
            (9, 15, 3),
            "at least 16 x 16 for a U-Net on a backbone, got \\(1, 9, 15",
        ),
        ({"backbone": "perceptron"}, (28, 28, 1), "returns stage1 ... stageN, got Perceptron "),
    ],
)
def test_what_is_refused(fields, shape, message):
    model = zoo.create_model("unet", **fields)
    with pytest.raises(ValueError, match=message) as caught:
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("release", [False, True])
def test_multiply_adds_by_hand(release):
    """Kernel taps times channels times places of figure 1; the released network's last step wider."""
    places = [568, 280, 136, 64, 28]
    widths = [64, 128, 256, 512, 1024]
    total, inner = 0, 1
    for side, width in zip(places, widths, strict=True):
        total += 9 * ((side + 2) ** 2 * inner + side**2 * width) * width
        inner = width
    x = 28
    for width in reversed(widths[:-1]):
        kept = 2 * width if release and width == 64 else width
        total += 4 * x**2 * 2 * width * kept
        x = 2 * x - 4
        total += 9 * ((x + 2) ** 2 * (width + kept) + x**2 * width) * width
    name = "unet_2015_release" if release else "unet"
    assert zoo.model_card(name).macs == total + 388**2 * 64 * 2


def test_weights_begin_as_he_says():
    """N(0, 2 / N), N the nodes that come in: one tap of an up-convolution's four."""
    model = UNet(depth=1, width=32)
    init = jax.jit(model.init)
    params = init(jax.random.key(0), jnp.zeros((1, 18, 18, 1)))["params"]
    for name, inputs in {"stage2_1": 9 * 64, "decode1_0": 9 * 64, "up1": 64}.items():
        kernel = params[name].get("conv", params[name])["kernel"]
        np.testing.assert_allclose(kernel.std(), math.sqrt(2 / inputs), rtol=0.05)


def test_dropout_is_at_the_end_of_the_way_down(draw):
    model = UNet(width=8, depth=2, act="softplus")
    image = RANDOM.normal(size=(1, 44, 44, 1)).astype(np.float32)
    variables = draw(model, (44, 44, 1))
    keys = {"dropout": jax.random.key(1)}
    apply = functools.partial(model.apply, train=True, rngs=keys)
    out = jax.jit(apply)(variables, image)
    dropped = [float((out[f"stage{k}"] == 0).mean()) for k in (1, 2, 3)]
    assert dropped == pytest.approx([0, 0.5, 0.5], abs=0.05)


# The smallest of each family, and its stages' strides and channels by the papers' tables.
BACKBONES = {
    "resnet18": (dict(depths=(1, 1), width=8), [(4, 8), (8, 16)]),
    "vgg11": (dict(widths=(4, 4, 8, 8, 8)), [(1, 4), (2, 4), (4, 8), (8, 8), (16, 8)]),
    "densenet121": (dict(depths=(1, 1), growth=4, width=8), [(4, 8 + 4), (8, 6 + 4)]),
    "mobilenet_v2_035": ({}, [(4, 8), (8, 16), (16, 32), (32, 112)]),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_any_family_under_it(name):
    """Stages are the backbone's; logits have the image's size and the weights do not depend on it."""
    fields, stages = BACKBONES[name]
    backbone = zoo.create_model(name, num_classes=0, **fields)
    model = zoo.create_model("unet", backbone=backbone, num_classes=5)
    card = zoo.model_card("unet", backbone=backbone, num_classes=5)
    assert card.features == {f"stage{k}": stage for k, stage in enumerate(stages, 1)}
    assert card.input == variant_card(name)[0]["input"] and card.preprocessing.crop == 1
    image = jax.ShapeDtypeStruct((2, 67, 93, 3), jnp.float32)
    out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert out["logits"].shape == (2, 67, 93, 5)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == card.parameters


def test_count_over_a_resnet():
    """segmentation_models_pytorch's Unet has 24,436,369, of which 64 x 9 x 32 weights read a stage of
    stride 2, and 128 a head of 3 x 3."""
    card = zoo.model_card("unet", backbone="resnet34", num_classes=1)
    assert card.parameters == 24_436_369 - 64 * 9 * 32 - 128


@pytest.fixture
def assembly(draw):
    model = zoo.create_model(
        "unet",
        backbone=zoo.create_model("resnet18", num_classes=0, depths=(1, 1), width=8),
        width=4,
    )
    return model, draw(model, (33, 42, 3)), RANDOM.normal(size=(2, 33, 42, 3)).astype(np.float32)


def test_steps_over_a_backbone(assembly):
    """From the backbone's own stages on, by the oracle; 33 x 42 is no multiple of the strides."""
    model, variables, image = assembly
    out = jax.jit(model.apply)(variables, image)
    below = {kind: tree["backbone"] for kind, tree in variables.items()}
    stages = jax.jit(model.backbone.apply)(below, image)
    for stage in ("stage1", "stage2"):
        np.testing.assert_allclose(out[stage], stages[stage], rtol=1e-4, atol=1e-4)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    maps = [np.zeros((2, 33, 42, 0)), np.zeros((2, 17, 21, 0))]
    maps += [np.asarray(out[stage], np.float64) for stage in ("stage1", "stage2")]
    _, logits, _ = oracle(model, wide, image, maps=maps)
    assert np.abs(out["logits"] - logits).max() < 1e-5 * np.abs(logits).max()


def test_trained_weights_go_under_it(assembly, tmp_path, draw):
    """A classifier's file, loaded without its head, is the assembly's backbone in a line."""
    model, fresh, image = assembly
    classifier = zoo.create_model("resnet18", depths=(1, 1), width=8, num_classes=7)
    weights = jax.tree.map(lambda leaf: leaf * 1.5, draw(classifier, (48, 48, 3)))
    extra = dict(preprocessing=zoo.model_card("resnet18").preprocessing)
    zoo.save_model("resnet18", tmp_path / "a", classifier, weights, extra=extra)
    backbone, trained = zoo.load_model("resnet18", tmp_path / "a", num_classes=0)
    assert backbone == model.backbone
    variables = {kind: {**tree, "backbone": trained[kind]} for kind, tree in fresh.items()}
    out, theirs = (
        jax.jit(each.apply)(held, image)
        for each, held in ((model, variables), (classifier, weights))
    )
    np.testing.assert_allclose(out["stage2"], theirs["stage2"], rtol=1e-5, atol=1e-5)


def test_an_assembly_is_saved_loaded_and_folded(assembly, tmp_path):
    model, variables, image = assembly
    zoo.save_model("unet", tmp_path / "a", model.clone(dtype=jnp.bfloat16), variables)
    loaded, values = zoo.load_model("unet", tmp_path / "a")
    assert loaded == model and jax.tree.all(jax.tree.map(np.array_equal, values, variables))
    folded, lighter = zoo.fold_batchnorm(model, variables)
    before, after = (jax.jit(m.apply)(v, image) for m, v in ((model, variables), (folded, lighter)))
    assert "batch_stats" not in lighter
    error = np.abs(before["logits"] - after["logits"]).max()
    assert error < 1e-5 * np.abs(before["logits"]).max()


def test_a_name_alone_is_saved_as_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "trace_shapes", lambda model, image: {})
    monkeypatch.setattr(adapt, "trace_shapes", lambda model, image: {})
    model = zoo.create_model("unet", backbone="resnet34", axis_name="data", remat=True)
    zoo.save_model("unet", tmp_path / "a", model, {})
    card = read_card(tmp_path / "a")
    assert card["fields"]["backbone"] == "resnet34" and card["input"] == [224, 224, 3]
    assert zoo.load_model("unet", tmp_path / "a")[0] == zoo.create_model(
        "unet", backbone="resnet34"
    )


def test_what_the_backbone_shares(assembly):
    model, variables, image = assembly
    half = model.clone(dtype=jnp.bfloat16, axis_name="shards", remat=True)
    assert half.backbone == model.backbone.clone(dtype=jnp.bfloat16, axis_name="shards", remat=True)
    parted = model.clone(axis_name="shards")

    def learn(image):
        return parted.apply(variables, image, train=True, mutable=["batch_stats"])[1]

    jax.eval_shape(jax.vmap(learn, axis_name="shards"), image[:, None])
    with pytest.raises(NameError, match="shards"):  # and so it is asked for
        jax.eval_shape(learn, image)


def test_a_way_down_alone():
    out = jax.eval_shape(
        UNet(num_classes=0, depth=1).init_with_output, jax.random.key(0), jnp.zeros((1, 18, 18, 1))
    )[0]
    assert sorted(out) == ["stage1", "stage2"] and isinstance(UNet(), nn.Module)
