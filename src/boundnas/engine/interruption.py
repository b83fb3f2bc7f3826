"""Signals that ask for a stop: at once or, while training, after the step and its checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from boundnas.engine.entry import SIGNALS


class Interrupted(BaseException):
    """A signal asked the work to stop; whatever is on disk is whole and can be continued.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class _State:
    """Of this process, as signals are."""

    received: int | None = None
    deferring: bool = False


_state = _State()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first of these signals raises `Interrupted`; a second ends the process.

    A signal that the process was started to ignore stays ignored. The handlers that were there
    come back at the end. For the main thread only, as all handling of signals in Python.
    """

    def receive(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        _state.received = number
        if not _state.deferring:
            raise Interrupted(number)

    held = {each: signal.getsignal(each) for each in SIGNALS}
    before = {each: handler for each, handler in held.items() if handler != signal.SIG_IGN}
    for each in before:
        signal.signal(each, receive)
    try:
        yield
    except Exception as error:
        if _state.received is None:
            raise
        # Extensions turn what is raised within them, in their import for one, into other errors.
        raise Interrupted(_state.received) from error
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        _state.received = None


def stop() -> NoReturn:
    """Stop as after a signal, which may have reached another of several processes only."""
    raise Interrupted(_state.received or signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within, a signal that `interruptible` waits for raises nothing before the end.

    Gives a function that says whether one has arrived. Everything else than training steps may
    stop anywhere, since what it writes is whole or absent.
    """
    _state.deferring = True
    try:
        yield lambda: _state.received is not None
    finally:
        _state.deferring = False
    if _state.received is not None:
        raise Interrupted(_state.received)
