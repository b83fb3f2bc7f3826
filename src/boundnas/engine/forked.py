"""A process of this one's memory that answers questions: bytes in, bytes out."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

import torch

from boundnas.engine.entry import SIGNALS
from boundnas.engine.tuning import of_libc

AVAILABLE = sys.platform == "linux"
"""Whether processes can be forked here; elsewhere libraries below may not survive it."""

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

    @staticmethod
    def ready(some: Iterable[Forked]) -> list[Forked]:
        """Those that have an answer, or have ended; waits until there is one."""
        lines: dict[object, Forked] = {each._line: each for each in some}
        return [lines[line] for line in wait([each._line for each in lines.values()])]


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
