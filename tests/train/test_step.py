"""The step against plain numpy, and against itself done another way."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.train import fake_classification
from tests.train.layout_cases import five_steps
from train import parallel, step
from train.data import eval_batches, train_batches


def start(run, **changes):
    parts = dict(model=run.model, task=run.task, optimizer=run.optimizer)
    batch = next(iter(train_batches(run.train, batch_size=16, seed=0, start=0, stop=1)))
    return parts, step.init_state(jax.random.key(0), batch, **parts, **changes), batch


def test_one_sgd_step_of_softmax_regression_is_the_textbook_s():
    run = fake_classification.run(optimizer=optax.sgd(0.1))
    run = run._replace(task=run.task._replace(augment=lambda keys, batch: batch))
    parts, state, batch = start(run)
    new, sums = jax.jit(partial(step.train_step, **parts))(state, batch)

    (image,) = run.task.inputs(batch, True)
    x = np.asarray(image, np.float64).reshape(16, -1)
    ((name, layer),) = state.params.items()
    w, b = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)
    logits = x @ w + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = p - np.eye(2)[batch["label"]]
    np.testing.assert_allclose(new.params[name]["kernel"], w - 0.1 * x.T @ error / 16, atol=1e-6)
    np.testing.assert_allclose(new.params[name]["bias"], b - 0.1 * error.mean(0), atol=1e-6)
    loss = -np.log(p[np.arange(16), batch["label"]]).sum()
    np.testing.assert_allclose(sums["loss"], loss, rtol=1e-5)
    assert int(new.step) == 1 and float(sums["weight"]) == 16


def test_rows_that_are_not_valid_change_nothing():
    run = fake_classification.run()
    parts, state, batch = start(run)
    train = jax.jit(partial(step.train_step, **parts))
    batch["valid"][12:] = False
    expected, _ = train(state, batch)
    batch["image"][12:] = 255
    batch["label"][12:] = 1 - batch["label"][12:]
    found, _ = train(state, batch)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found.params, expected.params))


@pytest.mark.parametrize("unroll", [False, True])
def test_micro_batches_give_the_gradient_of_the_whole_batch(unroll):
    run = fake_classification.run()
    parts, state, batch = start(run)
    whole, sums = jax.jit(partial(step.train_step, **parts))(state, batch)
    by_four = partial(step.train_step, **parts, accumulation_steps=4, unroll=unroll)
    split, split_sums = jax.jit(by_four)(state, batch)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(split.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for name in sums:
        np.testing.assert_allclose(sums[name], split_sums[name], rtol=1e-5)


def test_micro_batches_agree_between_one_device_and_replicas():
    alone = parallel.create_layout("jit", devices=jax.devices()[:1])
    expected = five_steps(alone, "smooth", accumulation_steps=2)
    found = five_steps(parallel.create_layout("pmap"), "smooth", accumulation_steps=2)
    for name, value in expected.items():
        worst = np.max(np.abs(found[name] - value)) / np.max(np.abs(value))
        assert worst < 1e-5, f"{name} is off by {worst:.1e}"


def test_the_average_follows_its_formula_and_is_what_evaluation_sees():
    run = fake_classification.run()
    parts, state, batch = start(run, ema=True)
    train = jax.jit(partial(step.train_step, **parts, ema=0.5))
    expected = jax.tree.map(np.asarray, state.params)
    for number in range(8):
        state, _ = train(state, batch)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = jax.tree.map(
            lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new), expected, state.params
        )
    for name in expected:
        for leaf in expected[name]:
            found = step.variables_of(state)["params"][name][leaf]
            np.testing.assert_allclose(found, expected[name][leaf], rtol=1e-5)


def test_augmentation_draws_by_the_example_s_number_and_the_step():
    def augment(keys, batch):
        return {**batch, "draw": jax.vmap(jax.random.uniform)(keys)}

    seen = []

    def loss(outputs, batch):
        jax.debug.callback(lambda draw: seen.append(np.asarray(draw)), batch["draw"])
        return jnp.sum(outputs["logits"]), jnp.float32(16), {}

    run = fake_classification.run()
    run = run._replace(task=run.task._replace(augment=augment, loss=loss))
    parts, state, batch = start(run)
    train = jax.jit(partial(step.train_step, **parts))
    later, _ = train(state, batch)
    train(state, {name: value[::-1] for name, value in batch.items()})
    train(later, batch)
    jax.effects_barrier()
    first, turned, second = seen
    assert len(set(first.tolist())) == 16
    np.testing.assert_array_equal(turned, first[::-1])
    assert not set(first.tolist()) & set(second.tolist())


@pytest.mark.parametrize("count", [5, 16, 21])
def test_evaluation_counts_every_example_once(count):
    run = fake_classification.run()
    _, state, _ = start(run)
    measure = jax.jit(partial(step.eval_step, model=run.model, task=run.task))
    source = fake_classification.Shades(count, seed=2)
    measured = [
        measure(step.variables_of(state), batch) for batch in eval_batches(source, batch_size=8)
    ]
    found = run.task.summarize(jax.tree.map(np.asarray, measured))
    whole = {"image": source.image, "label": source.label}
    logits = run.model.apply(step.variables_of(state), *run.task.inputs(whole, False))["logits"]
    accuracy = np.mean(np.argmax(logits, -1) == source.label)
    np.testing.assert_allclose(found["accuracy"], accuracy, rtol=1e-6)
    loss = np.mean(optax.softmax_cross_entropy_with_integer_labels(logits, source.label))
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)


def test_bfloat16_computes_small_and_keeps_parameters_and_loss_whole():
    run = fake_classification.run()
    run = run._replace(
        model=zoo.create_model("mlp", num_classes=2, widths=(8,), dtype=jnp.bfloat16)
    )
    parts, state, batch = start(run)
    seen = []

    def spy(outputs, batch):
        total, *rest = run.task.loss(outputs, batch)
        seen.extend([outputs["pooled"].dtype, total.dtype])
        return total, *rest

    parts["task"] = run.task._replace(loss=spy)
    new, sums = jax.jit(partial(step.train_step, **parts))(state, batch)
    assert seen[:2] == [jnp.bfloat16, jnp.float32]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(new.params)} == {"float32"}
    assert float(sums["loss"]) > 0
