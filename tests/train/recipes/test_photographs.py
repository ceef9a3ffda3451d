"""The recipes of ImageNet's and CIFAR's nets: two real steps each, and what their papers say of the rate."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.recipes.pictures import CLASSES, write_pictures
from train import step
from train.data import eval_batches, train_batches
from train.recipes import RECIPES

BATCH = 6
# Each recipe's knobs, and fields that make its model small.
SMALL = {
    "alexnet_imagenet": (
        dict(image_size=67),
        dict(widths=(4, 8, 8, 8, 4), hidden=16),
    ),
    "vgg_imagenet": (dict(model="vgg11", image_size=32), dict(widths=(4,) * 5, hidden=16)),
    "resnet_imagenet": (
        dict(model="resnet18", image_size=32),
        dict(depths=(1, 1), width=8),
    ),
    "resnet_imagenet_2021": (
        dict(model="resnet18", train_size=32, image_size=48, stochastic_depth=0.1),
        dict(depths=(1, 1), width=8),
    ),
    "densenet_imagenet": (
        dict(model="densenet121", image_size=32),
        dict(depths=(1, 1), growth=4, width=8),
    ),
    "densenet_cifar10": ({}, dict(depths=(1, 1, 1), growth=4, width=8)),
    "resnet20_cifar10": ({}, dict(depths=(1, 1), width=4)),
    "resnet56_cifar10": ({}, dict(depths=(1, 1), width=4)),
    "mobilenet_v1_imagenet": (
        dict(model="mobilenet_v1_025", image_size=32),
        dict(stages=((1, 64), (2, 128))),
    ),
    "mobilenet_v2_imagenet": (
        dict(model="mobilenet_v2_035", image_size=32),
        dict(stages=((16,), (24, 24))),
    ),
    "vit_imagenet": (
        dict(model="vit_ti_16", image_size=32),
        dict(width=24, depth=1, heads=3),
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), train=4, val=2)


def small_run(name, source, **knobs):
    own, fields = SMALL[name]
    run = RECIPES[name](source=source, **{**own, **knobs})
    return run._replace(model=run.model.clone(**fields))


def drawn(run, batch):
    """Variables from numpy, which need no compiling: kernels by He's rule, variances and scales 1."""
    start = partial(step.init_state, model=run.model, task=run.task, optimizer=run.optimizer)
    state = jax.eval_shape(start, jax.random.key(0), batch)
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            return generator.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        return np.full(leaf.shape, float(kind in ("scale", "var")))

    variables = jax.tree_util.tree_map_with_path(draw, step.variables_of(state))
    return jax.tree.map(np.float32, variables)


def two_steps(run):
    """Takes them, and traces an evaluation: that it fits is enough here."""
    parts = dict(model=run.model, task=run.task)
    batches = list(train_batches(run.train, batch_size=run.batch_size, seed=0, start=0, stop=2))
    variables = drawn(run, batches[0])
    first = state = jax.jit(partial(step.init_state, **parts, optimizer=run.optimizer))(
        jax.random.key(0), batches[0], variables=variables
    )
    train = jax.jit(partial(step.train_step, **parts, optimizer=run.optimizer))
    for batch in batches:
        state, sums = train(state, batch)
        assert np.isfinite([float(value) for value in sums.values()]).all()
        assert float(sums["gradient_norm"]) > 0
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), first.params, state.params)
    assert any(jax.tree.leaves(moved)) and int(state.step) == 2
    judge, *_ = run.evaluate.values()
    (batch, *_) = eval_batches(judge, batch_size=run.batch_size)
    measure = jax.eval_shape(partial(step.eval_step, **parts), step.variables_of(state), batch)
    assert {"loss", "parts"} & set(measure)


@pytest.mark.parametrize("name", SMALL)
def test_two_steps_and_an_evaluation(name, source):
    run = small_run(name, source, batch_size=BATCH, epochs=1)
    assert run.train.classes == CLASSES and len(run.train) == 2 * BATCH
    two_steps(run)


# Epoch of the whole training -> the rate there, as a share of the first one.
RATES = {
    "alexnet_imagenet": {19: 1, 20: 0.1, 40: 0.01, 60: 0.001, 89: 0.001},
    "vgg_imagenet": {18: 1, 19: 0.1, 37: 0.01, 56: 0.001},
    "resnet_imagenet": {0: 0.1, 5: 1, 29: 1, 30: 0.1, 60: 0.01, 80: 0.001},
    "resnet_imagenet_2021": {0: 0, 1: 0.19877, 50: 0.5, 75: 0.1464, 100: 0},
    "densenet_imagenet": {29: 1, 30: 0.1, 60: 0.01, 89: 0.01},
    "densenet_cifar10": {149: 1, 150: 0.1, 224: 0.1, 225: 0.01},
    "resnet20_cifar10": {0: 0, 10: 0.5, 20: 0},
    "resnet56_cifar10": {0: 1, 81: 1, 82: 0.1, 122: 0.1, 123: 0.01},
    "mobilenet_v1_imagenet": {2: 1, 2.5: 0.94, 5: 0.94**2, 100: 0.94**40},
    "mobilenet_v2_imagenet": {0: 1, 75: 0.5, 150: 0},
    "vit_imagenet": {0: 0, 45: 0.5, 90: 0},
}
PER_EPOCH = 12


@functools.cache
def at_one(name, source):
    """The recipe at a rate of 1, one picture a batch."""
    return RECIPES[name](source=source, batch_size=1, learning_rate=1.0)


def steps_at(run, params, gradients, counts):
    """The optimizer's first step from `params`, as if so many steps lay behind its schedule."""

    @jax.jit
    @jax.vmap
    def step(count):
        state = run.optimizer.init(params)
        state = optax.tree_utils.tree_set(
            state, lambda path, _: "Schedule" in str(path[-1]), count=count
        )
        return run.optimizer.update(gradients, state, params)[0]

    return step(jnp.int32(counts))


@pytest.mark.parametrize("name", RATES)
def test_the_rate_falls_where_the_paper_says(name, source):
    w, g = (
        {"layer": {"kernel": jnp.full((1, 1), value), "bias": jnp.zeros(1)}} for value in (0.0, 0.1)
    )
    counts = [round(epoch * PER_EPOCH) for epoch in RATES[name]]
    steps = steps_at(at_one(name, source), w, g, counts)["layer"]["kernel"][:, 0, 0]
    found = dict(zip(RATES[name], steps.tolist(), strict=True))
    # The optimizer's own factor is the same at every epoch.
    epoch, share = next((e, s) for e, s in RATES[name].items() if s)
    for other, expected in RATES[name].items():
        np.testing.assert_allclose(
            found[other] * share, expected * found[epoch], rtol=2e-3, atol=1e-6 * abs(found[epoch])
        )


LAYERS = {
    "stage1_0": {
        "depthwise": {"conv": {"kernel": 1.0}, "norm": {"scale": 1.0, "bias": 1.0}},
        "pointwise": {"conv": {"kernel": 1.0}},
    },
    "head": {"kernel": 1.0, "bias": 1.0},
}
# Recipe -> which of these layers' parameters decay.
DECAYS = {
    "alexnet_imagenet": {"depthwise/conv/kernel", "pointwise/conv/kernel", "head/kernel"},
    "resnet_imagenet": {"depthwise/conv/kernel", "pointwise/conv/kernel", "head/kernel"},
    "mobilenet_v1_imagenet": {"pointwise/conv/kernel", "head/kernel"},
    "vit_imagenet": {"depthwise/conv/kernel", "pointwise/conv/kernel", "head/kernel"},
    "densenet_imagenet": {
        "depthwise/conv/kernel",
        "depthwise/norm/scale",
        "depthwise/norm/bias",
        "pointwise/conv/kernel",
        "head/kernel",
        "head/bias",
    },
}


@pytest.mark.parametrize("name", DECAYS)
def test_what_decays(name, source):
    params = jax.tree.map(jnp.float32, LAYERS)
    still = jax.tree.map(jnp.zeros_like, params)
    moved = steps_at(at_one(name, source), params, still, [10 * PER_EPOCH])
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("stage1_0/")
        for path, moved in jax.tree_util.tree_leaves_with_path(moved)
        if moved != 0
    }
    assert decayed == DECAYS[name]


def test_alexnets_biases_learn_twice_as_fast(source):
    zero = jax.tree.map(lambda w: jnp.float32(0 * w), LAYERS)
    ones = jax.tree.map(jnp.ones_like, zero)
    moved = steps_at(at_one("alexnet_imagenet", source), zero, ones, [0])
    np.testing.assert_allclose(moved["head"]["kernel"], [-1], rtol=1e-5)
    np.testing.assert_allclose(moved["head"]["bias"], [-2], rtol=1e-5)


def test_mobilenet_v1_steps_as_tensorflows_rmsprop_does(source):
    run = RECIPES["mobilenet_v1_imagenet"](source=source, batch_size=1, weight_decay=0.0)
    w, squares, velocity = {"layer": {"kernel": jnp.zeros(1)}}, 1.0, 0.0
    state, update = run.optimizer.init(w), jax.jit(run.optimizer.update)
    for gradient in (0.5, -2.0, 1.0):
        squares = 0.9 * squares + 0.1 * gradient**2
        velocity = 0.9 * velocity + 0.045 * gradient / np.sqrt(squares + 1.0)
        step, state = update({"layer": {"kernel": jnp.full(1, gradient)}}, state, w)
        np.testing.assert_allclose(step["layer"]["kernel"], -velocity, rtol=1e-5)
