"""Several candidates at a time, each on one thread: many threads share a small network badly."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import NamedTuple, TypeVar

import torch

from boundnas.engine.forked import Crew
from boundnas.engine.pool import ThreadPool
from boundnas.settings import SearchSettings
from boundnas.space import Architecture, SearchSpace

T = TypeVar("T")
W = TypeVar("W")

MOST = 8
"""Networks at a time, by default; each takes the memory of one pass without gradients."""


def number_of(settings: SearchSettings) -> int:
    """So many networks are measured, or exported, at a time on the CPU."""
    return settings.workers or min(torch.get_num_threads(), MOST)


class Judged(NamedTuple):
    """What a candidate is worth.

    Args:
        score: The task's metric, or an estimate of it.
        images: So many images it rests on.
    """

    score: float
    images: int


_JUDGED = struct.Struct("<dq")


class Workers:
    """Judges architectures side by side, in processes: of a small network most is Python's work.

    A context manager. Each architecture is judged on one thread, so that the number of processes
    changes no bit. What one of them cannot judge, or dies of, is judged in this process, where it
    raises what it raises.

    Args:
        judge: Judges an architecture.
        space: That of the architectures.
        number: Of processes; of one this process does the work.
    """

    def __init__(
        self, judge: Callable[[Architecture], Judged], space: SearchSpace, number: int
    ) -> None:
        self._judge, self._space = judge, space
        self._indices = struct.Struct(f"<{len(space.dimensions)}H")
        self._crew = Crew(self._answer, number, "measure candidates")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._crew.__exit__(*exception)

    def __call__(self, work: Sequence[Architecture]) -> Iterator[Judged]:
        """What each architecture is worth, in order, each as soon as it is known."""
        questions = [self._indices.pack(*arch.indices) for arch in work]
        with closing(self._crew(questions)) as answers:
            for arch, answer in zip(work, answers, strict=True):
                yield Judged(*_JUDGED.unpack(answer)) if answer else self._here(arch)

    def _answer(self, question: bytes) -> bytes:
        """In another process."""
        arch = Architecture(self._space, self._indices.unpack(question))
        return _JUDGED.pack(*self._judge(arch))

    def _here(self, arch: Architecture) -> Judged:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._judge(arch)
        finally:
            torch.set_num_threads(before)


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
    pool = ThreadPool(workers, initializer=torch.set_num_threads, initargs=(each,))
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
