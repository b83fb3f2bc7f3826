"""Batches that are read beside the steps that use those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import TypeVar

from boundnas.engine.pool import ThreadPool

T = TypeVar("T")

BATCHES = 2
"""So many are read ahead."""


def ahead(batches: Iterator[T]) -> Generator[T, None, None]:
    """The same batches, read by a thread of its own; an error comes where its batch would.

    Args:
        batches: Used by that thread alone from now on.
    """
    end = object()
    with ThreadPool(1, "reading ahead") as thread:
        try:
            waiting = deque(thread.submit(next, batches, end) for _ in range(BATCHES))
            while (batch := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, batches, end))
                yield batch  # type: ignore[misc]
        finally:
            thread.shutdown(cancel_futures=True)
