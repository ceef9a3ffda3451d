"""Memory of the host: blocks once asked of the system are kept."""

import ctypes
import sys

# glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX and M_ARENA_MAX
KEEP_BYTES = {
    -1: -1,
    -4: 0,
    -8: 1,
}  # never given back, never mapped apart, one heap for all threads


def keep_freed_memory() -> bool:
    """-> whether the process keeps the memory that it frees; on Linux, from now on.

    A CPU's XLA asks for all that lies between the operations anew in every step, gigabytes of it,
    and glibc would give each large block back to the system: the page faults of fresh memory take
    up to half the time of an operation. Command lines call this first; it changes the whole process.

    Source: mallopt(3).

    >>> isinstance(keep_freed_memory(), bool)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(which, value) for which, value in KEEP_BYTES.items())
