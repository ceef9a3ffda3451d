"""The one loop: fit(run, workdir)."""

import dataclasses
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np

import zoo
from train import checkpoint, parallel, plots, step
from train import log as logs
from train.data import eval_batches, train_batches
from train.run import Run

log = logging.getLogger("train")
ROWS_PER_EPOCH = 10  # rows of metrics.jsonl between two evaluations of a long epoch, at most
SHORTEST_ROW = 50  # steps
LOOKED_AT = 400  # examples among which predictions.png may choose
LIKELY = (
    "likely the learning rate is too high (try a tenth of it, a warm-up, or clipping), "
    "an input or a target is not finite, or a number is too large for bfloat16"
)


class Diverged(ArithmeticError):
    """The loss or its gradient is no number any more."""


@dataclasses.dataclass
class Position:
    """What the loop itself remembers, stored beside the state: JSON values only.

    rank: the monitor, negated for "min", so that more is better; best: the highest and its step.
    waited: evaluations since the best. sums, steps: training sums since the last row.
    """

    best: float | None = None
    best_step: int | None = None
    waited: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0


class Compiled(NamedTuple):
    """A run's functions over all devices, and the shapes and places of its state."""

    train: Callable
    measure: Callable
    predict: Callable
    start: Callable
    abstract: step.State


def fit(
    run: Run,
    workdir: str | Path,
    *,
    layout: parallel.Layout | None = None,
    recipe: str = "",
    knobs: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Trains, resuming what stands in `workdir` -> the kept snapshot's metrics; {} if interrupted.

    Errors: ValueError where the run cannot be (sizes, another run's workdir), Diverged on NaN,
    OSError where the disk is full.
    """
    workdir, layout = Path(workdir), layout or parallel.layout()
    logs.show(speak=parallel.is_main())
    parallel.rows(layout, run.batch_size)
    identity = {"recipe": recipe, "knobs": dict(knobs or {}), "seed": run.seed}
    finished = claim(workdir, identity, layout)
    if finished is not None:
        log.info("%s is finished; remove it or give another --workdir to train anew", workdir)
        logs.closing_table("finished earlier", finished)
        return finished

    compiled = compile_run(run, layout)
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
        found = checkpoint.restore(checkpoints, compiled.abstract)
        if found is None:
            state, position, start = compiled.start(), Position(), 0
        else:
            state, position, start = found[0], Position(**found[1]), int(found[0].step)
            log.info("resumed at step %d of %s", start, workdir)
        with logs.Metrics(workdir, step=start, write=parallel.is_main()) as metrics:
            state, at, reason = advance(
                run, state, position, start, compiled, layout, checkpoints, metrics
            )
        checkpoint.wait(checkpoints, step=at)
        if at not in checkpoints.all_steps():
            checkpoint.save(checkpoints, state, dataclasses.asdict(position), step=at)
            checkpoint.wait(checkpoints, step=at)
        if reason == "signal":
            log.info("stopped at step %d and saved; the same command goes on from there", at)
            return {}
        if position.best_step is not None and run.ema is None:
            best = checkpoint.restore(checkpoints, compiled.abstract, step=position.best_step)
            state, at = (best[0], position.best_step) if best else (state, at)
        return finish(run, workdir, state, at, reason, compiled, layout, metrics.rows)


def claim(
    workdir: Path, identity: dict[str, Any], layout: parallel.Layout
) -> dict[str, float] | None:
    """Marks the workdir as this run's -> the results of a finished one, else None.

    Errors: the folder holds another run (the differing values are named), or somebody's files.
    """
    path = workdir / "run.json"
    if path.exists():
        try:
            there = json.loads(path.read_text())
            theirs = {name: there[name] for name in identity}
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f"{path} is not a run of this project; give another --workdir")
        ours = json.loads(json.dumps(identity))
        if theirs != ours:
            raise ValueError(
                f"{workdir} holds another run ({difference(theirs, ours)}); "
                "give another --workdir, or the knobs of that run to go on with it"
            )
        return there.get("finished")
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise ValueError(f"{workdir} is not empty and holds no run; give another --workdir")
    parallel.barrier("claimed")  # every process has looked before one writes
    if parallel.is_main():
        workdir.mkdir(parents=True, exist_ok=True)
        packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
        machine = {
            "devices": [f"{d.platform} {d.device_kind}" for d in layout.mesh.devices.flat],
            "processes": jax.process_count(),
            "parallel": layout.mode,
            "fsdp": layout.fsdp,
            "versions": {name: version(name) for name in packages},
        }
        logs.write_text(path, json.dumps({**identity, **machine}, indent=2) + "\n")
    return None


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """`epochs 3 there, 5 asked for`: the values in which two identities differ."""
    theirs = {**theirs, **theirs["knobs"]}
    ours = {**ours, **ours["knobs"]}
    names = [name for name in {**theirs, **ours} if name != "knobs"]
    return "; ".join(
        f"{name} {theirs.get(name)} there, {ours.get(name)} asked for"
        for name in names
        if theirs.get(name) != ours.get(name)
    )


def compile_run(run: Run, layout: parallel.Layout) -> Compiled:
    """Jits the run's functions; nothing is computed before the first call."""
    example = next(iter(eval_batches(run.train, batch_size=1)))
    start = partial(
        step.init,
        model=run.model,
        task=run.task,
        optimizer=run.optimizer,
        ema=run.ema is not None,
        variables=run.variables,
    )
    arguments = (jax.random.key(run.seed), example)
    abstract = jax.eval_shape(start, *arguments)
    places = parallel.shardings(layout, abstract)
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        places,
    )
    model = dict(model=run.model, task=run.task)
    train = partial(
        step.train_step, **model, optimizer=run.optimizer, accumulate=run.accumulate, ema=run.ema
    )
    return Compiled(
        train=parallel.compile_train(layout, train, places),
        measure=parallel.compile_eval(layout, partial(step.eval_step, **model)),
        predict=parallel.compile_eval(layout, partial(step.predict_step, **model)),
        start=lambda: jax.jit(start, out_shardings=places)(*arguments),
        abstract=abstract,
    )


def advance(
    run: Run,
    state: step.State,
    position: Position,
    start: int,
    compiled: Compiled,
    layout: parallel.Layout,
    checkpoints: Any,
    metrics: logs.Metrics,
) -> tuple[step.State, int, str]:
    """Steps, rows, evaluations, checkpoints -> state, its step, "end" | "patience" | "signal"."""
    per_epoch = len(run.train) // run.batch_size
    total = per_epoch * run.epochs
    row_every = max(SHORTEST_ROW, per_epoch // ROWS_PER_EPOCH)
    shares = dict(process=jax.process_index(), processes=jax.process_count())
    batches = train_batches(
        run.train, batch_size=run.batch_size, seed=run.seed, start=start, stop=total, **shares
    )
    batches = parallel.ahead(layout, batches)
    bar = logs.progress_bar(total=total, start=start, disable=not parallel.is_main())
    at = start
    with Signals(checkpoints) as signals, bar:
        while at < total:
            if run.patience is not None and position.waited >= run.patience:
                return state, at, "patience"
            in_epoch = at % per_epoch
            until = at + min(row_every - in_epoch % row_every, per_epoch - in_epoch)
            began, first = time.perf_counter(), at
            try:
                state, at = steps(state, at, until, batches, position, compiled, signals, bar)
            except Diverged as error:
                raise Diverged(f"{error}; {last_good(checkpoints)}; {LIKELY}") from None
            if at < until:
                return state, at, "signal"
            rate = (at - first) * run.batch_size / (time.perf_counter() - began)
            row = {"step": at, "epoch": at / per_epoch, **training_row(position)}
            if at % per_epoch == 0:
                row |= evaluate(run, state, compiled, layout)
            metrics.write({**row, "train/images_per_second": round(rate, 1)})
            report(bar, row)
            if at % per_epoch == 0:
                best = judge(position, run, row)
                progress = dataclasses.asdict(position)
                checkpoint.save(checkpoints, state, progress, step=at, best=best)
    return state, at, "end"


def steps(
    state: step.State,
    at: int,
    until: int,
    batches: Iterator[Any],
    position: Position,
    compiled: Compiled,
    signals: "Signals",
    bar: Any,
) -> tuple[step.State, int]:
    """Trains from step `at` to `until`, or to a signal -> state, its step.

    A step's sums are read one step late, so that the device never waits for the host.
    """
    unread = None
    while at < until and not signals.asked(at):
        state, sums = compiled.train(state, next(batches))
        absorb(position, unread, at)
        unread, at = sums, at + 1
        bar.update()
    absorb(position, unread, at)
    return state, at


def last_good(checkpoints: Any) -> str:
    """Waits for the write under way -> the words for the newest checkpoint."""
    checkpoints.wait_until_finished()
    step = checkpoints.latest_step()
    return "no checkpoint stands yet" if step is None else f"the checkpoint of step {step} is good"


def absorb(position: Position, sums: Mapping[str, jax.Array] | None, at: int) -> None:
    """Adds the sums of the step that led to `at`. Errors: Diverged where one is not finite."""
    if sums is None:
        return
    numbers = {name: float(value.addressable_data(0)) for name, value in sums.items()}
    broken = [name for name, number in numbers.items() if not math.isfinite(number)]
    if broken:
        raise Diverged(f"{' and '.join(broken)} became {numbers[broken[0]]} at step {at}")
    for name, number in numbers.items():
        position.sums[name] = position.sums.get(name, 0.0) + number
    position.steps += 1


def training_row(position: Position) -> dict[str, float]:
    """The means since the last row, which start anew."""
    sums, count = dict(position.sums), position.steps
    position.sums, position.steps = {}, 0
    weight, norm = sums.pop("weight"), sums.pop("gradient_norm")
    means = {f"train/{name}": total / weight for name, total in sums.items()}
    return means | {"train/gradient_norm": norm / count}


def evaluate(
    run: Run, state: step.State, compiled: Compiled, layout: parallel.Layout
) -> dict[str, float]:
    """Every evaluation source -> {"val/accuracy": ...}."""
    variables = step.variables_of(state)
    size = -(-run.batch_size // layout.mesh.size) * layout.mesh.size
    shares = dict(process=jax.process_index(), processes=jax.process_count())
    results: dict[str, float] = {}
    for name, source in run.evaluate.items():
        measured = [
            parallel.gather(layout, compiled.measure(variables, batch))
            for batch in parallel.ahead(
                layout, eval_batches(source, batch_size=size, **shares), mapped=False
            )
        ]
        summary = run.task.summarize(measured)
        results |= {f"{name}/{metric}": float(value) for metric, value in summary.items()}
    return results


def judge(position: Position, run: Run, row: Mapping[str, float]) -> bool:
    """Whether the row is better than all before; the position learns it."""
    if run.monitor is None:
        return False
    metric, direction = run.monitor
    if metric not in row:
        known = ", ".join(name for name in row if "/" in name)
        raise ValueError(f"the run monitors {metric!r}, which is none of: {known}")
    rank = row[metric] if direction == "max" else -row[metric]
    better = math.isfinite(rank) and (position.best is None or rank > position.best)
    if better:
        position.best, position.best_step, position.waited = rank, int(row["step"]), 0
    else:
        position.waited += 1
    return better


def report(bar: Any, row: Mapping[str, float]) -> None:
    """Shows a row: beside the bar on a terminal, as a line elsewhere."""
    shown = {name: value for name, value in row.items() if not name.endswith("gradient_norm")}
    if bar.disable:
        log.info(logs.line(shown))
    else:
        bar.set_postfix_str(logs.line(shown).split("  ", 1)[1])


class Signals:
    """While open, SIGTERM and SIGINT ask the loop to save and stop; a second SIGINT ends at once.

    Among several processes jax's own preemption service agrees on the step at which all stop.
    """

    def __init__(self, checkpoints: Any):
        self.checkpoints = checkpoints
        self.came = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.previous[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, number: int, _: object) -> None:
        self.came = True
        signal.signal(number, self.previous[number])

    def asked(self, at: int) -> bool:
        if jax.process_count() > 1:
            return self.checkpoints.reached_preemption(at)
        return self.came


def finish(
    run: Run,
    workdir: Path,
    state: step.State,
    at: int,
    reason: str,
    compiled: Compiled,
    layout: parallel.Layout,
    rows: list[dict[str, float]],
) -> dict[str, float]:
    """Writes the kept variables and the pictures, marks the run finished -> the kept row."""
    variables = parallel.gather(layout, step.variables_of(state))
    drawn = look(run, variables, compiled, layout)
    kept = next((row for row in reversed(rows) if row["step"] == at), {})
    if not parallel.is_main():
        return kept
    extra = {"classes": list(run.train.classes)}
    if run.name is not None:
        path = workdir / "model.safetensors"
        zoo.save_model(run.name, path, run.model, variables, extra=extra)
    plots.save(plots.curves(rows, best=at), workdir / "curves.png")
    plots.save(run.task.render(*drawn), workdir / "predictions.png")
    if reason == "patience":
        log.info("stopped early: no better %s for %d evaluations", run.monitor, run.patience)
    facts = workdir / "run.json"
    there = json.loads(facts.read_text())
    logs.write_text(facts, json.dumps({**there, "finished": kept}, indent=2) + "\n")
    logs.closing_table(f"{workdir}: the snapshot of step {at}", kept)
    log.info("%s are in %s", ", ".join(p.name for p in sorted(workdir.glob("*.*"))), workdir)
    return kept


def look(run: Run, variables: Any, compiled: Compiled, layout: parallel.Layout) -> tuple[Any, Any]:
    """The first examples of the last evaluation source -> batch, outputs, to be drawn."""
    source = list(run.evaluate.values())[-1] if run.evaluate else run.train
    size = min(run.batch_size, LOOKED_AT)
    pairs = [
        (batch, parallel.gather(layout, compiled.predict(variables, batch)))
        for batch in islice(eval_batches(source, batch_size=size), -(-LOOKED_AT // size))
    ]
    batch, outputs = jax.tree.map(lambda *parts: np.concatenate(parts), *pairs)
    return jax.tree.map(lambda x: x[batch["valid"]], (batch, outputs))
