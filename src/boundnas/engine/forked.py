"""A process of this one's memory that answers questions: bytes in, bytes out."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from select import select

import torch

from boundnas.engine.entry import SIGNALS
from boundnas.engine.tuning import of_libc

AVAILABLE = sys.platform == "linux"
"""Whether processes can be forked here; elsewhere libraries below may not survive it."""

AHEAD = 2
"""Questions that a process is given, or has answered, before the one whose turn it is."""

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
"""Of sys/prctl.h."""


class Forked:
    """A forked process with one thread. All that was read or made before it has without a copy.

    It ends with `end`, or when this process ends, however that ends. What it prints goes where
    this process printed to begin with; it logs nothing.

    Args:
        answer: What it does. Where that raises, the answer is nothing.

    Raises:
        OSError: There is no room for another process.
    """

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._line, far = Pipe()
        parent = os.getpid()
        # Until it has handlers of its own no signal may go the parent's way in the new process.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._id = os.fork()
            if not self._id:
                try:
                    self._line.close()
                    _serve(answer, far, parent, held)
                finally:
                    os._exit(0)  # what its parent has to finish is not finished in it
        except OSError:
            self._line.close()
            raise
        finally:
            far.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def ask(self, question: bytes) -> bool:
        """Put a question, which it comes to after those before; false if it has ended."""
        with suppress(OSError):
            self._line.send_bytes(question)
            return True
        return False

    def answer(self) -> bytes | None:
        """The answer to the oldest open question, when it comes; none if it has ended."""
        with suppress(OSError, EOFError):
            return self._line.recv_bytes()
        return None

    def end(self) -> int:
        """End it. Gives the signal that it ended by: SIGKILL, where it had not by itself."""
        self._line.close()
        with suppress(ProcessLookupError, ChildProcessError):  # somebody else waited for it
            os.kill(self._id, signal.SIGKILL)
            return os.WTERMSIG(os.waitpid(self._id, 0)[1])
        return signal.SIGKILL

    def fileno(self) -> int:
        """What `select` waits for."""
        return self._line.fileno()


class Crew:
    """Forked processes that share the work of one kind.

    A context manager. They are made when they are first needed.

    Args:
        answer: What each of them does.
        number: So many of them; with one, or where nothing can be forked, there are none.
        work: What they do, for messages.
    """

    def __init__(self, answer: Callable[[bytes], bytes], number: int, work: str) -> None:
        self._answer, self._work = answer, work
        self._number = number if AVAILABLE else 1
        self._given: dict[Forked, deque[int]] = {}
        """To each process the numbers of what it was given, and has not answered."""
        self._begun = False

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._given:
            process.end()
        self._given.clear()
        self._begun = False

    def __call__(self, questions: Sequence[bytes]) -> Generator[bytes, None, None]:
        """The answers in order, each as soon as it is there.

        Nothing is the answer where the work is left to whoever asked: where there is no process,
        or its work raised, or it died of it.
        """
        if self._number > 1 and len(questions) > 1:
            self._begin()
        known: dict[int, bytes] = {}
        coming = deque(enumerate(questions))
        try:
            for turn in range(len(questions)):
                while self._given and coming and coming[0][0] < turn + AHEAD * self._number:
                    self._give(*coming.popleft())
                while turn not in known and any(self._given.values()):
                    for process in select(list(self._given), [], [])[0]:
                        known.update(self._told(process))
                yield known.pop(turn, b"")
        finally:
            if any(self._given.values()):  # nobody waits for these answers
                self.__exit__()

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        try:
            for _ in range(self._number):
                self._given[Forked(self._answer)] = deque()
        except OSError as error:
            _log.warning(
                "of %d processes that are to %s %d could be started (%s)",
                self._number, self._work, len(self._given), error.strerror,
            )  # fmt: skip

    def _give(self, number: int, question: bytes) -> None:
        process = min(self._given, key=lambda each: len(self._given[each]))
        self._given[process].append(number)
        process.ask(question)  # if it ended, its answer tells

    def _told(self, process: Forked) -> dict[int, bytes]:
        """What a process has to say next, by number; of one that ended, nothing to all."""
        found = process.answer()
        if found is not None:
            return {self._given[process].popleft(): found}
        _log.warning(
            "a process that is to %s was ended by signal %s; it may have been out of memory, of "
            "which fewer take less: search.workers: %d. This process does its work",
            self._work, process.end(), max(1, self._number - 1),
        )  # fmt: skip
        return dict.fromkeys(self._given.pop(process), b"")


def _serve(
    answer: Callable[[bytes], bytes], line: Connection, parent: int, mask: set[int | signal.Signals]
) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all of them
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    prctl = of_libc("prctl")
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Another thread may have held the locks of what shows progress when this process was made.
    logging.disable()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    torch.set_num_threads(1)  # the others of OpenMP stayed where they were
    while os.getppid() == parent:
        try:
            question = line.recv_bytes()
        except (OSError, EOFError):
            break
        try:
            found = answer(question)
        except Exception:  # whoever asked finds out
            found = b""
        line.send_bytes(found)
