"""The chain of a candidate: named, known, measured, written and shown, each network once."""

from dataclasses import replace

import pytest
from tests.test_genetic import LARGE, SMALL, Recorder, evaluation, opened

from boundnas.search import bench as module
from boundnas.search.bench import Bench
from boundnas.search.genetic import pareto_front
from boundnas.search.screening import Screening
from boundnas.space import Architecture


def architectures(*numbers):
    return [Architecture(LARGE, (number, *[0] * 9)) for number in numbers]


def even(arch):
    """A name that two neighbouring options share."""
    return Architecture(LARGE, (arch.indices[0] // 2 * 2, *arch.indices[1:]))


def test_evaluations_come_in_order_by_name_and_each_network_is_measured_and_shown_once():
    recorder, shown = Recorder(), []
    bench = Bench(recorder, name=even, show=shown.append)
    for asked in ((5, 0, 1, 4), (4, 2, 7, 2), (0, 7)):
        found = bench(architectures(*asked))
        assert [e.architecture for e in found] == architectures(*(n // 2 * 2 for n in asked))
    assert recorder.batches == [architectures(4, 0), architectures(2, 6)]
    assert list(bench.known) == recorder.measured
    assert shown == [evaluation(a) for a in recorder.measured]


def test_what_the_journal_knows_is_shown_but_not_measured(tmp_path):
    shown = []
    with opened(tmp_path / "evaluations.jsonl") as journal:
        Bench(Recorder(), journal=journal)(architectures(1, 2))
        recorder = Recorder()
        found = Bench(recorder, journal=journal, show=shown.append)(architectures(3, 2, 4, 1))
        assert list(journal) == architectures(1, 2, 3, 4)
    assert found == [evaluation(a) for a in architectures(3, 2, 4, 1)]
    assert recorder.batches == [architectures(3, 4)]
    assert shown == found


def test_a_screened_bench_answers_by_what_was_measured_where_that_is_on_the_front(tmp_path):
    def estimate(batch):
        return [replace(evaluation(a), score=0.5, images=10) for a in batch]

    exact, shown = Recorder(), []
    with opened(tmp_path / "evaluations.jsonl") as journal:
        screening = Screening(Bench(exact), pareto_front, images=100)
        bench = Bench(estimate, journal=journal, screening=screening, show=shown.append)
        found = bench(architectures(3, 0))
        assert [e.images for e in journal.values()] == [10, 10]
    assert [e.score for e in shown] == [0.5, 0.5]
    assert found == list(bench.known.values())
    assert {e.architecture for e in found if e.images == 100} == set(exact.measured)
    assert screening.front == pareto_front(found)


def test_an_evaluation_of_another_network_than_was_asked_for_is_noticed():
    bench = Bench(lambda batch: [evaluation(a) for a in reversed(batch)])
    with pytest.raises(AssertionError, match="out of order"):
        bench(architectures(1, 2))


@pytest.mark.parametrize(("size", "together"), [(2, 16), (3, 24)])
def test_several_processes_measure_their_part_of_as_many_as_they_tell_at_once(
    size, together, monkeypatch
):
    batch = [Architecture(SMALL, (i // 20, i // 4 % 5, i % 4)) for i in range(40)]
    told = []

    def spread(rows, when):
        told.append(len(rows))
        part = batch[together * (len(told) - 1) :][:together]
        return [evaluation(a).record() for a in part]

    monkeypatch.setattr(module, "size", lambda: size)
    monkeypatch.setattr(module, "mine", lambda work: work[1::size])
    monkeypatch.setattr(module, "spread", spread)
    recorder = Recorder()
    assert Bench(recorder)(batch) == [evaluation(a) for a in batch]
    assert recorder.batches == [
        batch[start : start + together][1::size] for start in range(0, 40, together)
    ]
    assert told == list(map(len, recorder.batches))
