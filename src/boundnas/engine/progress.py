"""Progress of long work on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, RLock, Thread
from typing import ClassVar, TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from boundnas.engine.launch import number
from boundnas.engine.output import SideChannel
from boundnas.engine.pool import check_room
from boundnas.engine.ranks import rank

FIRST_LINE_SECONDS = 30.0
"""Without a terminal, silence lasts so long at first."""

MOST_SECONDS = 180.0
"""The time between lines doubles up to this; a run of ten hours has about two hundred."""


class _Pulse:
    """Breaks a silence: a thread that says something when nothing was said for so long.

    Args:
        say: What it does then.
    """

    def __init__(self, say: Callable[[], None]) -> None:
        self.lock, self._say, self._over = RLock(), say, Event()
        self._pause, self._due = FIRST_LINE_SECONDS, 0.0
        self._thread = Thread(target=self._watch, name="progress", daemon=True)

    def begin(self) -> None:
        """From now on; where no thread can be had, silence lasts."""
        self._due = time.monotonic() + self._pause
        with suppress(RuntimeError, MemoryError):
            check_room()
            self._thread.start()

    def said(self) -> None:
        """Something was said, which the silence begins anew after."""
        self._pause = min(2 * self._pause, MOST_SECONDS)
        self._due = time.monotonic() + self._pause

    def end(self) -> None:
        """No more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(max(0.0, self._due - time.monotonic())):
            with self.lock:
                if time.monotonic() >= self._due:
                    self.said()
                    self._say()


@contextmanager
def alive(label: str) -> Iterator[None]:
    """Within it a line says now and then that work goes on, where no `Progress` says it.

    Args:
        label: What the work is.
    """
    out, start = SideChannel(sys.stderr), time.monotonic()

    def say() -> None:
        if not Progress.open:
            print(f"{label}  elapsed {_duration(time.monotonic() - start)}", file=out, flush=True)

    if number() or out.isatty():  # before the processes have met
        yield
        return
    pulse = _Pulse(say)
    pulse.begin()
    try:
        yield
    finally:
        pulse.end()


class Progress:
    """Shows how far a piece of work is, how long it took and how long it will take.

    A context manager. On a terminal it draws a bar; elsewhere it writes a line within 30 s, then
    at least every three minutes, however much work there is and however long a unit of it takes,
    and one at the end. Output that fails is switched off, and the work goes on.

    Args:
        total: Units of work.
        label: What the work is, such as ``"train"``.
        unit: What is counted.
        done: Units that an earlier process did; the time left does not build on them.
        clock: Seconds of a clock that never goes back.

    Examples:
        >>> from contextlib import redirect_stderr
        >>> clock = iter([0, 14, 29, 110]).__next__
        >>> with redirect_stderr(sys.stdout), Progress(1200, "train", clock=clock) as progress:
        ...     progress.advance(100, loss=0.9)
        ...     progress.advance(100, loss=0.5321)
        ...     progress.advance(600)
        train  step 200/1200  16 %  elapsed 0:29  left 2:25  loss 0.532
        train  step 800/1200  66 %  elapsed 1:50  left 0:55  loss 0.532
    """

    open: ClassVar[int] = 0
    """How many are at work in this process."""

    def __init__(
        self,
        total: int,
        label: str,
        *,
        unit: str = "step",
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self._clock = clock
        self._shown: dict[str, float | str] = {}
        self._first = self._line_done = done
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._out = SideChannel(sys.stderr)
        console = Console(file=cast(TextIO, self._out))
        if self._out.isatty() and not console.is_dumb_terminal and not rank():
            self._bar = _bar(console, self._clock)
            self._bar.add_task(self.label, total=self.total, completed=self.done, shown="")
            self._bar.start()
        else:
            self._start = self._now = self._clock()
            self._pause = FIRST_LINE_SECONDS
            self._due = self._start + self._pause
            self._pulse = _Pulse(self._still)
            self._pulse.begin()
        Progress.open += 1
        return self

    def advance(self, n: int = 1, /, **shown_values: float | str) -> None:
        """Count ``n`` more units as done.

        Args:
            n: Units; 0 where the work is watched and none has ended.
            shown_values: Numbers or text to show from now on, such as the loss.
        """
        if self._bar is not None:
            self._count(n, shown_values)
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self.done, shown=_text(self._shown))
            return
        with self._pulse.lock:
            self._count(n, shown_values)
            before, self._now = self._now, self._clock()
            # The next call comes after about as long as this one did, and may come too late.
            if 2 * self._now - before > self._due:
                self._pause = min(2 * self._pause, MOST_SECONDS)
                self._due = self._now + self._pause
                self._pulse.said()
                self._write_line()

    def _count(self, n: int, shown_values: dict[str, float | str]) -> None:
        self.done += n
        self._shown |= shown_values

    def __exit__(self, *_: object) -> None:
        Progress.open -= 1
        if self._bar is not None:
            self._bar.stop()
            return
        self._pulse.end()
        if self.done > self._line_done:
            self._write_line()

    def _still(self) -> None:
        """A unit takes its time."""
        self._now = self._clock()
        self._write_line()

    def _write_line(self) -> None:
        if rank():
            return  # the first process speaks for all
        self._line_done = self.done
        elapsed, fresh = self._now - self._start, self.done - self._first
        left = _duration(elapsed / fresh * (self.total - self.done)) if fresh else "unknown"
        line = (
            f"{self.label}  {self.unit} {self.done}/{self.total}  "
            f"{100 * self.done // self.total} %  elapsed {_duration(elapsed)}  "
            f"left {left}  {_text(self._shown)}"
        )
        print(line.rstrip(), file=self._out, flush=True)


def _bar(console: Console, clock: Callable[[], float]) -> Bar:
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}", markup=False),
        console=console,
        get_time=clock,
        refresh_per_second=2,  # the work needs the processor more
    )


def _text(shown: dict[str, float | str]) -> str:
    return "  ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown.items()
    )


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Examples:
        >>> _duration(42.7), _duration(3 * 3600 + 62)
        ('0:42', '3:01:02')
    """
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
