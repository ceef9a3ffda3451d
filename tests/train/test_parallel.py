"""One device, jit over 8, pmap over 8, FSDP over 8 and two processes of 4 train the same model."""

import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.train.layout_cases import CASES, LAYOUTS, five_steps
from train import parallel


def one_device() -> parallel.Layout:
    return parallel.create_layout("jit", devices=jax.devices()[:1])


@cache
def alone(case: str) -> dict[str, np.ndarray]:
    return five_steps(one_device(), case)


def assert_same(found, case: str) -> None:
    expected = alone(case)
    assert found.keys() == expected.keys()
    assert any(name.startswith("batch_stats/") for name in found)
    for name, value in expected.items():
        worst = np.max(np.abs(found[name] - value)) / np.max(np.abs(value))
        assert worst < CASES[case]["tolerance"], f"{name} is off by {worst:.1e}"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_train_alike(layout, case):
    assert jax.device_count() == 8
    assert_same(five_steps(LAYOUTS[layout](), case), case)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Folder of what two processes of four devices found under each layout, one file for each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("layout_cases.py")
    folder = tmp_path_factory.mktemp("found")
    running = [
        subprocess.Popen(
            [sys.executable, script, "smooth", folder, *LAYOUTS],
            env={
                **os.environ,
                "PYTHONPATH": str(script.parents[2]),
                "JAX_PLATFORMS": "cpu",
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(number),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_train_like_one_device(layout, two_processes):
    assert_same(dict(np.load(two_processes / f"{layout}.npz")), "smooth")


def test_fsdp_splits_parameters_and_their_moments():
    layout = parallel.create_layout("jit", shard="fsdp")
    leaf = jax.ShapeDtypeStruct((16, 4096), np.float32)
    places = parallel.state_shardings(layout, {"kernel": leaf, "moment": leaf})
    for place in places.values():
        assert place.shard_shape((16, 4096)) == (16, 512)


@pytest.mark.parametrize(
    ("batch_size", "says"), [(4, "cannot feed 8 devices"), (12, "give --batch-size 8")]
)
def test_a_batch_that_the_devices_cannot_share(batch_size, says):
    with pytest.raises(ValueError, match=says):
        parallel.check_batch_size(parallel.create_layout("jit"), batch_size)


@pytest.mark.parametrize(
    ("mode", "shard", "says"),
    [("pmpa", None, "--parallel must be"), ("pmap", "fsdp", "needs --parallel jit")],
)
def test_layouts_that_cannot_be(mode, shard, says):
    with pytest.raises(ValueError, match=says):
        parallel.create_layout(mode, shard=shard)
