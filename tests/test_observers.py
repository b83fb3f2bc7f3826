"""Observers: told of every event in order, and never able to change a run."""

import json
import logging
from itertools import pairwise

import pytest
from tests.small import COST_RANGE, few_digits, files, mobilenet

from boundnas import SearchSettings, TrainSettings, fit, search
from boundnas.fit.observers import Observer, TensorBoard
from boundnas.store.folder import RunFolder

SEARCH = SearchSettings(initial=6, rounds=1, crossovers=2, mutations=2, calibration_images=64)
EVENTS = ("begin", "step", "checkpoint", "candidate", "front")
TRAINING = {"begin", "step", "checkpoint"}


class Notes(Observer):
    """Writes down every event."""

    def __init__(self):
        self.heard = []

    def begin(self, run, step):
        self.heard.append(("begin", step))

    def step(self, row):
        self.heard.append(("step", row))

    def checkpoint(self, step):
        self.heard.append(("checkpoint", step))

    def candidate(self, evaluation):
        self.heard.append(("candidate", evaluation))

    def front(self, front):
        self.heard.append(("front", front))

    def of(self, event):
        return [about for name, about in self.heard if name == event]


class Failing(Notes):
    """Fails at one event, the first time."""

    def __init__(self, event):
        super().__init__()
        setattr(self, event, self.fail)

    def fail(self, *_):
        self.heard.append(("failed", None))
        raise KeyError("a user's mistake")


def run(path, observers=(), settings=SEARCH, steps=6):
    train = TrainSettings(steps=steps, batch_size=16, checkpoint_every=2)
    folder = RunFolder.create(path, "name: observed\n")
    trained = fit(
        mobilenet(),
        few_digits(),
        cost_range=COST_RANGE,
        settings=train,
        folder=folder,
        observers=observers,
    )
    return trained, search(trained, settings, observers)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The files of a run without observers."""
    path = tmp_path_factory.mktemp("alone") / "run"
    run(path)
    return files(path)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_event_is_told_in_order(tmp_path):
    notes = Notes()
    trained, front = run(tmp_path / "run", [notes])
    assert [name for name, _ in notes.heard[:9]] == [
        *("begin", "step", "step", "checkpoint"),
        *("step", "step", "checkpoint", "step", "step"),
    ]
    assert notes.of("begin") == [0]
    assert notes.of("checkpoint") == [2, 4, 6]
    assert [row["step"] for row in notes.of("step")] == list(range(6))
    assert [row["loss_max"] for row in notes.of("step")] == [r["loss_max"] for r in trained.metrics]
    journal = rows(tmp_path / "run" / "search" / "evaluations.jsonl")
    measured = [row["score"] for row in journal if "score" in row]
    assert [evaluation.score for evaluation in notes.of("candidate")] == measured
    assert notes.of("front") == [front]
    assert notes.heard[-1][0] == "front"


def test_a_screened_search_tells_of_its_estimates(tmp_path):
    notes = Notes()
    run(tmp_path / "run", [notes], SEARCH.model_copy(update={"screen": 0.25}))
    images = {evaluation.images for evaluation in notes.of("candidate")}
    assert len(images) == 2, "the first candidates are measured, the others estimated"


def test_a_run_that_goes_on_tells_of_what_follows(tmp_path):
    first, second = Notes(), Notes()
    run(tmp_path / "run", [first])
    run(tmp_path / "run", [second])
    assert second.of("begin") == [6]
    assert second.of("step") == second.of("checkpoint") == []
    assert second.of("candidate") == first.of("candidate"), "read from the journal"


@pytest.mark.parametrize("event", EVENTS)
def test_an_observer_that_fails_is_named_and_changes_nothing(tmp_path, caplog, alone, event):
    failing, notes = Failing(event), Notes()
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "observed", [failing, notes])
    heard = [name for name, _ in failing.heard]
    later = set(heard[heard.index("failed") + 1 :])
    told = TRAINING if event in TRAINING else {"candidate", "front"}
    assert later.isdisjoint(told | {"failed"}), "it is told nothing more of this work"
    said = [r for r in caplog.records if "Failing" in r.getMessage()]
    assert [r.getMessage() for r in said] == [
        f"Failing failed at {event} and is told nothing more; the work goes on"
    ]
    assert "a user's mistake" in caplog.text
    assert {name for name, _ in notes.heard} == set(EVENTS), "the others are told"
    assert files(tmp_path / "observed") == alone


def test_tensorboard_reads_what_was_told(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained, front = run(tmp_path / "run", [TensorBoard(tmp_path / "events")])
    events = accumulator.EventAccumulator(str(tmp_path / "events")).Reload()
    losses = events.Scalars("train/loss_max")
    assert [e.step for e in losses] == list(range(6))
    assert [e.value for e in losses] == pytest.approx([r["loss_max"] for r in trained.metrics])
    costs = [e.value for e in events.Scalars("train/cost_max macs")]
    assert costs == [row["cost_max"]["macs"] for row in trained.metrics]
    candidates = events.Scalars("search/score")
    assert all(a.step + 1 == b.step for a, b in pairwise(candidates))
    assert max(n.validation for n in (*front.networks, *front.outside)) == pytest.approx(
        max(e.value for e in candidates)
    )
