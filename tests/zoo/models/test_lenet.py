"""LeNet-5's own parts against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.models.lenet import C3_CONNECTIONS, LeNet5, SparseConv, Subsample, digit_codes

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)


def leaves(tree) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def test_layers_as_published():
    """LeCun et al. 1998, section II.B: 156, 12, 1,516, 32, 48,120 and 10,164 weights."""
    image = jnp.zeros((1, 32, 32, 1))
    params = jax.eval_shape(zoo.create_model("lenet5").init, KEY, image)["params"]
    sizes = {name: sum(w.size for w in jax.tree.leaves(params[name])) for name in params}
    assert sizes == dict(c1=156, s2=12, c3=1516, s4=32, c5=48120, f6=10164)


def test_paths():
    image = jnp.zeros((1, 32, 32, 1))
    params = jax.eval_shape(zoo.create_model("lenet5_modern").init, KEY, image)["params"]
    assert leaves(params) == {
        "c1/bias": (6,),
        "c1/kernel": (5, 5, 1, 6),
        "c3/bias": (16,),
        "c3/kernel": (5, 5, 6, 16),
        "c5/bias": (120,),
        "c5/kernel": (5, 5, 16, 120),
        "f6/bias": (84,),
        "f6/kernel": (120, 84),
        "output/bias": (10,),
        "output/kernel": (84, 10),
    }


def test_table_i():
    """Every map of S2 feeds ten of C3; three inputs six times, four nine times, six once."""
    assert np.bincount(np.concatenate(C3_CONNECTIONS)).tolist() == [10] * 6
    assert [len(row) for row in C3_CONNECTIONS] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_CONNECTIONS)) == 16


def test_sparse_convolution():
    x = RANDOM.normal(size=(2, 8, 9, 6)).astype(np.float32)
    y, variables = SparseConv().init_with_output(KEY, x)
    kernel = np.asarray(variables["params"]["kernel"], np.float64)
    assert kernel.shape == (5, 5, 60)
    expected = np.zeros((2, 4, 5, 16))
    edge = 0
    for target, row in enumerate(C3_CONNECTIONS):
        for source in row:
            for i in range(4):
                for j in range(5):
                    patch = x[:, i : i + 5, j : j + 5, source] * kernel[..., edge]
                    expected[:, i, j, target] += patch.sum((1, 2))
            edge += 1
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_subsample():
    x = RANDOM.normal(size=(2, 6, 4, 3)).astype(np.float32)
    scale, bias = np.float32([0.5, 1, 2]), np.float32([-1, 0, 1])
    y = Subsample().apply({"params": {"scale": scale, "bias": bias}}, x)
    sums = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    np.testing.assert_allclose(y, sums * scale + bias, rtol=1e-5, atol=1e-6)


def test_codes_are_far_apart():
    codes = digit_codes()
    assert codes.shape == (10, 84) and set(np.unique(codes)) == {-1.0, 1.0}
    distance = np.square(codes[:, None] - codes[None]).sum(-1)
    assert distance[~np.eye(10, dtype=bool)].min() >= 4 * 10, "ten pixels at least"


def test_rbf_output(draw):
    image = RANDOM.uniform(size=(4, 32, 32, 1)).astype(np.float32)
    model = zoo.create_model("lenet5")
    out = jax.jit(model.apply)(draw(model, (32, 32, 1)), image)
    f6 = np.asarray(out["pooled"], np.float64)
    assert f6.shape == (4, 84) and np.abs(f6).max() <= 1.7159
    distances = [[((row - code) ** 2).sum() for code in digit_codes()] for row in f6]
    np.testing.assert_allclose(out["logits"], -np.array(distances), rtol=1e-5)


def test_rbf_knows_ten_classes():
    image = jnp.zeros((1, 32, 32, 1))
    with pytest.raises(ValueError, match="expected num_classes=10 with rbf, got 3"):
        zoo.create_model("lenet5", num_classes=3).init(KEY, image)


def test_small_image():
    with pytest.raises(
        ValueError, match="images of at least 32 x 32 for LeNet-5, got .1, 28, 28, 1."
    ):
        LeNet5().init(KEY, jnp.zeros((1, 28, 28, 1)))


def test_modern_by_hand(draw):
    """The whole of lenet5_modern in numpy."""
    image = RANDOM.uniform(size=(2, 32, 32, 1)).astype(np.float32)
    model = zoo.create_model("lenet5_modern")
    variables = draw(model, (32, 32, 1))
    out = jax.jit(model.apply)(variables, image)
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def convolve(x, name):
        kernel = w[name]["kernel"]
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
        return np.tanh(np.einsum("bijckl,klcd->bijd", windows, kernel) + w[name]["bias"])

    def halve(x):
        return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4

    x = halve(convolve(halve(convolve(image, "c1")), "c3"))
    np.testing.assert_allclose(out["stage2"], x, rtol=1e-4, atol=1e-5)
    x = np.tanh(convolve(x, "c5")[:, 0, 0] @ w["f6"]["kernel"] + w["f6"]["bias"])
    logits = x @ w["output"]["kernel"] + w["output"]["bias"]
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-4, atol=1e-5)
