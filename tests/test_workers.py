"""Work side by side: in order, a piece at each worker, an error or a stop at once, threads back."""

import threading
import time

import pytest
import torch
from tests.small import threads, trained

from boundnas import SearchSettings, search
from boundnas.search.workers import side_by_side


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
