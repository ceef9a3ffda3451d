"""Every optimizer against its update equation in plain numpy, and the links of a chain one by one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.optim import optimizers, param_groups
from train.optim.optimizers import OPTIMIZERS, create_optimizer

# Two parameters with names that the default mask tells apart, pulled to TARGET by a quadratic.
RANDOM = np.random.default_rng(0)
SHAPES = {"kernel": (3, 2), "bias": (2,)}
PARAMS = {"layer": {k: RANDOM.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}}
TARGET = {"layer": {k: RANDOM.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}}
CURVATURE = {"layer": {k: RANDOM.uniform(0.5, 2, s).astype(np.float32) for k, s in SHAPES.items()}}
RATES = [0.1, 0.1, 0.01, 0.05, 0.2]
DECAY = 0.3


def slope(w):
    return jax.tree.map(lambda w, target, h: h * (w - target), w, TARGET, CURVATURE)


def changing(count):
    return jnp.asarray(RATES)[count]


def run(optimizer, params, gradient, steps):
    """The parameters after each of the steps."""

    @jax.jit
    def step(w, state):
        updates, state = optimizer.update(gradient(w), state, w)
        return optax.apply_updates(w, updates), state

    w, state, after = jax.tree.map(jnp.asarray, params), optimizer.init(params), []
    for _ in range(steps):
        w, state = step(w, state)
        after.append(w)
    return after


def assert_close(actual, expected, rtol=2e-5, atol=2e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=rtol, atol=atol), actual, expected
    )


# One step of one leaf each: weights, gradient, memory s (zeros at first), rate, step t from 1, decay
# (0 where masked). They return the new weights and write what they remember into s.


def sgd(w, g, s, rate, t, decay):
    return w - rate * (g + decay * w)


def outside(w, g, s, rate, t, decay):
    s["v"] = 0.9 * s["v"] + (g + decay * w)
    return w - rate * s["v"]


def inside(w, g, s, rate, t, decay):
    s["v"] = 0.9 * s["v"] + rate * (g + decay * w)
    return w - s["v"]


def average(w, g, s, rate, t, decay):
    s["v"] = 0.9 * s["v"] + (1 - 0.9) * (g + decay * w)
    return w - rate * s["v"]


def nesterov(w, g, s, rate, t, decay):
    g = g + decay * w
    s["v"] = 0.9 * s["v"] + g
    return w - rate * (g + 0.9 * s["v"])


def adagrad(w, g, s, rate, t, decay):
    g = g + decay * w
    s["n"] = s["n"] + g**2
    return w - rate * g / np.sqrt(0.1 + s["n"] + 1e-7)


def rmsprop(w, g, s, rate, t, decay):
    g = g + decay * w
    s["n"] = 0.9 * s["n"] + 0.1 * g**2
    return w - rate * g / np.sqrt(s["n"] + 1e-8)


def adam_direction(g, s, t, eps=1e-8):
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["n"] = 0.999 * s["n"] + 0.001 * g**2
    return s["m"] / (1 - 0.9**t) / (np.sqrt(s["n"] / (1 - 0.999**t)) + eps)


def adam(w, g, s, rate, t, decay):
    return w - rate * adam_direction(g + decay * w, s, t)


def adamw(w, g, s, rate, t, decay):
    return w - rate * (adam_direction(g, s, t) + decay * w)


def lamb(w, g, s, rate, t, decay):
    u = adam_direction(g, s, t, eps=1e-6) + decay * w
    return w - rate * np.linalg.norm(w) / np.linalg.norm(u) * u


def lars(w, g, s, rate, t, decay):
    ratio = 1.0
    if decay:  # a masked leaf takes a plain step
        ratio = 0.001 * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w))
    s["v"] = 0.9 * s["v"] + rate * ratio * (g + decay * w)
    return w - s["v"]


def lion(w, g, s, rate, t, decay):
    u = np.sign(0.9 * s["m"] + 0.1 * g)
    s["m"] = 0.99 * s["m"] + 0.01 * g
    return w - rate * (u + decay * w)


def newton_schulz(x):
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x - 4.7750 * a @ x + 2.0315 * a @ a @ x
    return x


def muon(w, g, s, rate, t, decay):
    beta = 0.95 if w.ndim == 2 else 0.9
    s["m"] = beta * s["m"] + (1 - beta) * g
    ahead = beta * s["m"] / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
    if w.ndim == 2:
        u = 0.2 * np.sqrt(max(w.shape)) * newton_schulz(ahead)
    else:  # Adam with Nesterov, as Dozat's
        s["n"] = 0.999 * s["n"] + 0.001 * g**2
        u = ahead / (np.sqrt(s["n"] / (1 - 0.999**t)) + 1e-8)
    return w - rate * (u + decay * w)


EQUATIONS = {
    "sgd": sgd,
    "momentum": outside,
    "momentum_inside": inside,
    "momentum_average": average,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "lamb": lamb,
    "lars": lars,
    "lion": lion,
    "muon": muon,
}


def test_every_optimizer_has_its_equation():
    assert set(OPTIMIZERS) == set(EQUATIONS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equation_with_a_changing_rate(name):
    actual = run(create_optimizer(name, changing, weight_decay=DECAY), PARAMS, slope, len(RATES))
    w = jax.tree.map(np.float64, PARAMS)
    memory = {leaf: {key: np.zeros(SHAPES[leaf]) for key in "vmn"} for leaf in SHAPES}
    for t, rate in enumerate(RATES):
        gradient = slope(w)["layer"]
        w = {
            "layer": {
                leaf: EQUATIONS[name](
                    w["layer"][leaf],
                    gradient[leaf],
                    memory[leaf],
                    rate,
                    t + 1,
                    DECAY if leaf == "kernel" else 0.0,
                )
                for leaf in SHAPES
            }
        }
        assert_close(actual[t], w)


CONVERGING = {  # peak rate of a line to zero in 200 steps
    "sgd": 0.3,
    "momentum": 0.05,
    "momentum_inside": 0.05,
    "momentum_average": 0.3,
    "nesterov": 0.05,
    "adagrad": 0.5,
    "rmsprop": 0.05,
    "adam": 0.1,
    "adamw": 0.1,
    "lamb": 0.1,
    "lars": 20.0,
    "lion": 0.1,
    "muon": 0.2,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_converges_on_a_quadratic(name):
    def everything(params):
        return jax.tree.map(lambda _: True, params)

    rate = optax.linear_schedule(CONVERGING[name], 0.0, 200)
    optimizer = create_optimizer(name, rate, mask=everything)

    @jax.jit
    def descend(w):
        def step(carry, _):
            w, state = carry
            updates, state = optimizer.update(slope(w), state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, optimizer.init(w)), length=200)[0][0]

    def loss(w):
        return sum(np.sum(x**2) for x in jax.tree.leaves(slope(w)))

    assert loss(descend(PARAMS)) < 1e-4 * loss(PARAMS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bfloat16_gradients_leave_state_and_parameters_float32(name):
    optimizer = create_optimizer(name, changing, weight_decay=DECAY)
    state = optimizer.init(PARAMS)
    half = jax.tree.map(lambda g: jnp.asarray(g, jnp.bfloat16), slope(PARAMS))
    full = jax.tree.map(lambda g: g.astype(jnp.float32), half)  # the same numbers

    @jax.jit
    def step(g):
        updates, new_state = optimizer.update(g, state, PARAMS)
        return optax.apply_updates(PARAMS, updates), new_state

    (w, new_state), (expected, _) = step(half), step(full)
    dtypes = [jax.tree.map(lambda x: jnp.asarray(x).dtype, tree) for tree in (state, new_state)]
    assert dtypes[0] == dtypes[1]
    assert {x.dtype for x in jax.tree.leaves(w)} == {jnp.dtype("float32")}
    assert_close(w, expected, rtol=0, atol=2e-3)  # bfloat16 holds a step of 0.1 to 4e-4


def test_the_three_forms_of_momentum():
    def after(rate, form):
        return run(optimizers.momentum(rate, form=form), PARAMS, slope, len(RATES))[-1]

    assert_close(after(0.05, "inside"), after(0.05, "outside"))
    difference = (
        after(changing, "inside")["layer"]["bias"] - after(changing, "outside")["layer"]["bias"]
    )
    assert np.abs(difference).max() > 0.05
    assert_close(after(changing, "average"), after(lambda t: 0.1 * changing(t), "outside"))
    with pytest.raises(ValueError, match="expected outside, inside or average, got 'caffe'"):
        optimizers.momentum(0.1, form="caffe")


def test_adam_with_decoupled_l2_is_adamw():
    chain = optax.chain(optax.adam(changing), optimizers.decoupled_l2(DECAY, changing))
    adamw = create_optimizer("adamw", changing, weight_decay=DECAY)
    assert_close(run(chain, PARAMS, slope, 5)[-1], run(adamw, PARAMS, slope, 5)[-1])


def test_lars_moves_what_starts_at_zero():
    w = {"kernel": jnp.zeros((2, 2))}
    optimizer = optimizers.lars(0.5, weight_decay=DECAY)
    step, _ = optimizer.update({"kernel": jnp.ones((2, 2))}, optimizer.init(w), w)
    assert_close(step, {"kernel": np.full((2, 2), -0.5)})


# Muon on what is not a matrix


def first_step(optimizer, gradient):
    step, _ = jax.jit(optimizer.update)(gradient, optimizer.init(gradient), gradient)
    return step


def test_muon_takes_a_convolution_as_a_matrix_and_makes_it_orthogonal():
    kernel = jnp.asarray(RANDOM.normal(size=(3, 3, 4, 8)), jnp.float32)
    volume = kernel.reshape(3, 3, 2, 2, 8)
    gradient = {name: {"kernel": k} for name, k in [("image", kernel), ("video", volume)]}
    gradient["dense"] = {"kernel": kernel.reshape(36, 8)}
    step = first_step(optimizers.muon(0.5), gradient)
    dense = step["dense"]["kernel"]
    assert_close(step["image"]["kernel"].reshape(36, 8), dense)
    assert_close(step["video"]["kernel"].reshape(36, 8), dense)
    singular = np.linalg.svd(dense, compute_uv=False) / (0.5 * 0.2 * 36**0.5)
    assert 0.5 < singular.min() and singular.max() < 1.5
    # steepest descent under the spectral norm: U V^T of the gradient, to Newton-Schulz's accuracy
    u, _, v = np.linalg.svd(gradient["dense"]["kernel"], full_matrices=False)
    assert np.sum(-dense * (u @ v)) / np.linalg.norm(dense) / np.linalg.norm(u @ v) > 0.95


@pytest.mark.parametrize(
    "path, shape",
    [
        ("kernel", (3, 3, 1, 8)),  # depthwise, or of a gray image
        ("kernel", (8, 2, 4)),  # an attention's
        ("embedding", (5, 4)),
        ("bias", (2, 4)),
        ("scale", (4,)),
    ],
)
def test_muon_leaves_the_rest_to_adam(path, shape):
    gradient = {"layer": {path: jnp.asarray(RANDOM.normal(size=shape), jnp.float32)}}
    step = first_step(optimizers.muon(0.5), gradient)
    assert_close(step, first_step(optax.adam(0.5, nesterov=True), gradient))


# Masks and penalties


class Small(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(7, 8, name="words")(tokens)
        x = x + self.param("positions", nn.initializers.zeros, (1, 5, 8))
        x = nn.MultiHeadDotProductAttention(2, name="attention")(x)
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return nn.Conv(4, (3,), name="conv")(x)


def test_decay_mask_holds_kernels_and_embeddings_alone():
    tokens = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    params = jax.eval_shape(Small().init, jax.random.key(0), tokens)["params"]
    mask = param_groups.decay_mask(params)
    assert mask["words"] == {"embedding": True}
    assert mask["positions"] is False
    assert set(mask["attention"]) == {"query", "key", "value", "out"}
    for layer in [*mask["attention"].values(), mask["conv"]]:
        assert layer == {"kernel": True, "bias": False}
    assert mask["norm"] == {"scale": False, "bias": False}


@pytest.mark.parametrize("l1, l2", [(0.0, 0.3), (0.2, 0.0), (0.2, 0.3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_penalty_is_the_gradient_of_its_formula(l1, l2, dtype):
    w = {"kernel": jnp.array([[1.5, -2.0], [0.0, 4.0]]), "bias": jnp.array([3.0, -1.0])}
    g = jax.tree.map(lambda w: jnp.full_like(w, 0.25, dtype), w)
    links = (
        optimizers.add_penalty(l1=l1, l2=l2),
        optimizers.add_penalty(l1=l1, l2=l2, mask=param_groups.path_mask("bias")),
    )
    for link, leaf in zip(links, ["kernel", "bias"], strict=True):
        updates, _ = jax.jit(link.update)(g, link.init(w), w)
        expected = jax.tree.map(lambda w: np.full(w.shape, 0.25), w)
        expected[leaf] += l1 * np.sign(w[leaf]) + l2 * np.asarray(w[leaf])
        assert_close(updates, expected)


# Clipping, which is optax's: what a recipe may rely on


TREE = {
    "body": {"kernel": np.array([[3.0, 0.1], [4.0, 0.2]], np.float32)},
    "head": np.float32([12]),
}


@pytest.mark.parametrize(
    "clip, body, head",
    [
        (optax.clip_by_global_norm(6.5), [[1.5, 0.05], [2.0, 0.1]], [6.0]),  # norm is 13.00
        (optax.clip_by_global_norm(99.0), TREE["body"]["kernel"], TREE["head"]),
        (optax.clip(3.5), [[3.0, 0.1], [3.5, 0.2]], [3.5]),
        # columns are units: norms 5 and 0.224 of the gradient, 2 and 2 of the weights
        (
            optax.masked(optax.adaptive_grad_clip(0.5), param_groups.path_mask("(?!head).*")),
            [[0.6, 0.1], [0.8, 0.2]],
            [12.0],
        ),
    ],
)
@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-3), ("bfloat16", 1e-2)])
def test_clipping(clip, body, head, dtype, rtol):
    w = {"body": {"kernel": jnp.full((2, 2), 2**0.5)}, "head": jnp.ones(1)}
    g = jax.tree.map(lambda g: jnp.asarray(g, dtype), TREE)
    clipped, _ = jax.jit(clip.update)(g, clip.init(w), w)
    np.testing.assert_allclose(np.float32(clipped["body"]["kernel"]), body, rtol=rtol)
    np.testing.assert_allclose(np.float32(clipped["head"]), head, rtol=rtol)


# By layer


def layers(**widths):
    return {
        layer: {"kernel": np.full((2, n), n, np.float32), "bias": np.ones(n, np.float32)}
        for layer, n in widths.items()
    }


def test_first_pattern_that_matches_scales_a_path():
    w = layers(stem=3, stage1_0=4, head=5)
    link = param_groups.scale_by_path({"stem/bias": 3.0, "stem/.*": 0.5, ".*/bias": 2.0})
    step, _ = jax.jit(link.update)(w, link.init(w))
    factors = {
        "stem": {"kernel": 0.5, "bias": 3.0},
        "stage1_0": {"kernel": 1.0, "bias": 2.0},
        "head": {"kernel": 1.0, "bias": 2.0},
    }
    assert_close(step, jax.tree.map(lambda factor, w: factor * w, factors, w))


def test_layer_decay_falls_towards_the_input_and_keeps_the_dtype():
    w = jax.tree.map(
        lambda w: np.ones(w.shape, jnp.bfloat16), layers(stem=3, block0=4, block1=5, head=6)
    )
    link = param_groups.layer_decay(["stem/.*", "block0/.*", "block1/.*"], decay=0.5)
    step, _ = jax.jit(link.update)(w, link.init(w))
    for layer, factor in {"stem": 0.125, "block0": 0.25, "block1": 0.5, "head": 1.0}.items():
        for scaled in step[layer].values():
            assert scaled.dtype == jnp.bfloat16
            assert np.all(np.asarray(scaled) == factor)


@pytest.mark.parametrize("name", ["momentum", "adamw", "lamb", "lars", "muon"])
def test_frozen_parameters_stay_bit_equal_and_have_no_state(name):
    def chain(groups):
        return optax.chain(
            optax.clip_by_global_norm(1.0),
            create_optimizer(name, changing, weight_decay=DECAY),
            param_groups.layer_decay(groups, decay=0.5),
        )

    whole = layers(stem=6, stage1_0=4, head=5)
    rest = {layer: whole[layer] for layer in ("stage1_0", "head")}
    optimizer = param_groups.freeze_by_path(chain(["stem/.*", "stage1_.*"]), "stem/.*")
    state = {x.shape for x in jax.tree.leaves(optimizer.init(whole))}
    assert not state & {(2, 6), (6,)} and state >= {(2, 4), (4,), (2, 5), (5,)}

    def gradient(w):
        return jax.tree.map(lambda w: w + 1, w)

    after = run(optimizer, whole, gradient, 4)[-1]
    for leaf, w in after.pop("stem").items():
        assert np.asarray(w).tobytes() == whole["stem"][leaf].tobytes()
    # the others go as if what is frozen were not there, in the clipped norm too
    assert_close(after, run(chain(["stage1_.*"]), rest, gradient, 4)[-1])
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).min() > 0, after, rest)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: create_optimizer("adma", 0.1), "got 'adma'; nearest: adam, "),
        (lambda: create_optimizer("sgd", -0.1), "learning rate: .* got -0.1"),
        (lambda: create_optimizer("sgd", float("nan")), "learning rate: .* got nan"),
        (lambda: create_optimizer("sgd", 0.1, weight_decay=float("inf")), "weight decay: .* inf"),
        (
            lambda: param_groups.freeze_by_path(optax.sgd(0.1), "layer/kernal").init(PARAMS),
            "'layer/kernal': expected to match .* nearest: layer/kernel, layer/bias",
        ),
        (
            lambda: param_groups.freeze_by_path(optax.sgd(0.1), "params/layer/.*").init(PARAMS),
            "without 'params/' in front",
        ),
        (
            lambda: param_groups.layer_decay(["lay"], decay=0.5).init(PARAMS),
            "a whole parameter path",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
