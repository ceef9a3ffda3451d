"""Freed memory stays with the process."""

import subprocess
import sys

FAULTS = """
import resource
import numpy as np
from train.malloc import keep_freed_memory
kept = {call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full((8 << 20,), 1.0)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(int(kept), faults())
"""


def page_faults(call: str) -> tuple[int, int]:
    told = subprocess.run(
        [sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, check=True, text=True
    )
    kept, count = map(int, told.stdout.split())
    return kept, count


def test_a_block_asked_for_again_is_there():
    _, before = page_faults("False")
    kept, after = page_faults("keep_freed_memory()")
    if kept:
        assert before > 100 * max(after, 1)
    else:
        assert sys.platform != "linux"
