import io
import re
import sys
import threading
import time
from itertools import pairwise

import pytest

from boundnas.engine import progress as pulse
from boundnas.engine.progress import Progress, alive


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(total, seconds, **options):
    clock = Clock()
    with Progress(total, "train", clock=clock, **options) as progress:
        for _ in range(total - progress.done):
            clock.now += seconds
            progress.advance(loss=0.5)


LINES = {
    (1000, 0.001): [1],
    (1000, 1): [30, 90, 210, 390, 570, 750, 930, 1000],
    (600, 60): [60, 120, *range(240, 36_000, 180), 36_000],
    (50, 3): [30, 90, 150],
    (100, 20): [20, 80, 200, 380, 560, 740, 920, 1100, 1280, 1460, 1640, 1820, 2000],
    (4, 500): [500, 1000, 1500, 2000],
    (0, 1): [],
}
"""Units of work and seconds that each takes: seconds at which a line is written."""


@pytest.mark.parametrize(("total", "seconds"), LINES)
def test_time_decides_when_a_line_comes(capsys, total, seconds):
    work(total, seconds)
    out, err = capsys.readouterr()
    assert out == ""
    assert [elapsed(line) for line in err.splitlines()] == LINES[total, seconds]


@pytest.mark.parametrize("total", [10, 3_000, 1_000_000])
@pytest.mark.parametrize("seconds", [0.7, 1, 7, 16, 29, 31, 100])
def test_silence_is_never_longer_than_promised(capsys, total, seconds):
    work(min(total, int(36_000 / seconds)), seconds)
    times = [0, *(elapsed(line) for line in capsys.readouterr().err.splitlines())]
    assert times[1] <= max(30, seconds + 1)
    assert max(after - before for before, after in pairwise(times)) <= max(181, seconds + 1)
    assert len(times) <= 36_000 / 90 + 10


def elapsed(line):
    """Seconds that a line says have gone."""
    *hours, minutes, seconds = map(int, re.search(r"elapsed ([\d:]+)", line)[1].split(":"))
    return 3600 * sum(hours) + 60 * minutes + seconds


def test_work_that_is_watched_shows_life_before_its_first_unit(capsys):
    clock = Clock()
    with Progress(3, "reproduce", unit="run", done=1, clock=clock) as progress:
        for _ in range(40):
            clock.now += 1
            progress.advance(0)
    assert capsys.readouterr().err == "reproduce  run 1/3  33 %  elapsed 0:30  left unknown\n"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(pulse, "FIRST_LINE_SECONDS", 0.05)
    monkeypatch.setattr(pulse, "MOST_SECONDS", 0.1)


def until(capsys, lines):
    """What was written until so many lines of it were there, in a unit of work."""
    written, end = "", time.monotonic() + 20
    while written.count("\n") < lines and time.monotonic() < end:
        time.sleep(0.02)
        written += capsys.readouterr().err
    return written.splitlines()


def test_a_unit_that_takes_its_time_is_no_silence(impatient, capsys):
    with Progress(3, "train") as progress:
        first = until(capsys, 2)
        progress.advance(loss=0.5)
        capsys.readouterr()
        second = until(capsys, 2)
    for line in first:
        assert re.fullmatch(r"train  step 0/3  0 %  elapsed 0:\d\d  left unknown", line)
    for line in second:
        assert re.fullmatch(r"train  step 1/3  33 %  elapsed 0:\d\d  left 0:\d\d  loss 0.5", line)
    assert len(first) >= 2
    assert len(second) >= 2


def test_work_without_units_says_that_it_goes_on_where_nothing_else_does(impatient, capsys):
    with alive("search"):
        before = until(capsys, 2)
        with Progress(9, "test", clock=Clock()):
            capsys.readouterr()
            within = until(capsys, 2)
        after = until(capsys, 2)
    assert len(before) >= 2
    assert all(re.fullmatch(r"search  elapsed 0:\d\d", line) for line in (*before, *after))
    assert all(line.startswith("test  step 0/9") for line in within)
    assert Progress.open == 0
    written = capsys.readouterr().err
    time.sleep(0.3)
    assert capsys.readouterr().err == ""
    assert len(written.splitlines()) <= 1


def test_other_processes_and_terminals_hear_of_it_otherwise(impatient, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with alive("search"):
        time.sleep(0.2)
    monkeypatch.delenv("WORLD_SIZE")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with alive("search"):
        time.sleep(0.2)
    assert sys.stderr.getvalue() == ""


def test_work_goes_on_where_no_thread_can_be_had(monkeypatch, capsys):
    def none(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    with alive("train"):
        work(3, 20)
    assert [elapsed(line) for line in capsys.readouterr().err.splitlines()] == [20, 60]


def test_the_last_line_says_that_all_is_done(capsys):
    work(3, 1250.5)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "train  step 3/3  100 %  elapsed 1:02:31  left 0:00  loss 0.5"


def test_work_of_an_earlier_process_does_not_make_the_estimate_too_good(capsys):
    work(1000, 1, done=800, unit="image")
    second = capsys.readouterr().err.splitlines()[1]
    assert second == "train  image 890/1000  89 %  elapsed 1:30  left 1:50  loss 0.5"


def test_work_that_fails_says_how_far_it_came(capsys):
    def fail(progress):
        with progress:
            progress.advance(4, best="a=1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(Progress(10, "search", clock=Clock()))
    assert capsys.readouterr().err == "search  step 4/10  40 %  elapsed 0:00  left 0:00  best a=1\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    work(30, 0.5)
    assert "100%" in sys.stderr.getvalue()
    assert "30/30" in sys.stderr.getvalue()
    assert "loss 0.5" in sys.stderr.getvalue()


class Gone(Terminal):
    """A terminal that goes away after some writes."""

    def __init__(self, writes=0):
        super().__init__()
        self.writes = writes

    def write(self, text):
        self.writes -= 1
        if self.writes < 0:
            raise OSError(5, "Input/output error")
        return super().write(text)


class Ascii(Terminal):
    encoding = "ascii"

    def write(self, text):
        return super().write(text.encode("ascii").decode())


def closed():
    stream = Terminal()
    stream.close()
    return stream


STREAMS = {
    "none": lambda: None,
    "closed": closed,
    "gone": Gone,
    "gone after the first line": lambda: Gone(1),
    "gone while drawing": lambda: Gone(7),
    "ascii": Ascii,
}


@pytest.mark.parametrize("terminal", ["xterm", "dumb", ""])
@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_output_that_fails_is_switched_off_and_the_work_goes_on(make, terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", make())
    monkeypatch.setenv("TERM", terminal)
    for columns in ("0", "7", "nonsense"):
        monkeypatch.setenv("COLUMNS", columns)
        work(90, 30)
