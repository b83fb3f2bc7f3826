"""Memory that is freed is kept for the next feature map, which is about as large."""

from __future__ import annotations

import ctypes
import os

# Of malloc.h. Without mappings of their own the largest maps come from the heap too.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_VALUES = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}


def keep_freed_memory() -> None:
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
