"""Orbax checkpoints of one run: the two latest and the best, written in the background."""

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
    """Folder -> a manager that keeps the two latest and the newest that was saved as the best."""
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
    """Starts to write state and progress; `best`: better than every one before.

    progress: JSON values, the loop's own position (early stopping, sums since the last row).
    Errors: OSError in one line where this or the write before it failed; older ones survive.
    """
    try:
        start_save(checkpoints, state, progress, step=step, best=best)
    except Exception as error:
        raise save_error(checkpoints, step, error) from error


def wait_until_saved(checkpoints: ocp.CheckpointManager, *, step: int) -> None:
    """Until the write under way is on disk. Errors: as `save_checkpoint`."""
    try:
        checkpoints.wait_until_finished()
        checkpoints.check_for_errors()
    except Exception as error:
        raise save_error(checkpoints, step, error) from error


def save_error(checkpoints: ocp.CheckpointManager, step: int, error: Exception) -> OSError:
    """Orbax, tensorstore and the system each raise their own kinds: one line for all of them."""
    reason = " ".join(str(error).split())[:200]
    return OSError(
        f"the checkpoint of step {step} could not be written to {checkpoints.directory} "
        f"({reason}); {describe_last(checkpoints)}; make room and give the same command again"
    )


def describe_last(checkpoints: ocp.CheckpointManager) -> str:
    """The words for the newest checkpoint on disk, after the write under way has ended."""
    with contextlib.suppress(Exception):
        checkpoints.wait_until_finished()
    checkpoints.reload()
    step = checkpoints.latest_step()
    return "no checkpoint stands yet" if step is None else f"the checkpoint of step {step} is good"


def start_save(checkpoints, state, progress, *, step: int, best: bool) -> None:
    if step in checkpoints.all_steps():  # a broken one that `restore` fell back from
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
    """Abstract state (shapes and shardings) -> (state, progress) of the first readable checkpoint.

    steps: which to try, in this order; by default all, the newest first. None where there is none.
    A truncated or foreign one is named and passed over. Errors: there are some, none readable.
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
    """Before anything is read: orbax would pad or cut an array of another shape without a word."""
    theirs, ours = format_shapes(saved), format_shapes(abstract)
    if theirs == ours:
        return
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    raise ValueError(
        f"it holds another state: {names[0]} is {theirs.get(names[0], 'missing')} there and "
        f"{ours.get(names[0], 'missing')} here"
    )


def format_shapes(tree: Any) -> dict[str, str]:
    """State or its metadata -> {"params.head.kernel": "float32[64, 10]"}; keys as their numbers."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf.dtype, np.dtype) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        found[name] = f"{leaf.dtype}{list(leaf.shape)}"
    return found
