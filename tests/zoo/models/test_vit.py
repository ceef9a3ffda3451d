"""ViT's own parts: the whole of it in numpy, attention maps, positions, what drops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import zoo
from zoo.models.vit import Block, ViT, infer_fields, resize_positions
from zoo.weights.publishers import export_tensors

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(2, 12, 8, 3)).astype(np.float32)
TINY = dict(num_classes=5, image_size=(12, 8), patch=4, width=12, depth=2, heads=3)


def filled(model, image=IMAGE):
    """Variables of the model, each drawn: none 0, none 1."""
    shapes = jax.eval_shape(model.init, KEY, image)
    return jax.tree.map(lambda w: RANDOM.uniform(-0.5, 0.5, w.shape).astype(np.float32), shapes)


def norm(x, w):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
    return x * w["scale"] + w["bias"]


def dense(x, w):
    return x @ w["kernel"] + w["bias"]


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def by_hand(w, image, *, pool):
    """TINY by equations 1 to 4: six patches of 4 x 4 in three rows, three heads of four."""
    patches = image.reshape(2, 3, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 48)
    patch = dict(kernel=w["patch"]["kernel"].reshape(48, 12), bias=w["patch"]["bias"])
    z = dense(patches, patch)
    if pool == "token":
        z = np.concatenate([np.repeat(w["class_token"], 2, 0), z], 1)
    z = z + w["positions"]
    maps = []
    for index in range(2):
        block = w[f"stage1_{index}"]
        q, k, v = np.split(dense(norm(z, block["norm1"]), block["attention"]["qkv"]), 3, -1)
        heads, weights = [], []
        for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
            weight = np.exp(q[..., head] @ k[..., head].transpose(0, 2, 1) / 2)
            weights.append(weight / weight.sum(-1, keepdims=True))
            heads.append(weights[-1] @ v[..., head])
        z = z + dense(np.concatenate(heads, -1), block["attention"]["out"])
        z = z + dense(gelu(dense(norm(z, block["norm2"]), block["expand"])), block["reduce"])
        maps.append(np.stack(weights, 1))
    z = norm(z, w["norm"])
    pooled = z[:, 0] if pool == "token" else z.mean(1)
    return dict(
        stage1=z[:, -6:].reshape(2, 3, 2, 12),
        pooled=pooled,
        logits=dense(pooled, w["head"]),
        attention=np.stack(maps, 1),
    )


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_by_hand(pool):
    """With attention maps and without: the same."""
    model = ViT(**TINY, pool=pool)
    variables = filled(model)
    wide = jax.tree.map(np.float64, variables["params"])
    expected = by_hand(wide, IMAGE.astype(np.float64), pool=pool)
    for maps in (True, False):
        outputs = jax.jit(model.clone(attention_maps=maps).apply)(variables, IMAGE)
        assert expected.keys() - outputs.keys() == (set() if maps else {"attention"})
        for name in outputs:
            np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-5)
        if maps:
            np.testing.assert_allclose(outputs["attention"].sum(-1), 1, rtol=1e-5)


def test_paths():
    image = jnp.zeros((1, 224, 224, 3))
    params = jax.eval_shape(zoo.create_model("vit_ti_16").init, KEY, image)["params"]
    paths = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    others = {path: shape for path, shape in paths.items() if not path.startswith("stage1_")}
    assert others == {
        "class_token": (1, 1, 192),
        "head/bias": (1000,),
        "head/kernel": (192, 1000),
        "norm/bias": (192,),
        "norm/scale": (192,),
        "patch/bias": (192,),
        "patch/kernel": (16, 16, 3, 192),
        "positions": (1, 197, 192),
    }
    assert paths["stage1_11/attention/qkv/kernel"] == (192, 576)


def cubic(x):
    """Keys's kernel, a = -1/2."""
    x = abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return near if x < 1 else far if x < 2 else 0.0


def resampling(old, new):
    """`-> [new, old]`: how much of each old value is in each new one."""
    wide = max(old / new, 1)  # a kernel that shrinks reaches wider
    weights = np.zeros((new, old))
    for i, j in np.ndindex(new, old):
        weights[i, j] = cubic((j + 0.5 - (i + 0.5) * old / new) / wide)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("new", [(8, 9), (3, 2), (4, 9), (4, 6)])
def test_positions_of_another_grid(before, new):
    positions = RANDOM.normal(size=(1, before + 4 * 6, 5)).astype(np.float32)
    y = resize_positions(positions, old=(4, 6), new=new)
    rows, columns = resampling(4, new[0]), resampling(6, new[1])
    grid = positions[0, before:].reshape(4, 6, 5).astype(np.float64)
    expected = np.einsum("ia,jb,abd->ijd", rows, columns, grid).reshape(-1, 5)
    np.testing.assert_array_equal(y[0, :before], positions[0, :before])
    np.testing.assert_allclose(y[0, before:], expected, rtol=1e-4, atol=1e-5)


def test_an_image_of_another_size_is_computed_with_resized_positions():
    small, large = ViT(**TINY), ViT(**(TINY | dict(image_size=(16, 20))))
    variables = filled(small)
    image = RANDOM.normal(size=(1, 16, 20, 3)).astype(np.float32)
    params = dict(variables["params"])
    params["positions"] = resize_positions(params["positions"], old=(3, 2), new=(4, 5))
    moved = jax.jit(large.apply)({"params": params}, image)
    same = jax.jit(small.apply)(variables, image)
    np.testing.assert_allclose(same["logits"], moved["logits"], rtol=1e-5, atol=1e-6)
    assert same["stage1"].shape == (1, 4, 5, 12)


@pytest.mark.parametrize(
    ("fields", "side", "message"),
    [
        ({}, 225, "multiples of the patch size 16, got 224 x 225; resize the images"),
        ({}, 0, "multiples of the patch size 16, got 224 x 0"),
        (dict(patch=14, image_size=32), 224, "multiples of the patch size 14, got 32 x 32"),
        (dict(pool="max"), 224, "expected pool 'token' or 'mean', got 'max'"),
    ],
)
def test_wrong_fields_and_images(fields, side, message):
    image = jnp.zeros((1, 224, side, 3))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(zoo.create_model("vit_ti_16", **fields).init, KEY, image)


def test_macs_without_the_attention_products():
    """architectures.md: 16.85 G; the products are 12 blocks of 2 x 197 x 197 x 768."""
    assert round((zoo.model_card("vit_b_16").macs - 12 * 2 * 197**2 * 768) / 1e9, 2) == 16.85


def test_stochastic_depth_skips_a_branch_of_an_example():
    """Each of 64 equal examples is one of four: either branch whole and doubled, or not there."""
    x = np.repeat(RANDOM.normal(size=(1, 3, 6)).astype(np.float32), 64, 0)
    block = Block(heads=2, stochastic_depth=0.5)
    variables = filled(block, x)
    y, plain = jax.jit(
        lambda: (
            block.apply(variables, x, train=True, rngs={"dropout": KEY})[0],
            block.apply(variables, x)[0],
        )
    )()
    kinds, counts = np.unique(np.round(y, 3), axis=0, return_counts=True)
    assert len(kinds) == 4 and counts.min() >= 6
    assert (np.abs(kinds - x[:1]).max((1, 2)) < 1e-3).sum() == 1, "one kind skips both"
    assert np.abs(plain - plain[:1]).max() < 1e-5, "evaluation skips nothing"


def logits(variables, *, train, **fields):
    model = ViT(**(TINY | fields))
    return model.apply(variables, IMAGE, train=train, rngs={"dropout": KEY})["logits"]


def test_stochastic_depth_grows_with_the_depth():
    """With the last block's at 1 and two blocks, the first runs and the second never."""
    variables = filled(ViT(**TINY))
    skipped = jax.jit(lambda v: logits(v, train=True, stochastic_depth=1.0))(variables)
    first = jax.jit(lambda v: logits(v, train=False, depth=1))(variables)
    np.testing.assert_allclose(skipped, first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fields", [dict(dropout=0.5), dict(stochastic_depth=0.5)])
def test_nothing_drops_in_evaluation(fields):
    variables = filled(ViT(**TINY))
    outputs = jax.jit(
        lambda v: (
            logits(v, train=False),
            logits(v, train=False, **fields),
            logits(v, train=True, **fields),
        )
    )(variables)
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-6)
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3


def test_remat_keeps_less_for_the_backward_pass():
    """That it computes the same is in the goldens, whose training has it."""

    def kept(remat):
        model = ViT(**TINY, remat=remat)
        params = jax.eval_shape(model.init, KEY, IMAGE)["params"]

        def loss(params):
            return model.apply({"params": params}, IMAGE, train=True)["logits"].sum()

        leaves = jax.tree.leaves(jax.eval_shape(lambda p: jax.vjp(loss, p)[1], params))
        return sum(leaf.size for leaf in leaves)

    assert kept(True) < kept(False) / 2


def test_card_of_another_image_size():
    """32 x 32 in patches of 4: 65 tokens, two blocks of 12 L D D and 2 L L D, patches and head."""
    fields = dict(image_size=32, patch=4, depth=2, num_classes=10)
    card = zoo.model_card("vit_ti_16", **fields)
    blocks = 2 * (12 * 65 * 192**2 + 2 * 65**2 * 192)
    assert card.macs == blocks + 64 * 48 * 192 + 192 * 10
    assert card.input == (32, 32, 3) and card.preprocessing.size == (32, 32)
    assert card.features == {"stage1": (4, 192)}


def test_loading_for_another_image_size(tmp_path, draw):
    fields = dict(depth=1, width=12, num_classes=5)
    model = zoo.create_model("vit_ti_16", image_size=96, **fields)
    variables = draw(model, (96, 96, 3))
    zoo.save_model("vit_ti_16", tmp_path / "a", model, variables)
    larger, moved = zoo.load_model("vit_ti_16", tmp_path / "a", image_size=(64, 128))
    assert larger == model.clone(image_size=(64, 128))
    expected = resize_positions(variables["params"]["positions"], old=(6, 6), new=(4, 8))
    np.testing.assert_array_equal(moved["params"].pop("positions"), expected)
    del variables["params"]["positions"]
    assert jax.tree.all(jax.tree.map(np.array_equal, moved, variables))


@pytest.mark.parametrize("source", ["torchvision", "timm", "huggingface"])
def test_positions_of_another_library_tell_the_image_size(source, tmp_path, draw):
    fields = dict(depth=2, width=12, num_classes=5)
    model = zoo.create_model("vit_ti_16", image_size=96, **fields)
    variables = draw(model, (96, 96, 3))
    paths = traverse_util.flatten_dict(variables, sep="/")
    np.savez(tmp_path / "a.npz", **export_tensors("vit_ti_16", paths, source=source))
    loaded, values = zoo.load_model("vit_ti_16", tmp_path / "a.npz", depth=2, width=12)
    assert loaded == model and jax.tree.all(jax.tree.map(np.array_equal, values, variables))


def test_positions_of_no_square_tell_nothing():
    assert infer_fields({"params/positions": np.zeros((1, 19, 12))}, model=ViT()) == {}
    assert infer_fields({}, model=ViT()) == {}
