"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from train.memory import keep_memory
{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full((8 << 20,), 1.0)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a matter of glibc")
def test_a_block_asked_for_again_is_there():
    count = {
        first: int(subprocess.run([sys.executable, "-c", FAULTS.format(first=first)], capture_output=True, check=True, text=True).stdout)
        for first in ("", "assert keep_memory()")
    }  # fmt: skip
    assert count[""] > 100 * max(count["assert keep_memory()"], 1)
