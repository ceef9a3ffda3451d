"""Five training steps under a layout; run as a script it is one of several processes."""

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax

import zoo
from train import augment, parallel, step
from train.data import train_batches
from train.optim import optimizers, schedules
from train.tasks.reconstruction import reconstruction

STEPS, BATCH = 5, 16

LAYOUTS = {
    "jit": lambda: parallel.create_layout("jit"),
    "pmap": lambda: parallel.create_layout("pmap"),
    "fsdp": lambda: parallel.create_layout("jit", shard="fsdp"),
}


class Noise:
    """Thirty-two fixed random pictures: enough for BatchNorm to matter."""

    name, classes = "noise", ()

    def __len__(self):
        return 32

    def __getitem__(self, index):
        generator = np.random.default_rng(index)
        return {"image": generator.integers(0, 256, (16, 16, 1), dtype=np.uint8)}


# Rounding moves a smooth model by about 1e-6; with AdamW and ReLU a unit that rounds to the other
# side of 0 moves a gradient, and Adam divides by its size.
CASES = {
    "smooth": dict(
        act="tanh",
        optimizer=partial(optimizers.momentum, schedules.constant(1e-3)),
        tolerance=1e-5,
    ),
    "relu": dict(act="relu", optimizer=partial(optax.adamw, 1e-3), tolerance=1e-2),
}


def five_steps(
    layout: parallel.Layout, case: str, *, accumulation_steps: int = 1
) -> dict[str, np.ndarray]:
    """Layout -> {"loss": [5], "gradient_norm": [5], "params/...": ..., "batch_stats/...": ...}."""
    task = reconstruction(loss="squared", augment=augment.images(partial(augment.shift, pixels=2)))
    model = zoo.create_model("conv_autoencoder", widths=(8, 16), act=CASES[case]["act"])
    parts = dict(model=model, task=task, optimizer=CASES[case]["optimizer"]())
    shares = dict(process=jax.process_index(), processes=jax.process_count())
    batches = train_batches(Noise(), batch_size=BATCH, seed=0, start=0, stop=STEPS, **shares)
    start = partial(step.init_state, **parts)
    arguments = jax.random.key(0), {"image": np.zeros((1, 16, 16, 1), np.uint8)}
    places = parallel.state_shardings(layout, jax.eval_shape(start, *arguments))
    state = jax.jit(start, out_shardings=places)(*arguments)
    train = parallel.compile_train(
        layout, partial(step.train_step, **parts, accumulation_steps=accumulation_steps), places
    )
    results: dict[str, list] = {"loss": [], "gradient_norm": []}
    for batch in parallel.prefetch_to_device(layout, batches):
        state, sums = train(state, batch)
        sums = parallel.gather_to_host(layout, sums)
        results["loss"].append(sums["loss"] / sums["weight"])
        results["gradient_norm"].append(sums["gradient_norm"])
    variables = parallel.gather_to_host(layout, {"params": state.params, **state.collections})
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    return {**{name: np.array(values) for name, values in results.items()}, **named}


if __name__ == "__main__":
    case, folder, *names = sys.argv[1:]
    parallel.setup_devices(devices=4)
    for name in names:
        found = five_steps(LAYOUTS[name](), case)
        if parallel.is_main():
            np.savez(Path(folder, name), **found)
