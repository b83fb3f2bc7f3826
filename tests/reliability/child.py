"""Processes forked off this one, in which everything is imported already: a kill costs 0.1 s."""

import os
import signal
import sys
import time
import traceback
import warnings
from contextlib import contextmanager, suppress

CRASHED = 70
"""Exit code of a child that something escaped from."""


class Child:
    """A process that does some work and prints into a pipe, which no limit on files concerns.

    Args:
        pid: The process.
        reader: The pipe's end to read from; it holds 64 kB.
    """

    def __init__(self, pid, reader):
        self.pid = pid
        self._reader, self._read = reader, b""
        os.set_blocking(reader, False)

    @property
    def text(self):
        """What it has printed so far, stdout and stderr together."""
        with suppress(BlockingIOError):
            while self._reader is not None and (part := os.read(self._reader, 1 << 16)):
                self._read += part
        return self._read.decode()

    def _close(self):
        self._read = self.text.encode()
        os.close(self._reader)
        self._reader = None

    def send(self, number):
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds=120):
        """Exit code, negative for a signal; a child that takes longer is killed, which fails."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._close()
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.send(signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running after {seconds} s; it printed {self.text!r}")


def fork(work, folder):
    """Start ``work()`` in a child process that works in ``folder``."""
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until the child is ready for them
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        os.close(writer)
        return Child(pid, reader)
    code = CRASHED
    try:
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(writer, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        for number in signals:  # whatever the tests were started with
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        sys.unraisablehook = sys.__unraisablehook__  # not that of pytest, which imports modules
        warnings.simplefilter("ignore", ResourceWarning)  # as in a command, where nobody asks
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def replaced(owner, name, make):
    """``owner.name`` is ``make(old)`` within."""
    old = getattr(owner, name)
    setattr(owner, name, make(old))
    try:
        yield
    finally:
        setattr(owner, name, old)
