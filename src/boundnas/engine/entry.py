"""The first moments of the command, before anything that takes long to import."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Those that ask the command to stop; the last one comes when a terminal goes away."""

STOPPED = "Stopped by {}. The same command goes on from here."


def is_command() -> bool:
    """Whether this process is the command ``boundnas`` or ``python -m boundnas``."""
    if sys.argv[0] != "-m":
        return os.path.basename(sys.argv[0]) == "boundnas"
    # Python still looks for the module to run (sys.argv in its manual): that of -m NAME or -mNAME,
    # which is another one where a package of the user's imports this one.
    asked = sys.orig_argv[-len(sys.argv) :][0]
    return re.fullmatch(r"(-\w*m)?boundnas", asked) is not None


def enter() -> None:
    """Have signals, errors and closed streams answered in order while the rest is imported."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and shells set it
            signal.signal(number, _stop)
    hold_standard_streams()
    sys.excepthook = _hook()
    _check_place()


def hold_standard_streams() -> None:
    """Open the null device where standard input, output or errors are closed.

    Else the next file that is opened, a log of the run for one, takes the free number, and
    libraries that print from C write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _check_place() -> None:
    """Refuse a working folder that is gone, in which MKL would end the process by itself."""
    from boundnas.errors import RunError

    try:
        os.getcwd()
    except OSError as error:
        raise RunError(
            f"the working folder cannot be found ({error.strerror}); change into one that is there"
        ) from error


def _stop(number: int, _: FrameType | None) -> None:
    """Nothing has begun that could be left half done."""
    try:
        os.write(2, f"{STOPPED.format(signal.Signals(number).name)}\n".encode())
    finally:
        os._exit(128 + number)


def _hook() -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """What to do with an error of the imports; loaded now, as they may fail."""
    from boundnas.engine.foreign import answer

    def say(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
        text, code = answer(error)
        try:
            os.write(2, f"{text}\n".encode(errors="backslashreplace"))
        finally:
            os._exit(code)

    return say
