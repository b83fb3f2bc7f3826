"""Work side by side: in order, a piece at each worker, an error or a stop at once, threads back."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.small import mobilenet, threads, trained

from boundnas import SearchSettings, search
from boundnas.engine import forked
from boundnas.randomness import stream
from boundnas.search.workers import Judged, Workers, side_by_side

SPACE = mobilenet().space


def drawn(number):
    generator = stream(0, "workers")
    return [SPACE.sample(generator) for _ in range(number)]


def telling(arch):
    """A score that says who judged."""
    time.sleep(0.002 * (arch.indices[0] + arch.indices[-1]))
    return Judged(float(sum(arch.indices)), os.getpid())


def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.mark.parametrize("number", [2, 3])
def test_processes_judge_in_order_each_its_part_and_are_gone_at_the_end(number):
    work = drawn(30)
    with Workers(telling, SPACE, number) as pool:
        found = list(pool(work))
        assert len(children()) == number
        assert len(list(pool(work[:1]))) == 1  # the same ones
        assert len(children()) == number
    assert [judged.score for judged in found] == [float(sum(a.indices)) for a in work]
    judges = {judged.images for judged in found}
    assert len(judges) == number
    assert os.getpid() not in judges
    assert not children()


@pytest.mark.parametrize(("number", "length"), [(1, 30), (4, 1), (4, 0)])
def test_what_one_can_do_is_done_here(number, length):
    with Workers(telling, SPACE, number) as pool:
        assert {judged.images for judged in pool(drawn(length))} <= {os.getpid()}
        assert not children()


def test_where_nothing_is_forked_all_is_done_here(monkeypatch):
    monkeypatch.setattr(forked, "AVAILABLE", False)
    with Workers(telling, SPACE, 4) as pool:
        assert {judged.images for judged in pool(drawn(5))} == {os.getpid()}


def test_without_room_for_processes_those_there_are_do_the_work(monkeypatch, caplog):
    fork, calls = os.fork, iter(range(10))

    def few():
        if next(calls):
            raise OSError(11, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(forked.os, "fork", few)
    work = drawn(9)
    with Workers(telling, SPACE, 3) as pool:
        assert [j.score for j in pool(work)] == [float(sum(a.indices)) for a in work]
        assert len(children()) == 1
    assert "of 3 processes that are to measure candidates 1 could be started (Res" in caplog.text


@pytest.mark.parametrize("number", [1, 3])
def test_every_candidate_has_one_thread_and_ours_come_back(number):
    def judge(_):
        return Judged(0.0, torch.get_num_threads())

    with threads(3), Workers(judge, SPACE, number) as pool:
        assert {judged.images for judged in pool(drawn(8))} == {1}
        assert torch.get_num_threads() == 3


def test_what_is_raised_in_a_process_is_raised_here_in_its_place():
    work = drawn(8)

    def judge(arch):
        if arch == work[5]:
            raise ZeroDivisionError("the sixth")
        return telling(arch)

    with Workers(judge, SPACE, 2) as pool:
        results = pool(work)
        assert [next(results).score for _ in range(5)] == [float(sum(a.indices)) for a in work[:5]]
        with pytest.raises(ZeroDivisionError, match="the sixth"):
            next(results)
        assert [j.score for j in pool(work[:3])] == [float(sum(a.indices)) for a in work[:3]]
    assert not children()


def test_what_a_process_dies_of_is_judged_here(caplog):
    work, here = drawn(20), os.getpid()

    def judge(arch):
        if arch in (work[3], work[9]) and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return telling(arch)

    with Workers(judge, SPACE, 3) as pool:
        found = list(pool(work))
    assert [judged.score for judged in found] == [float(sum(a.indices)) for a in work]
    assert found[3].images == found[9].images == here
    assert "a process that is to measure candidates was ended by signal 9; it" in caplog.text
    assert not children()


def test_no_process_outlives_the_one_that_forked_it(tmp_path):
    there = tmp_path / "child"

    def judge(_):
        there.write_text(str(os.getpid()))
        time.sleep(60)

    if not (child := os.fork()):
        list(Workers(judge, SPACE, 2)(drawn(4)))
    while not (there.exists() and there.read_text()):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    end = time.monotonic() + 10
    while Path(f"/proc/{there.read_text()}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_a_process_prints_or_logs_waits_for_no_lock_of_ours():
    lock = threading.Lock()

    class Locked:
        def write(self, text):
            with lock:
                return len(text)

        def flush(self):
            pass

    def judge(arch):
        print("judged", file=forked.sys.stderr)
        forked._log.warning("judged")
        return telling(arch)

    with pytest.MonkeyPatch.context() as patch, lock, Workers(judge, SPACE, 2) as pool:
        patch.setattr("sys.stderr", Locked())
        assert len({judged.images for judged in pool(drawn(6))}) == 2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_results_come_in_order_however_long_each_piece_takes(number):
    def slow(piece):
        time.sleep(0.01 * (piece % 3))
        return piece * piece

    with threads(number):
        assert list(side_by_side(slow, range(20))) == [piece * piece for piece in range(20)]
        assert torch.get_num_threads() == number


def test_every_worker_has_a_piece_at_the_same_time():
    meeting = threading.Barrier(3, timeout=30)
    with threads(3):
        assert sorted(side_by_side(lambda _: meeting.wait(), range(3))) == [0, 1, 2]


@pytest.mark.parametrize(("number", "each"), [(2, 1), (8, 1), (15, 1), (16, 2), (17, 2)])
def test_the_threads_are_dealt_out_to_eight_workers_at_most(number, each):
    with threads(number):
        found = set(side_by_side(lambda _: torch.get_num_threads(), range(30)))
    assert found == {each}


def test_an_error_of_a_piece_is_raised_in_its_place():
    def divide(piece):
        return 6 // piece

    with threads(2):
        results = side_by_side(divide, [3, 2, 0, 1])
        assert [next(results), next(results)] == [2, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert torch.get_num_threads() == 2


def test_whoever_stops_early_waits_for_what_has_begun_and_no_more():
    begun = []
    with threads(2):
        results = side_by_side(begun.append, range(1000))
        next(results)
        results.close()
        seen = len(begun)
        assert seen < 10
        time.sleep(0.05)
        assert len(begun) == seen


@pytest.mark.parametrize("screen", [None, 0.25])
def test_a_search_of_two_workers_finds_the_front_of_one(screen):
    settings = SearchSettings(
        initial=8, rounds=2, crossovers=4, mutations=4, calibration_images=128, screen=screen
    )
    alone = search(trained(), settings)
    with threads(2):
        together = search(trained(), settings)
    assert together.to_json() == alone.to_json()
    for one, other in zip(alone.networks, together.networks, strict=True):
        for layer, (mean, var) in one.arch.carried.statistics.moments.items():
            assert torch.equal(mean, other.arch.carried.statistics.moments[layer][0])
            assert torch.equal(var, other.arch.carried.statistics.moments[layer][1])
