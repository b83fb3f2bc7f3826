"""NSGA-II and TPE on the bench of the genetic search."""

from functools import partial

import pytest
from tests.faults import Killed
from tests.small import trained
from tests.test_genetic import LARGE, Recorder, evaluation, killed_once, opened, space_of

from boundnas import SearchSettings
from boundnas import search as search_run
from boundnas.randomness import stream
from boundnas.search.bench import Bench
from boundnas.search.pareto import mean_over_log_cost
from boundnas.search.sampled import METHODS, sampled_search

methods = pytest.mark.parametrize("method", METHODS)


def search(space, measure, method, journal=None, **options):
    defaults = {
        "largest": space.largest,
        "smallest": space.smallest,
        "allowed": space.whole,
        "total": 200,
        "population": 40,
        "seed": 0,
    }
    return sampled_search(Bench(measure, journal=journal), method=method, **(defaults | options))


def score(evaluations):
    costs, accuracies = zip(*((e.costs["macs"], e.score) for e in evaluations), strict=True)
    return mean_over_log_cost(costs, accuracies, accuracies, 10, 300)


@methods
def test_a_sampler_measures_what_it_may_and_finds_more_than_chance_on_average(method):
    recorder = Recorder()
    front = search(LARGE, recorder, method)
    assert len(recorder.measured) == 200
    assert recorder.measured[:2] == [LARGE.largest, LARGE.smallest]
    generator = stream(0, "test")
    chance = [
        score(evaluation(a) for a in [LARGE.largest, LARGE.smallest, *drawn])
        for drawn in ([LARGE.sample(generator) for _ in range(198)] for _ in range(9))
    ]
    assert score(front) > sum(chance) / len(chance) + 0.02


@methods
def test_only_allowed_options_are_asked_for(method):
    allowed = tuple((1, 2, 5) for _ in LARGE.dimensions)
    recorder = Recorder()
    search(LARGE, recorder, method, allowed=allowed, total=60)
    assert all(set(a.indices) <= {1, 2, 5} for a in recorder.measured[2:])


@methods
def test_a_space_that_is_exhausted_ends_the_search(method):
    recorder = Recorder()
    search(space_of(4, 3), recorder, method, total=40)
    assert 8 < len(recorder.measured) <= 12


@methods
def test_a_search_that_is_killed_finds_the_same_front_and_measures_nothing_twice(method, tmp_path):
    recorder = Recorder()
    expected = search(LARGE, recorder, method, total=90)
    for killed_at in range(0, 90, 7 if method == "nsga2" else 29):
        measure_one, measured = killed_once(killed_at)
        measure = partial(map, measure_one)
        path = tmp_path / f"{killed_at}.jsonl"
        with opened(path) as journal, pytest.raises(Killed):
            search(LARGE, measure, method, journal, total=90)
        with opened(path) as journal:
            assert search(LARGE, measure, method, journal, total=90) == expected
        assert measured == recorder.measured


@methods
def test_a_run_is_searched_by_any_method(method):
    settings = SearchSettings(
        method=method, initial=4, rounds=1, crossovers=2, mutations=2, calibration_images=64
    )
    front = search_run(trained(), settings)
    assert front.networks
