"""The training loop: `fit(run, workdir)`."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import zoo
from train import checkpoint, parallel, plots, precise_batchnorm, progress, step
from train import log as logs
from train import workdir as workdirs
from train.data import eval_batches, train_batches
from train.data.source import Subset
from train.progress import LIKELY_CAUSES, Clock, DivergedError, Progress
from train.run import Run
from train.signals import SignalHandler

log = logging.getLogger("train")
ROWS_PER_EPOCH = 10  # rows of metrics.jsonl between two evaluations of a long epoch, at most
MIN_ROW_STEPS = 50  # steps
MAX_PLOT_EXAMPLES = 400  # examples among which predictions.png may choose
MAX_PLOT_BYTES = (
    2**29
)  # bytes of them and of what the model says of them, past which no more are looked at


class Compiled(NamedTuple):
    """Compiled functions of a run, and the shapes and shardings of its state."""

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
    """Trains a run, and resumes it if the work directory holds a checkpoint.

    Args:
        run: the run.
        workdir: folder of checkpoints, metrics, plots and weights.
        layout: devices and parallelism; all devices under jit if not given.
        recipe: name of the recipe, which is stored in run.json.
        knobs: options of the recipe, which are stored in run.json.

    Returns:
        The metrics of the exported snapshot; {} if the run was interrupted.

    Raises:
        ValueError: if sizes are invalid or the work directory belongs to another run.
        DivergedError: if the loss or its gradient is not finite.
        OSError: if files cannot be written, e.g. because the disk is full.
    """
    workdir, layout = Path(workdir), layout or parallel.create_layout()
    logs.setup_logging(speak=parallel.is_main())
    parallel.check_batch_size(layout, run.batch_size)
    identity = {"recipe": recipe, "knobs": dict(knobs or {}), "seed": run.seed}
    finished = workdirs.claim_workdir(workdir, identity, layout)
    if finished is not None:
        log.info("%s is finished; remove it or give another --workdir to train anew", workdir)
        logs.print_summary("finished earlier", finished)
        return finished

    compiled = compile_run(run, layout)
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
        found = checkpoint.restore_checkpoint(checkpoints, compiled.abstract)
        if found is None:
            state, position, start = compiled.start(), Progress(), 0
        else:
            state, position, start = found[0], Progress(**found[1]), int(found[0].step)
            log.info("resumed at step %d of %s", start, workdir)
        with logs.Metrics(workdir, step=start, write=parallel.is_main()) as metrics:
            state, at, reason = train_until_done(
                run, state, position, start, compiled, layout, checkpoints, metrics
            )
        checkpoint.wait_until_saved(checkpoints, step=at)
        if at not in checkpoints.all_steps():
            checkpoint.save_checkpoint(checkpoints, state, dataclasses.asdict(position), step=at)
            checkpoint.wait_until_saved(checkpoints, step=at)
        if reason == "signal":
            log.info("stopped at step %d and saved; the same command goes on from there", at)
            return {}
        if position.best_step is not None and run.ema is None:
            found = checkpoint.restore_checkpoint(
                checkpoints, compiled.abstract, steps=[position.best_step, at]
            )
            state, at = (found[0], int(found[0].step)) if found else (state, at)
        return finish(run, workdir, state, at, reason, compiled, layout, metrics.rows)


def compile_run(run: Run, layout: parallel.Layout) -> Compiled:
    """Creates the compiled functions of a run without computing anything."""
    example = {name: np.asarray(value)[None] for name, value in run.train[0].items()}
    example |= {"index": np.zeros(1, np.int32), "valid": np.ones(1, bool)}
    start = partial(
        step.init_state,
        model=run.model,
        task=run.task,
        optimizer=run.optimizer,
        ema=run.ema is not None,
        variables=run.variables,
    )
    arguments = (jax.random.key(run.seed), example)
    abstract = jax.eval_shape(start, *arguments)
    places = parallel.state_shardings(layout, abstract)
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        places,
    )
    model = dict(model=run.model, task=run.task)
    train = partial(
        step.train_step,
        **model,
        optimizer=run.optimizer,
        accumulation_steps=run.accumulation_steps,
        unroll=parallel.is_cpu(layout),
        ema=run.ema,
        frozen_norms=tuple(run.frozen_norms),
    )
    return Compiled(
        train=parallel.compile_train(layout, train, places),
        measure=parallel.compile_eval(layout, partial(step.eval_step, **model)),
        predict=parallel.compile_eval(layout, partial(step.predict_step, **model)),
        start=lambda: jax.jit(start, out_shardings=places)(*arguments),
        abstract=abstract,
    )


def train_until_done(
    run: Run,
    state: step.State,
    position: Progress,
    start: int,
    compiled: Compiled,
    layout: parallel.Layout,
    checkpoints: Any,
    metrics: logs.Metrics,
) -> tuple[step.State, int, str]:
    """Trains, evaluates and saves checkpoints until the run ends.

    Returns:
        The state, its step, and the reason to stop: "end", "patience" or "signal".
    """
    per_epoch = len(run.train) // run.batch_size
    total = per_epoch * run.epochs
    row_every = max(MIN_ROW_STEPS, per_epoch // ROWS_PER_EPOCH)
    shares = dict(process=jax.process_index(), processes=jax.process_count())
    batches = train_batches(
        run.train, batch_size=run.batch_size, seed=run.seed, start=start, stop=total, **shares
    )
    batches = parallel.prefetch_to_device(layout, batches)
    bar = logs.progress_bar(total=total, start=start, disable=not parallel.is_main())
    at, clock = start, Clock()
    with SignalHandler(checkpoints) as signals, bar:
        while at < total:
            if run.patience is not None and position.evaluations_since_best >= run.patience:
                return state, at, "patience"
            in_epoch = at % per_epoch
            until = at + min(row_every - in_epoch % row_every, per_epoch - in_epoch)
            first = at
            clock.start()
            try:
                state, at = run_steps(
                    state, at, until, batches, position, compiled, signals, bar, clock
                )
            except DivergedError as error:
                raise DivergedError(
                    f"{error}; {checkpoint.describe_last(checkpoints)}; {LIKELY_CAUSES}"
                ) from None
            if at < until:
                return state, at, "signal"
            times = clock.row((at - first) * run.batch_size)
            row = {"step": at, "epoch": at / per_epoch, **progress.training_row(position)}
            if at % per_epoch == 0:
                row |= evaluate_all(run, step.variables_of(state), compiled, layout)
            metrics.write({**row, **times})
            report_row(bar, {**row, **times})
            if at % per_epoch == 0:
                best = progress.update_best(position, row, run.monitor)
                remembered = dataclasses.asdict(position)
                checkpoint.save_checkpoint(checkpoints, state, remembered, step=at, best=best)
    return state, at, "end"


def run_steps(
    state: step.State,
    at: int,
    until: int,
    batches: Iterator[Any],
    position: Progress,
    compiled: Compiled,
    signals: SignalHandler,
    bar: Any,
    clock: Clock,
) -> tuple[step.State, int]:
    """Trains until a step or a signal.

    The sums of a step are read one step later, so that the device never waits for the host.

    Returns:
        The state and its step.
    """
    unread = None
    while at < until and not signals.asked(at):
        batch = clock.next(batches)
        called = time.perf_counter()
        state, sums = compiled.train(state, batch)
        if clock.compile_seconds is None:
            clock.compile_seconds = time.perf_counter() - called
            log.info("the step is compiled: %.1f s", clock.compile_seconds)
        progress.accumulate_metrics(position, unread, at)
        unread, at = sums, at + 1
        bar.update()
    progress.accumulate_metrics(position, unread, at)
    return state, at


def recompute_bn_stats(run: Run, variables: Any, layout: parallel.Layout) -> Any:
    """Returns the variables with the statistics of `run.precise_bn_batches` training batches."""
    one = partial(
        precise_batchnorm.batch_statistics,
        key=jax.random.key(run.seed),
        model=run.model,
        task=run.task,
        frozen_norms=tuple(run.frozen_norms),
    )
    compiled = parallel.compile_eval(layout, one)
    shares = dict(process=jax.process_index(), processes=jax.process_count())
    batches = train_batches(
        run.train,
        batch_size=run.batch_size,
        seed=run.seed,
        start=0,
        stop=run.precise_bn_batches,
        **shares,
    )
    found = (
        parallel.gather_to_host(layout, compiled(variables, batch))
        for batch in parallel.prefetch_to_device(layout, batches, mapped=False)
    )
    log.info("statistics of the norms over %d batches of the training data", run.precise_bn_batches)
    return precise_batchnorm.precise_batchnorm(variables, found)


def evaluate_all(
    run: Run, variables: Any, compiled: Compiled, layout: parallel.Layout
) -> dict[str, float]:
    """Evaluates all evaluation sources and returns {"val/accuracy": ...}."""
    results: dict[str, float] = {}
    for name, source in run.evaluate.items():
        summary = run.task.summarize(measure_source(run, variables, source, compiled, layout))
        results |= {f"{name}/{metric}": float(value) for metric, value in summary.items()}
    return results


def measure_source(
    run: Run, variables: Any, source: Any, compiled: Compiled, layout: parallel.Layout
) -> list[Any]:
    """Returns `task.measure` for each batch of a source; all processes must call it."""
    size = -(-run.batch_size // layout.mesh.size) * layout.mesh.size
    shares = dict(process=jax.process_index(), processes=jax.process_count())
    batches = eval_batches(source, batch_size=size, **shares)
    return [
        parallel.gather_to_host(layout, compiled.measure(variables, batch))
        for batch in parallel.prefetch_to_device(layout, batches, mapped=False)
    ]


def report_row(bar: Any, row: Mapping[str, float]) -> None:
    """Prints a row of metrics beside the progress bar, or as a line if there is no bar."""
    shown = {name: value for name, value in row.items() if not name.endswith("gradient_norm")}
    if bar.disable:
        log.info(logs.format_row(shown))
    else:
        bar.set_postfix_str(logs.format_row(shown).split("  ", 1)[1])


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
    """Exports the weights, writes the plots and marks the run as finished.

    Returns:
        The row of metrics of the exported snapshot.
    """
    trained = step.variables_of(state)
    kept = next((row for row in reversed(rows) if row["step"] == at), {})
    if run.precise_bn_batches:
        trained = recompute_bn_stats(run, trained, layout)
        kept = kept | evaluate_all(run, trained, compiled, layout)
    variables = parallel.gather_to_host(layout, trained)
    measured = measure_source(run, trained, plot_source(run), compiled, layout)
    seen = sample_for_plots(run, variables, compiled, layout)
    if not parallel.is_main():
        return kept
    extra: dict[str, Any] = {"classes": list(run.train.classes)}
    if run.preprocessing is not None:
        extra["preprocessing"] = run.preprocessing
    if run.name is not None:
        path = workdir / "model.safetensors"
        zoo.save_model(run.name, path, run.model, variables, extra=extra)
    plots.save_plot(plots.plot_curves(rows, best=at), workdir / "curves.png")
    for name, drawing in run.task.render(*seen, measured).items():
        plots.save_plot(drawing, workdir / name)
    if reason == "patience":
        log.info("stopped early: no better %s for %d evaluations", run.monitor, run.patience)
    workdirs.mark_finished(workdir, kept)
    logs.print_summary(f"{workdir}: the snapshot of step {at}", kept)
    log.info("%s are in %s", ", ".join(p.name for p in sorted(workdir.glob("*.*"))), workdir)
    return kept


def plot_source(run: Run) -> Any:
    """Returns the source whose examples are plotted: the last evaluation source."""
    return list(run.evaluate.values())[-1] if run.evaluate else run.train


def sample_for_plots(
    run: Run, variables: Any, compiled: Compiled, layout: parallel.Layout
) -> tuple[Any, Any]:
    """Selects examples from the whole source and predicts them for the plots.

    At most `MAX_PLOT_EXAMPLES` examples and `MAX_PLOT_BYTES` bytes are used.

    Returns:
        A batch and the outputs of the model.
    """
    whole = plot_source(run)
    places = np.random.default_rng(0).permutation(len(whole))[:MAX_PLOT_EXAMPLES]
    pairs, held = [], 0
    for batch in eval_batches(
        Subset(whole, places), batch_size=min(run.batch_size, MAX_PLOT_EXAMPLES)
    ):
        index = np.take(places, batch["index"], mode="clip").astype(np.int32)
        batch = {**batch, "index": index}
        pairs.append((batch, parallel.gather_to_host(layout, compiled.predict(variables, batch))))
        held += sum(leaf.nbytes for leaf in jax.tree.leaves(pairs[-1]))
        if held > MAX_PLOT_BYTES:
            break
    batch, outputs = jax.tree.map(lambda *parts: np.concatenate(parts), *pairs)
    return jax.tree.map(lambda x: x[batch["valid"]], (batch, outputs))
