"""What makes this process compute faster, switched on where training or a search begins."""

from __future__ import annotations

import ctypes
import os

SWITCH = "BOUNDNAS_TUNE"
"""The environment variable that keeps all of it off, where it is 0; recordings on a GPU too."""

# Of malloc.h. Without mappings of their own the largest maps come from the heap too.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_VALUES = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}


def tune() -> None:
    """Keep oneDNN's kernels and freed memory, unless `SWITCH` or a variable of theirs says no.

    Every sub-network has shapes of its own, and oneDNN compiles a kernel per shape; by default it
    forgets all but 1,024 of them (2.3x slower steps on small images, docs/lab-log.md). It reads
    ``ONEDNN_PRIMITIVE_CACHE_CAPACITY`` at the first layer that this process computes: a program
    that computes layers before it trains sets the variable itself.
    """
    if os.environ.get(SWITCH) == "0":
        return
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Tell glibc to keep the pages of freed memory instead of returning them to the system.

    Each feature map would otherwise be made of new pages, whose first touch costs more than many a
    layer that fills them. Does nothing where glibc is not the C library, and where an environment
    variable ``MALLOC_...`` says that the user has settled this.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, value in _VALUES.items():
        mallopt(parameter, value)
