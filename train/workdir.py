"""The file run.json, which records the run that a work directory belongs to."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from train import log as logs
from train import parallel

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def claim_workdir(
    workdir: Path, identity: dict[str, Any], layout: parallel.Layout
) -> dict[str, float] | None:
    """Creates the work directory of a run, or checks that it belongs to this run.

    Args:
        workdir: the work directory.
        identity: recipe, knobs and seed of the run.
        layout: the devices.

    Returns:
        The metrics of a finished run, or None.

    Raises:
        ValueError: if the folder holds another run, whose differing values are listed, or other
            files.
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
                f"{workdir} holds another run ({describe_difference(theirs, ours)}); "
                "give another --workdir, or the knobs of that run to go on with it"
            )
        return there.get("finished")
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise ValueError(f"{workdir} is not empty and holds no run; give another --workdir")
    parallel.barrier("claimed")  # every process checks the folder before one writes
    if parallel.is_main():
        workdir.mkdir(parents=True, exist_ok=True)
        machine = {
            "devices": [f"{d.platform} {d.device_kind}" for d in layout.mesh.devices.flat],
            "processes": jax.process_count(),
            "parallel": layout.mode,
            "fsdp": layout.fsdp,
            "versions": {name: version(name) for name in PACKAGES},
        }
        logs.write_text(path, json.dumps({**identity, **machine}, indent=2) + "\n")
    return None


def describe_difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Describes the values in which two identities differ."""
    theirs = {**theirs, **theirs["knobs"]}
    ours = {**ours, **ours["knobs"]}
    names = [name for name in {**theirs, **ours} if name != "knobs"]
    return "; ".join(
        f"{name} {theirs.get(name)} there, {ours.get(name)} asked for"
        for name in names
        if theirs.get(name) != ours.get(name)
    )


def mark_finished(workdir: Path, metrics: Mapping[str, float]) -> None:
    """Adds the final row of metrics to run.json, which marks the run as finished."""
    path = workdir / "run.json"
    facts = json.loads(path.read_text())
    logs.write_text(path, json.dumps({**facts, "finished": metrics}, indent=2) + "\n")
