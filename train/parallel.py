"""The only file that knows devices: jit over a mesh (data parallel, FSDP, many hosts) and pmap.

Batches enter as numpy dicts that hold this process's rows; states are global arrays, replicated or,
with FSDP, split leaf by leaf. Evaluation has no gradients to sum, so both modes share its jit.
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
# Leaves below this many numbers stay whole under FSDP: gathering them costs more than they weigh.
MIN_SHARD_SIZE = 1024


class Layout(NamedTuple):
    """Where arrays live: mode "jit" or "pmap", a mesh with the one axis "data", FSDP or not."""

    mode: str
    mesh: Mesh
    fsdp: bool = False


def setup_devices(*, devices: int | None = None, compile_cache: Path | None = None) -> None:
    """Before anything else of jax: memory, the compile cache, simulated devices, other processes.

    Programs are kept in `compile_cache` for the next run, or where JAX_COMPILATION_CACHE_DIR says;
    JAX_ENABLE_COMPILATION_CACHE=false turns that off.
    Processes are found by `jax.distributed` itself (Cloud TPU pods, Slurm, Open MPI, Kubernetes)
    where JAX_COORDINATOR_ADDRESS is set, "auto" among others; JAX_NUM_PROCESSES and
    JAX_PROCESS_ID say what cannot be found.
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
    """All devices of all processes, or those given (as of `jax.devices()`), in one mesh.

    Errors: an unknown mode; FSDP under pmap, where every device holds the whole state.
    """
    if mode not in MODES:
        raise ValueError(f"--parallel must be one of {', '.join(MODES)}; got {mode!r}")
    if shard not in (None, "fsdp"):
        raise ValueError(f"--shard must be fsdp or left out; got {shard!r}")
    if shard == "fsdp" and mode == "pmap":
        raise ValueError("--shard fsdp needs --parallel jit: under pmap every device holds it all")
    return Layout(mode, Mesh(np.array(devices or jax.devices()), (DATA_AXIS,)), shard == "fsdp")


def check_batch_size(layout: Layout, batch_size: int) -> int:
    """This process's share of a batch. Errors: a size that the devices cannot share evenly."""
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
    return NamedSharding(layout.mesh, PartitionSpec())


def state_shardings(layout: Layout, state: Any) -> Any:
    """State (or its shapes) -> where each leaf lives.

    FSDP splits the largest dimension that the devices divide; optimizer moments have the shapes of
    their parameters and so fall into the same split.
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
    """This process's rows (numpy, [B / processes, ...]) -> the global batch on the devices.

    `mapped`: the form of pmap, [local devices, B / devices, ...]; by default as the mode wants.
    """
    if layout.mode == "pmap" if mapped is None else mapped:
        local = len(layout.mesh.local_devices)
        return jax.tree.map(lambda x: x.reshape(local, -1, *x.shape[1:]), batch)
    split = NamedSharding(layout.mesh, PartitionSpec(DATA_AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)


def prefetch_to_device(
    layout: Layout, batches: Iterable[Any], *, depth: int = 2, mapped: bool | None = None
) -> Iterator[Any]:
    """Puts `depth` batches on the devices before the first is asked for."""
    waiting: deque[Any] = deque()
    source = iter(batches)
    for batch in islice(source, depth):
        waiting.append(put_batch(layout, batch, mapped=mapped))
    while waiting:
        yield waiting.popleft()
        for batch in islice(source, 1):
            waiting.append(put_batch(layout, batch, mapped=mapped))


def compile_train(layout: Layout, step: Callable, shardings: Any) -> Callable:
    """step(state, batch, axis=) -> the same over all devices; the old state's memory is reused.

    shardings: the state's `state_shardings`.
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
    """step(variables, batch) -> the same over all devices, the result whole on each of them."""
    return jax.jit(step, out_shardings=replicated_sharding(layout))


def is_cpu(layout: Layout) -> bool:
    """Whether the devices are CPUs, on which XLA computes convolutions slowly inside of loops."""
    return layout.mesh.devices.flat[0].platform == "cpu"


def gather_to_host(layout: Layout, tree: Any) -> Any:
    """Global arrays, whole or split -> numpy on every process. All processes must call it."""
    if not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        tree = jax.jit(lambda tree: tree, out_shardings=replicated_sharding(layout))(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)


def is_main() -> bool:
    """True on the one process that writes files and speaks."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
