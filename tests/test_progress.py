import io
import sys

import pytest

from boundnas.progress import Progress


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


@pytest.mark.parametrize(
    ("total", "seconds", "lines"),
    [(1000, 0.001, 1), (1000, 1, 10), (50, 3, 5), (4, 100, 4), (0, 1, 0)],
)
def test_lines_are_a_tenth_of_the_work_and_half_a_minute_apart(capsys, total, seconds, lines):
    work(total, seconds)
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", lines)


def test_the_last_line_says_that_all_is_done(capsys):
    work(3, 1250.5)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "train  step 3/3  100 %  elapsed 1:02:31  left 0:00  loss 0.5"


def test_work_of_an_earlier_process_does_not_make_the_estimate_too_good(capsys):
    work(1000, 1, done=800, unit="image")
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "train  image 900/1000  90 %  elapsed 1:40  left 1:40  loss 0.5"


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
