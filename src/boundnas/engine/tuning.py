"""What makes this process compute faster, switched on where training or a search begins."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

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
    mallopt = of_libc("mallopt")
    if mallopt is not None:
        for parameter, value in _VALUES.items():
            mallopt(parameter, value)


def give_back() -> None:
    """Return the pages of freed memory to the system after all: they are holes, which grow.

    Maps of another network's shapes do not fit into what an earlier one left. The next pass makes
    the pages anew.
    """
    malloc_trim = of_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def of_libc(name: str) -> Callable[..., int] | None:
    """A function of the C library, where it is one that has it."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    return found
