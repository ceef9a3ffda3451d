"""Orbax checkpoints of a run: the two latest and the best, written in the background."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

log = logging.getLogger("train")


def open_checkpoints(folder: Path) -> ocp.CheckpointManager:
    """Opens a checkpoint manager that keeps the two latest checkpoints and the best one."""
    keep = checkpoint_managers.AnyPreservationPolicy(
        [
            checkpoint_managers.LatestN(2),
            checkpoint_managers.BestN(get_metric_fn=lambda metrics: metrics["best"], n=1),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)


def save_checkpoint(
    checkpoints: ocp.CheckpointManager,
    state: Any,
    progress: dict[str, Any],
    *,
    step: int,
    best: bool = False,
) -> None:
    """Starts to save a checkpoint in the background.

    Args:
        checkpoints: the checkpoint manager.
        state: the training state.
        progress: JSON values of the loop, such as the state of early stopping.
        step: number of finished steps.
        best: whether the state is better than all before.

    Raises:
        OSError: if this save or the one before failed. Older checkpoints remain.
    """
    try:
        start_save(checkpoints, state, progress, step=step, best=best)
    except Exception as error:
        raise save_error(checkpoints, step, error) from error


def wait_until_saved(checkpoints: ocp.CheckpointManager, *, step: int) -> None:
    """Waits until the current save is on disk; raises OSError as `save_checkpoint` does."""
    try:
        checkpoints.wait_until_finished()
        checkpoints.check_for_errors()
    except Exception as error:
        raise save_error(checkpoints, step, error) from error


def save_error(checkpoints: ocp.CheckpointManager, step: int, error: Exception) -> OSError:
    """Converts an error of orbax, tensorstore or the system to an OSError of one line."""
    reason = " ".join(str(error).split())[:200]
    return OSError(
        f"the checkpoint of step {step} could not be written to {checkpoints.directory} "
        f"({reason}); {describe_last(checkpoints)}; make room and give the same command again"
    )


def describe_last(checkpoints: ocp.CheckpointManager) -> str:
    """Describes the newest checkpoint on disk after the current save has ended."""
    with contextlib.suppress(Exception):
        checkpoints.wait_until_finished()
    checkpoints.reload()
    step = checkpoints.latest_step()
    return "no checkpoint stands yet" if step is None else f"the checkpoint of step {step} is good"


def start_save(checkpoints, state, progress, *, step: int, best: bool) -> None:
    """Starts to save one checkpoint."""
    if step in checkpoints.all_steps():  # an unreadable checkpoint that was skipped
        checkpoints.delete(step)
    checkpoints.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
        ),
        metrics={"best": step if best else -1},
        force=True,
    )


def restore_checkpoint(
    checkpoints: ocp.CheckpointManager, abstract: Any, *, steps: Sequence[int] | None = None
) -> tuple[Any, dict[str, Any]] | None:
    """Restores the first readable checkpoint.

    Truncated or foreign checkpoints are reported and skipped.

    Args:
        checkpoints: the checkpoint manager.
        abstract: shapes and shardings of the state.
        steps: steps in the order in which they are tried; by default all, the newest first.

    Returns:
        The state and the progress, or None if there are no checkpoints.

    Raises:
        ValueError: if there are checkpoints and none is readable.
    """
    steps = sorted(checkpoints.all_steps(), reverse=True) if steps is None else steps
    for candidate in steps:
        try:
            check_shapes(checkpoints.item_metadata(candidate)["state"], abstract)
            found = checkpoints.restore(
                candidate,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
                ),
            )
            return found["state"], found["progress"]
        except Exception as error:  # orbax, tensorstore and json each raise their own kinds
            reason = " ".join(str(error).split())[:160]
            log.warning("checkpoint %d cannot be read (%s); trying another", candidate, reason)
    if steps:
        raise ValueError(
            f"none of the checkpoints {steps} in {checkpoints.directory} can be read; "
            "move them away to start anew, or give another --workdir"
        )
    return None


def check_shapes(saved: Any, abstract: Any) -> None:
    """Checks that a checkpoint has the shapes of the state, since orbax would pad or cut arrays."""
    theirs, ours = format_shapes(saved), format_shapes(abstract)
    if theirs == ours:
        return
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    raise ValueError(
        f"it holds another state: {names[0]} is {theirs.get(names[0], 'missing')} there and "
        f"{ours.get(names[0], 'missing')} here"
    )


def format_shapes(tree: Any) -> dict[str, str]:
    """Returns the shapes of a state by path, e.g. {"params.head.kernel": "float32[64, 10]"}."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf.dtype, np.dtype) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        found[name] = f"{leaf.dtype}{list(leaf.shape)}"
    return found
