"""Processes forked off this one, in which everything is imported already: a kill costs 0.1 s."""

import os
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CRASHED = 70
"""Exit code of a child that something escaped from."""


@dataclass
class Child:
    """A process that does some work, and where its standard streams go.

    Args:
        pid: The process.
        output: File with what it prints, stdout and stderr together.
    """

    pid: int
    output: Path

    @property
    def text(self):
        """What it has printed so far."""
        return self.output.read_text()

    def send(self, number):
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds=120):
        """Exit code, negative for a signal; a child that takes longer is killed, which fails."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.send(signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running after {seconds} s; it printed {self.text!r}")


def fork(work, folder, output):
    """Start ``work()`` in a child process that works in ``folder``."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, output)
    code = CRASHED
    try:
        os.chdir(folder)
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(target, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        for number in (signal.SIGINT, signal.SIGTERM):  # whatever the tests were started with
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
