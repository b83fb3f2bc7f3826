"""Several candidates at a time, each on one thread: many threads share a small network badly."""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch

from boundnas.engine.forked import AVAILABLE, Forked
from boundnas.space import Architecture, SearchSpace

T = TypeVar("T")
W = TypeVar("W")

MOST = 8
"""Candidates at a time, by default; each takes the memory of one pass without gradients."""

AHEAD = 2
"""Candidates that a worker is given, or has judged, before the one whose turn it is."""

_log = logging.getLogger(__name__)


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

    A context manager. The processes are made when they are first needed. Each architecture is
    judged on one thread, so that the number of processes changes no bit. What one of them cannot
    judge, or dies of, is judged in this process, where it raises what it raises.

    Args:
        judge: Judges an architecture.
        space: That of the architectures.
        number: Of processes; of one this process does the work.
    """

    def __init__(
        self, judge: Callable[[Architecture], Judged], space: SearchSpace, number: int
    ) -> None:
        self._judge, self._space = judge, space
        self._number = number if AVAILABLE else 1
        self._indices = struct.Struct(f"<{len(space.dimensions)}H")
        self._given: dict[Forked, deque[int]] = {}
        """To each process the numbers of what it was given, and has not answered."""
        self._begun = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, work: Sequence[Architecture]) -> Iterator[Judged]:
        """What each architecture is worth, in order, each as soon as it is known."""
        if self._number > 1 and len(work) > 1:
            self._begin()
        known: dict[int, Judged | None] = {}
        coming = deque(enumerate(work))
        try:
            for turn, arch in enumerate(work):
                while self._given and coming and coming[0][0] < turn + AHEAD * self._number:
                    self._give(*coming.popleft())
                while turn not in known and any(self._given.values()):
                    for process in Forked.ready(self._given):
                        known.update(self._answer(process))
                yield known.pop(turn, None) or self._here(arch)
        finally:
            if any(self._given.values()):  # nobody waits for these answers
                self._end()

    def _end(self) -> None:
        for process in self._given:
            process.end()
        self._given.clear()
        self._begun = False

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        try:
            for _ in range(self._number):
                self._given[Forked(self._answered)] = deque()
        except OSError as error:
            _log.warning(
                "of %d processes that measure candidates %d could be started (%s)",
                self._number, len(self._given), error.strerror,
            )  # fmt: skip

    def _answered(self, question: bytes) -> bytes:
        """In another process."""
        arch = Architecture(self._space, self._indices.unpack(question))
        return _JUDGED.pack(*self._judge(arch))

    def _give(self, number: int, arch: Architecture) -> None:
        process = min(self._given, key=lambda each: len(self._given[each]))
        self._given[process].append(number)
        process.ask(self._indices.pack(*arch.indices))  # if it ended, its answer tells

    def _answer(self, process: Forked) -> dict[int, Judged | None]:
        """What a process has to say next, by number; of one that ended, that it knows nothing."""
        found = process.answer()
        if found is not None:
            judged = Judged(*_JUDGED.unpack(found)) if found else None
            return {self._given[process].popleft(): judged}
        _log.warning(
            "a process that measures candidates was ended by signal %s; it may have been out of "
            "memory, of which fewer take less: search.workers: %d. This process does its work",
            process.end(), max(1, self._number - 1),
        )  # fmt: skip
        return dict.fromkeys(self._given.pop(process))

    def _here(self, arch: Architecture) -> Judged:
        with _threads(1):
            return self._judge(arch)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if before != number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if before != number:
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
