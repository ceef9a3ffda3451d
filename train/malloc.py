"""Settings of the memory allocator of the host."""

import ctypes
import sys

# glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX and M_ARENA_MAX
KEEP_BYTES = {
    -1: -1,
    -4: 0,
    -8: 1,
}  # never given back, never mapped apart, one heap for all threads


def keep_freed_memory() -> bool:
    """Makes the process keep the memory that it frees, on Linux.

    XLA:CPU allocates gigabytes of temporary memory in every step, and glibc would return each large
    block to the system. The page faults of fresh memory take up to half the time of an operation.
    The command lines call this first, since it changes the whole process.

    Returns:
        Whether the setting has an effect.

    Source: mallopt(3).

    >>> isinstance(keep_freed_memory(), bool)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(which, value) for which, value in KEEP_BYTES.items())
