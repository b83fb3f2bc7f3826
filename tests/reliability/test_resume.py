"""Row 1: a work that is stopped anywhere, in any way, and begun again ends in the same bytes."""

import os
import shutil
import signal
from contextlib import contextmanager
from functools import partial
from itertools import chain, count, cycle, islice, repeat

import pytest
from tests.faults import Killed
from tests.once import once_for_all
from tests.reliability.child import fork
from tests.reliability.works import FAMILIES, WORKS, found
from tests.small import outcome

from boundnas.engine.interruption import Interrupted, interruptible
from boundnas.latency.bench import Bench
from boundnas.method.sandwich import Sandwich
from boundnas.search.journal import Journal
from boundnas.store import checkpoint

POINTS = (
    (Sandwich, "step"),
    (Journal, "append"),
    (Bench, "run"),
    (checkpoint, "save"),
    (os, "replace"),
    (os, "rename"),
)
"""A step of training, a measurement that is kept, a file that is there from now on: a work may be
stopped just before each call of these, and just after it."""


@contextmanager
def stopping_at(number, stop):
    """``stop()`` is called at so manieth a point; gives the counter of points."""
    points = count(1)

    def point():
        if next(points) == number:
            stop()

    def wrapped(call):
        def run(*args, **kwargs):
            point()
            result = call(*args, **kwargs)
            point()
            return result

        return run

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in POINTS:
            patch.setattr(owner, name, wrapped(getattr(owner, name)))
        yield points


def failing(work, folder, number):
    """Something escapes, and the same process goes on."""

    def fail():
        raise Killed

    with stopping_at(number, fail):
        try:
            work()
        except Killed:
            return True
    return False


def asked(work, folder, number):
    """A signal asks for a stop, after the step and its checkpoint where there is one."""
    with stopping_at(number, partial(os.kill, os.getpid(), signal.SIGTERM)):
        try:
            with interruptible():
                work()
        except Interrupted:
            return True
    return False


def killed(work, folder, number):
    """The process is gone, with all that it held."""

    def dying():
        with stopping_at(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            work()

    child = fork(dying, folder.parent)
    code = child.wait()
    assert code in (0, -signal.SIGKILL), child.text
    return code != 0


WAYS = (failing, asked, killed)


def ends(work, folder, numbers, first=0):
    """Stop a work at these points, each time begun anew, in one way after the other.

    Gives what it gives when it is begun once more after its end, which changes nothing; what it
    leaves; and how often it was stopped.
    """
    ways = islice(cycle(WAYS), first, None)
    for stops, (way, number) in enumerate(zip(ways, numbers, strict=False)):
        if not way(partial(work, folder, stops), folder, number):
            break
    left = outcome(folder)
    gave = work(folder, stops + 1)
    assert outcome(folder) == left
    return gave, left, stops


@pytest.fixture(scope="module", autouse=True)
def _once():
    """What a training begins with is checked once, however often it is begun."""
    with once_for_all():
        yield


@pytest.mark.parametrize("name", [*WORKS, *FAMILIES])
def test_stopped_anywhere_and_in_any_way_a_work_ends_in_the_same_bytes(
    name, tmp_path, full, figure
):
    if name in FAMILIES and not full:
        pytest.skip("takes minutes, and has the kinds of choices that others have")
    work = {**WORKS, **FAMILIES}[name]
    found()  # is no part of a work
    with stopping_at(0, None) as points:
        whole = work(tmp_path / "whole", 0), outcome(tmp_path / "whole")
    total = next(points) - 1
    numbers = (max(n, n * total // 10) for n in count(1))
    *ended, stops = ends(work, tmp_path / "again and again", numbers)
    assert tuple(ended) == whole
    assert stops > 1
    for number in range(1, total + 1) if full else ():
        *ended, _ = ends(work, tmp_path / str(number), chain([number], repeat(0)), number)
        assert tuple(ended) == whole, number
        shutil.rmtree(tmp_path / str(number))
    figure(f"{name}: stopped {stops} times{f', and at each of {total} points' if full else ''}")
