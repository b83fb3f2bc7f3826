"""Several candidates at a time: many threads share a small network badly, and several well."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
W = TypeVar("W")

MOST = 8
"""Candidates at a time; each takes the memory of one pass without gradients."""


def side_by_side(function: Callable[[W], T], work: Sequence[W]) -> Iterator[T]:
    """``function`` of every piece of work, in order, by as many workers as PyTorch has threads.

    Beyond `MOST` each worker has several threads. How many does not depend on the work, so that
    equal numbers of threads give equal bits.

    Args:
        function: Called in other threads, unless there is one thread only.
        work: Its arguments.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST)
    if workers == 1:
        yield from map(function, work)
        return
    each = threads // workers
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,))
    coming: deque[Future[T]] = deque()
    try:
        for piece in work:
            coming.append(pool.submit(function, piece))
            if len(coming) == 2 * workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # which is in part the process's, not the thread's
