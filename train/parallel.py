"""Devices and parallelism: jit over a mesh (data parallel, FSDP, several hosts) and pmap.

Batches are numpy dicts with the rows of one process. States are global arrays, which are replicated
or, with FSDP, sharded leaf by leaf. Evaluation sums no gradients, so both modes use jit for it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.malloc import keep_freed_memory

MODES = ("jit", "pmap")
DATA_AXIS = "data"
# FSDP does not shard leaves with fewer values, since gathering them costs more than it saves.
MIN_SHARD_SIZE = 1024


class Layout(NamedTuple):
    """Devices and mode of a run.

    Attributes:
        mode: "jit" or "pmap".
        mesh: mesh with the single axis "data".
        fsdp: shard parameters and optimizer state over the devices.
    """

    mode: str
    mesh: Mesh
    fsdp: bool = False


def setup_devices(*, devices: int | None = None, compile_cache: Path | None = None) -> None:
    """Configures jax before its first use: memory, compilation cache, simulated devices, processes.

    Compiled programs are kept in `compile_cache`, or in the folder JAX_COMPILATION_CACHE_DIR.
    JAX_ENABLE_COMPILATION_CACHE=false disables the cache. Several processes are connected if
    JAX_COORDINATOR_ADDRESS is set, for example to "auto". `jax.distributed` detects Cloud TPU pods,
    Slurm, Open MPI and Kubernetes. Elsewhere, set JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Args:
        devices: number of CPU devices to simulate; None for the real devices.
        compile_cache: folder of compiled programs.
    """
    keep_freed_memory()
    if compile_cache is not None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(compile_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", devices)
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        count, number = (os.environ.get(f"JAX_{n}") for n in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.distributed.initialize(
            None if address == "auto" else address,
            None if count is None else int(count),
            None if number is None else int(number),
        )


def create_layout(
    mode: str = "jit", *, shard: str | None = None, devices: Sequence[Any] | None = None
) -> Layout:
    """Creates a layout with all devices of all processes, or with the given devices.

    Args:
        mode: "jit" or "pmap".
        shard: "fsdp" to shard the state, or None.
        devices: devices as from `jax.devices()`.

    Returns:
        The layout.

    Raises:
        ValueError: if the mode is unknown, or FSDP is combined with pmap, where each device holds
            the whole state.
    """
    if mode not in MODES:
        raise ValueError(f"--parallel must be one of {', '.join(MODES)}; got {mode!r}")
    if shard not in (None, "fsdp"):
        raise ValueError(f"--shard must be fsdp or left out; got {shard!r}")
    if shard == "fsdp" and mode == "pmap":
        raise ValueError("--shard fsdp needs --parallel jit: under pmap every device holds it all")
    return Layout(mode, Mesh(np.array(devices or jax.devices()), (DATA_AXIS,)), shard == "fsdp")


def check_batch_size(layout: Layout, batch_size: int) -> int:
    """Returns the rows of a batch that belong to this process.

    Args:
        layout: the layout.
        batch_size: examples per step over all devices.

    Returns:
        The number of rows.

    Raises:
        ValueError: if the devices cannot divide the batch evenly.
    """
    devices = layout.mesh.size
    if batch_size < devices:
        raise ValueError(
            f"a batch of {batch_size} cannot feed {devices} devices; "
            f"give --batch-size {devices} or more, or fewer --devices"
        )
    if batch_size % devices:
        raise ValueError(
            f"a batch of {batch_size} does not divide over {devices} devices; "
            f"give --batch-size {batch_size - batch_size % devices}, or another number of --devices"
        )
    return batch_size // jax.process_count()


def replicated_sharding(layout: Layout) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(layout.mesh, PartitionSpec())


def state_shardings(layout: Layout, state: Any) -> Any:
    """Returns the sharding of each leaf of a state.

    FSDP shards the largest dimension that the number of devices divides. Optimizer moments have the
    shapes of their parameters and get the same sharding.

    Args:
        layout: the layout.
        state: the state or its shapes.

    Returns:
        A pytree of shardings.
    """

    def place(leaf):
        if not layout.fsdp or leaf.size < MIN_SHARD_SIZE:
            return replicated_sharding(layout)
        fitting = [d for d in range(leaf.ndim) if leaf.shape[d] % layout.mesh.size == 0]
        if not fitting:
            return replicated_sharding(layout)
        largest = max(fitting, key=lambda d: leaf.shape[d])
        return NamedSharding(layout.mesh, PartitionSpec(*[None] * largest, DATA_AXIS))

    return jax.tree.map(place, state)


def put_batch(layout: Layout, batch: Any, *, mapped: bool | None = None) -> Any:
    """Moves the rows of this process to its devices.

    Args:
        layout: the layout.
        batch: numpy arrays [B / processes, ...].
        mapped: return the arrays of pmap [local devices, B / devices, ...]; by default in mode
            "pmap".

    Returns:
        The global batch on the devices.
    """
    if layout.mode == "pmap" if mapped is None else mapped:
        local = len(layout.mesh.local_devices)
        return jax.tree.map(lambda x: x.reshape(local, -1, *x.shape[1:]), batch)
    split = NamedSharding(layout.mesh, PartitionSpec(DATA_AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)


def prefetch_to_device(
    layout: Layout, batches: Iterable[Any], *, depth: int = 2, mapped: bool | None = None
) -> Iterator[Any]:
    """Yields batches on the devices, with `depth` batches moved in advance."""
    waiting: deque[Any] = deque()
    source = iter(batches)
    for batch in islice(source, depth):
        waiting.append(put_batch(layout, batch, mapped=mapped))
    while waiting:
        yield waiting.popleft()
        for batch in islice(source, 1):
            waiting.append(put_batch(layout, batch, mapped=mapped))


def compile_train(layout: Layout, step: Callable, shardings: Any) -> Callable:
    """Compiles a training step for all devices; the memory of the old state is reused.

    Args:
        layout: the layout.
        step: function of a state, a batch and `axis`.
        shardings: shardings of the state.

    Returns:
        The compiled function of a state and a batch.
    """
    if layout.mode == "pmap":
        return jax.pmap(
            lambda state, batch: step(state, batch, axis=DATA_AXIS),
            axis_name=DATA_AXIS,
            devices=list(layout.mesh.devices.flat),
            in_axes=(None, 0),
            out_axes=(None, None),
            donate_argnums=(0,),
        )
    return jax.jit(
        step,
        donate_argnums=(0,),
        out_shardings=(shardings, replicated_sharding(layout)),
    )


def compile_eval(layout: Layout, step: Callable) -> Callable:
    """Compiles an evaluation step for all devices.

    Args:
        layout: the layout.
        step: function of variables and a batch.

    Returns:
        The compiled function, whose result every device holds whole.
    """
    return jax.jit(step, out_shardings=replicated_sharding(layout))


def is_cpu(layout: Layout) -> bool:
    """Returns whether the devices are CPUs, where XLA computes convolutions in loops slowly."""
    return layout.mesh.devices.flat[0].platform == "cpu"


def gather_to_host(layout: Layout, tree: Any) -> Any:
    """Gathers global arrays to numpy on every process; all processes must call it."""
    if not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        tree = jax.jit(lambda tree: tree, out_shardings=replicated_sharding(layout))(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)


def is_main() -> bool:
    """Returns True on the one process that writes files and logs."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
