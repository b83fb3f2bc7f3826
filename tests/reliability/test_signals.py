"""Row 4: SIGTERM and SIGINT stop within a step, wherever they arrive, and nothing is lost."""

import os
import random
import signal
import time
from importlib import import_module

import pytest
from tests.reliability.child import fork, replaced
from tests.reliability.tiny import FORMAT, clear, configure, finishes, outcome, run

from boundnas.app import pipeline
from boundnas.engine.interruption import Interrupted, deferred, interruptible
from boundnas.method import sandwich
from boundnas.store import checkpoint

SIGNALS = (signal.SIGTERM, signal.SIGINT)

evaluator = import_module("boundnas.search.evaluator")  # its package has a function's name too
POINTS = {
    "a training step": (sandwich.Sandwich, "step", 5),
    "a save": (checkpoint, "save", 2),
    "the last save": (checkpoint, "save", 4),
    "the middle of a save": (checkpoint, "write_new", 4),
    "an evaluation": (evaluator.Evaluator, "scores", 2),
    "a recalibration": (evaluator, "calibrate", 1),
    "an export": (import_module("boundnas.deploy.export"), "_check", 1),
    "the report": (pipeline, "write_report", 1),
}
"""Where a signal arrives: inside the given call, counted from 1, of a function."""


def sending(number, call):
    """A function that sends this process a signal within one of its calls."""

    def make(old):
        calls = iter(range(1, 1_000_000))

        def send(*args, **kwargs):
            if next(calls) == call:
                os.kill(os.getpid(), number)
            return old(*args, **kwargs)

        return send

    return make


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("point", POINTS)
def test_a_signal_stops_the_run_and_the_same_command_ends_in_the_same_bytes(
    point, number, whole, exported, tmp_path, full
):
    if not full and number != SIGNALS[list(POINTS).index(point) % 2]:
        pytest.skip("each point has one of the two signals")
    owner, name, call = POINTS[point]
    formats, expected = (FORMAT, exported) if point == "an export" else ("", whole)
    configure(tmp_path, formats)

    def stopped():
        with replaced(owner, name, sending(number, call)):
            run()

    child = fork(stopped, tmp_path)
    assert child.wait() == 128 + number, child.text
    assert f"Stopped by {number.name}. The same command goes on from here." in child.text
    assert "Traceback" not in child.text
    left = [path for path in tmp_path.rglob("*") if "partial" in path.name]
    assert left == []
    if point == "a training step":
        saved = checkpoint.newest(tmp_path / "runs" / "tiny" / "checkpoints")
        assert saved.step == call, "the step that was under way is the last one"
    finishes(tmp_path, expected)


def test_a_signal_at_any_time_stops_the_run_within_five_seconds(whole, tmp_path, full, figure):
    rng = random.Random(0)
    configure(tmp_path)
    slowest = stops = 0
    while stops < (50 if full else 4):
        child = fork(run, tmp_path)
        time.sleep(rng.uniform(0.05, 0.5))
        started, number = time.monotonic(), rng.choice(SIGNALS)
        child.send(number)
        code = child.wait(5)
        slowest = max(slowest, time.monotonic() - started)
        if code == 0:  # it was finished already
            assert outcome(tmp_path) == whole
            clear(tmp_path)
            continue
        stops += 1
        assert code in (128 + number, -number), child.text
        assert "Traceback" not in child.text
    finishes(tmp_path, whole)
    figure(f"{stops} signals, slowest stop {slowest:.2f} s")


def test_a_second_signal_stops_at_once(tmp_path):
    configure(tmp_path)
    ready = tmp_path / "ready"

    def slow(old):
        def save(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            ready.touch()
            time.sleep(100)

        return save

    def stuck():
        with replaced(checkpoint, "save", slow):
            run()

    child = fork(stuck, tmp_path)
    while not ready.exists():
        time.sleep(0.01)
    child.send(signal.SIGTERM)
    assert child.wait(5) == -signal.SIGTERM


@pytest.fixture
def _heeding_interrupts():
    """SIGINT is not ignored, as it is in what a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeding_interrupts")
@pytest.mark.parametrize("number", SIGNALS)
def test_handlers_are_restored(number):
    before = [signal.getsignal(each) for each in SIGNALS]

    def work():
        with interruptible():
            assert [signal.getsignal(each) for each in SIGNALS] != before
            os.kill(os.getpid(), number)
            time.sleep(1)

    with pytest.raises(Interrupted) as stop:
        work()
    assert stop.value.number == number
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_an_error_that_a_signal_became_is_the_stop_and_another_stays_one():
    def work(number):
        with interruptible():
            try:
                if number:
                    os.kill(os.getpid(), number)
                    time.sleep(1)
            except Interrupted:
                pass
            raise ImportError

    with pytest.raises(Interrupted):
        work(signal.SIGTERM)
    with pytest.raises(ImportError):
        work(None)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_defers_runs_to_its_end():
    done = []

    def work():
        with interruptible(), deferred() as stopping:
            assert not stopping()
            os.kill(os.getpid(), signal.SIGTERM)
            while not stopping():
                time.sleep(0.01)
            done.append("the end")

    with pytest.raises(Interrupted):
        work()
    assert done == ["the end"]
