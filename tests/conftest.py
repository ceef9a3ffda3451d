"""What holds for every test, and, by the environment, for the processes that tests start."""

import atexit
import logging
import os
import shutil
import tempfile

CACHE = tempfile.mkdtemp(prefix="flax-zoo-tests-")  # prepared digits; never the user's own
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["FLAX_ZOO_CACHE"] = CACHE
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # no run of the tests may lean on another
os.environ["MPLBACKEND"] = "Agg"
# Tests run most programs once. Without the optimizations of LLVM they compile in half the time,
# with the same passes of XLA. tests/zoo/test_models.py also compiles as users do.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICKLY}".strip()

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "float32")  # a GPU's own choice is tensor-float


@pytest.fixture(autouse=True, scope="module")
def silent():
    """After a module the logger is as it was found: lines of runs do not go into others' examples."""
    yield
    log = logging.getLogger("train")
    log.handlers.clear()
    log.propagate = True
