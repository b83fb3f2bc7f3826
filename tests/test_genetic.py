import math
from functools import partial
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.faults import Killed
from tests.small import ACCURACY

from boundnas.search.bench import Bench
from boundnas.search.genetic import genetic_search, pareto_front
from boundnas.search.journal import Evaluation, Journal
from boundnas.space import Architecture, Dimension, SearchSpace


def space_of(*sizes):
    return SearchSpace(
        [Dimension(f"d{i}", tuple(range(1, size + 1))) for i, size in enumerate(sizes)]
    )


LARGE = space_of(*[8] * 10)
SMALL = space_of(6, 5, 4)


def evaluation(architecture):
    """Cost and accuracy grow with the indices, at different rates, and not smoothly."""
    indices = architecture.indices
    macs = 1 + sum((i + 1) * k for i, k in enumerate(indices))
    bonus = math.sin(sum(k * k for k in indices)) / 3
    accuracy = 1 - math.exp(-(sum(indices) + bonus) / 40)
    return Evaluation(architecture, {"macs": macs, "parameters": 2 * macs}, accuracy, 100)


def opened(path):
    """A journal of `LARGE` with the costs of `evaluation`."""
    costs = {
        name: partial(lambda name, arch: evaluation(arch).costs[name], name)
        for name in ("macs", "parameters")
    }
    return Journal(path, LARGE, {"weights": "none"}, costs, ACCURACY)


class Recorder:
    """Measures, remembers its batches and refuses to measure anything twice."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        assert not set(batch) & set(self.measured)
        assert len(set(batch)) == len(batch) > 0
        self.batches.append(list(batch))
        return [evaluation(a) for a in batch]

    @property
    def measured(self):
        return [a for batch in self.batches for a in batch]


def search(space, measure, journal=None, **options):
    defaults = {
        "largest": space.largest,
        "smallest": space.smallest,
        "allowed": space.whole,
        "initial": 32,
        "rounds": 5,
        "crossovers": 16,
        "mutations": 16,
        "seed": 0,
    }
    return genetic_search(Bench(measure, journal=journal), **(defaults | options))


def test_the_papers_sizes_are_the_default():
    recorder = Recorder()
    genetic_search(
        Bench(recorder),
        largest=LARGE.largest,
        smallest=LARGE.smallest,
        allowed=LARGE.whole,
        seed=3,
    )
    assert [len(batch) for batch in recorder.batches] == [256] * 21


@given(seed=st.integers(0, 2**31), initial=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_the_result_is_the_ascending_front_of_all_that_was_measured(seed, initial):
    recorder = Recorder()
    front = search(LARGE, recorder, seed=seed, initial=initial)
    assert front == pareto_front(evaluation(a) for a in recorder.measured)
    assert [e.costs["macs"] for e in front] == sorted({e.costs["macs"] for e in front})
    assert [e.score for e in front] == sorted({e.score for e in front})
    assert recorder.batches[0][:2] == [LARGE.largest, LARGE.smallest]
    assert len(recorder.batches[0]) == max(initial, 2)


def test_children_descend_from_the_front():
    recorder = Recorder()
    search(LARGE, recorder, mutations=0, mutation_probability=0.0)
    for number, batch in enumerate(recorder.batches[1:], 1):
        before = [evaluation(a) for b in recorder.batches[:number] for a in b]
        genes = list(zip(*(e.architecture.indices for e in pareto_front(before)), strict=True))
        assert all(i in genes[d] for child in batch for d, i in enumerate(child.indices))


def test_mutation_changes_each_dimension_with_its_probability():
    recorder = Recorder()
    search(
        LARGE, recorder, initial=2, rounds=1, crossovers=0, mutations=400, mutation_probability=0.3
    )
    parents, children = recorder.batches
    changed = [
        min(sum(i != j for i, j in zip(c.indices, p.indices, strict=True)) for p in parents)
        for c in children
    ]
    assert 2.7 < sum(changed) / len(changed) < 3.4  # of 10; copies of a parent are drawn again


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_new_values_come_from_the_allowed_options(data):
    options = st.sets(st.integers(0, 7), min_size=1).map(lambda s: tuple(sorted(s)))
    allowed = tuple(data.draw(options) for _ in LARGE.dimensions)
    recorder = Recorder()
    search(LARGE, recorder, allowed=allowed, rounds=2)
    extremes = LARGE.largest.indices, LARGE.smallest.indices
    for architecture in recorder.batches[0][2:]:
        assert all(i in allowed[d] for d, i in enumerate(architecture.indices))
    for architecture in recorder.measured:
        for d, i in enumerate(architecture.indices):
            assert i in allowed[d] or i in (extremes[0][d], extremes[1][d])


def test_the_first_population_is_uniform():
    counts = [0] * 8
    for seed in range(40):
        recorder = Recorder()
        search(LARGE, recorder, seed=seed, initial=42, rounds=0)
        for architecture in recorder.batches[0][2:]:
            for i in architecture.indices:
                counts[i] += 1
    expected = sum(counts) / 8
    chi_square = sum((c - expected) ** 2 / expected for c in counts)
    assert chi_square < 24.3  # 99.9 % quantile at 7 degrees of freedom


@pytest.mark.parametrize("sizes", [(1,), (2,), (3, 1, 2), (6, 5, 4)])
def test_a_space_no_larger_than_the_first_population_is_measured_whole_and_the_search_ends(sizes):
    space = space_of(*sizes)
    recorder = Recorder()
    front = search(space, recorder, initial=120, rounds=10**9)
    everything = [evaluation(Architecture(space, i)) for i in product(*(range(s) for s in sizes))]
    assert len(recorder.batches) == 1
    assert set(recorder.measured) == {e.architecture for e in everything}
    assert [(e.costs["macs"], e.score) for e in front] == [
        (e.costs["macs"], e.score) for e in pareto_front(everything)
    ]


def test_extremes_outside_of_the_allowed_options_come_on_top_of_them():
    recorder = Recorder()
    search(SMALL, recorder, allowed=((2,), (1, 2), (1,)), initial=100, rounds=0)
    assert len(recorder.measured) == 4


def test_a_front_of_one_is_mutated_instead_of_crossed():
    def measure(batch):
        recorder(batch)
        return [
            Evaluation(a, {"macs": 1 + sum(a.indices)}, -float(sum(a.indices)), 100) for a in batch
        ]

    recorder = Recorder()
    (only,) = search(LARGE, measure, initial=2, rounds=1, mutations=0, mutation_probability=0.2)
    assert only.architecture == LARGE.smallest
    assert len(recorder.batches[1]) == 16


def test_the_same_seed_gives_the_same_search_and_another_seed_another():
    one, same, other = Recorder(), Recorder(), Recorder()
    for recorder, seed in ((one, 1), (same, 1), (other, 2)):
        search(LARGE, recorder, seed=seed)
    assert one.batches == same.batches
    assert one.batches[0] != other.batches[0]


def killed_once(number):
    """Measures and dies once, after so many architectures; and what it measures by and by."""
    measured, dies = [], iter([True])

    def measure_one(architecture):
        if len(measured) == number and next(dies, False):
            raise Killed
        measured.append(architecture)
        return evaluation(architecture)

    return measure_one, measured


def test_a_search_killed_at_any_evaluation_finds_the_same_front_and_measures_nothing_twice(
    tmp_path, full, figure
):
    options = {"initial": 20, "rounds": 8, "crossovers": 8, "mutations": 8}
    recorder = Recorder()
    expected = search(LARGE, recorder, **options)
    total = len(recorder.measured)
    assert total > 120
    kills = range(0, total, 1 if full else 7)
    for killed_at in kills:
        path = tmp_path / f"{killed_at}.jsonl"
        measure_one, measured = killed_once(killed_at)
        measure = partial(map, measure_one)
        with opened(path) as journal, pytest.raises(Killed):
            search(LARGE, measure, journal, **options)
        with path.open("ab") as file:
            file.write(b'{"architecture": {"d0"')
        with opened(path) as journal:
            assert search(LARGE, measure, journal, **options) == expected
            assert list(journal) == recorder.measured
        assert measured == recorder.measured
    figure(f"killed at {len(kills)} of {total} evaluations, same front, each measured once")
