"""Threads that are started only where they have memory to begin with."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from mmap import mmap
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BYTES = 4 << 20
"""A thread needs no more of its own, beside its stack, to say that it is there."""


def check_room() -> None:
    """Refuse to start a thread where it has no memory.

    Python waits until a thread that it started says that it is there. One that dies of having no
    memory before never does, and who started it waits for ever.

    Raises:
        MemoryError: There is less than `BYTES`.
    """
    try:
        mmap(-1, BYTES).close()
    except OSError:
        raise MemoryError("there is none for a thread") from None


class ThreadPool(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` that raises MemoryError instead of waiting for ever."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See ``ThreadPoolExecutor.submit``, which may start a thread."""
        check_room()
        return super().submit(fn, *args, **kwargs)
