"""Progress of long work on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO, cast

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

from boundnas.engine.output import SideChannel
from boundnas.engine.ranks import rank

FIRST_LINE_SECONDS = 30.0
"""Without a terminal, silence lasts so long at first."""

MOST_SECONDS = 180.0
"""The time between lines doubles up to this; a run of ten hours has about two hundred."""


class Progress:
    """Shows how far a piece of work is, how long it took and how long it will take.

    A context manager. On a terminal it draws a bar; elsewhere it writes a line within 30 s, then
    at least every three minutes, however much work there is, and one at the end. Only a unit that
    takes longer than that is waited for. Output that fails is switched off, and the work goes on.

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
        return self

    def advance(self, n: int = 1, /, **shown_values: float | str) -> None:
        """Count ``n`` more units as done.

        Args:
            n: Units; 0 where the work is watched and none has ended.
            shown_values: Numbers or text to show from now on, such as the loss.
        """
        self.done += n
        self._shown |= shown_values
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self.done, shown=_text(self._shown))
            return
        before, self._now = self._now, self._clock()
        # The next call comes after about as long as this one did, and may come too late.
        if 2 * self._now - before > self._due:
            self._pause = min(2 * self._pause, MOST_SECONDS)
            self._due = self._now + self._pause
            self._write_line()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.done > self._line_done:
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
