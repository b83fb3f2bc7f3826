"""From a trained run to its Pareto front, re-measured on test data (App. A.3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from boundnas.cost import Cost
from boundnas.cost.budget import CostRange
from boundnas.engine.progress import Progress
from boundnas.engine.ranks import agree, mine, rank, spread, wait
from boundnas.engine.tuning import tune
from boundnas.fit import identity
from boundnas.fit.identity import Identity
from boundnas.fit.observers import Audience, Bar, Observer
from boundnas.fit.run import Run
from boundnas.randomness import stream
from boundnas.search.bench import Bench, Name
from boundnas.search.canonical import Canonical
from boundnas.search.evaluator import Evaluator, judged_by
from boundnas.search.genetic import genetic_search, population
from boundnas.search.journal import Evaluation, Journal
from boundnas.search.kept import hold
from boundnas.search.networks import Front, FrontNetwork, class_results, selected
from boundnas.search.origin import of_evaluations, of_front
from boundnas.search.sampled import sampled_search
from boundnas.search.screening import PILOTS, Sample, Screening
from boundnas.search.wanted import measured_by, wanted
from boundnas.search.workers import Judged
from boundnas.settings import SearchSettings
from boundnas.space import Allowed, Architecture
from boundnas.store.files import canonical_json, find_bytes, set_aside, write_text
from boundnas.store.folder import RunFolder
from boundnas.store.lines import read_jsonl
from boundnas.store.records import FrontRecord, lies_inside
from boundnas.task import Task
from boundnas.typed import checked

_log = logging.getLogger(__name__)


@checked
def search(
    run: Run,
    settings: SearchSettings | None = None,
    observers: Sequence[Observer] = (),
    *,
    cost_range: CostRange | Sequence[CostRange] | None = None,
    cost: Cost | Sequence[Cost] | None = None,
    task: Task | None = None,
) -> Front:
    """Find the Pareto front of a trained run and measure it on its test data.

    The genetic search of App. A.3, or another method, selects on validation data; with
    ``settings.screen`` on estimates, and what by them would be on the front is measured on all of
    it. What was measured is kept in the run's folder, if it has one, and a search that was
    interrupted there continues.

    Args:
        run: What `boundnas.fit` or `boundnas.open` returned.
        settings: By default those of the run's configuration, or of the paper.
        observers: Told of every candidate as it comes, and of the front.
        cost_range: The range of costs that networks are wanted for now, in the cost's own unit; of
            several costs a list. By default what the run was trained for. Weights and learned
            boundaries stay as they are; a front of other ranges or costs that is in the run's
            folder is set aside under another name.
        cost: Other costs than the run was trained for, each with its range.
        task: What networks are measured by now, without training anew: a task of the same outputs
            and targets with another metric. By default that of the run. Its front is set aside as
            that of other costs is, and so is its journal.

    Returns:
        The front; test data was used for nothing but its last column.

    Raises:
        CostError: No network between the learned boundaries lies in the range asked for, or in
            the space; or a cost is of another model, or has no range.
        TaskError: The task takes outputs for something else than they were trained to be.
        DataError: The task's targets are others than those of the data.
        RunError: The folder's journal is damaged or was edited. One that was measured with other
            weights, data or settings is set aside under another name, with a warning in the log.
        RankError: Another of several processes is about to search something else, or is gone.
    """
    tune()
    settings = settings or run.searching
    run = measured_by(wanted(run, settings, cost, cost_range), task)
    agree(partial(_described, run, settings), "before the search")
    evaluator = Evaluator(run.model, run.data, settings, run.seed, run.costs, run.task)
    audience = Audience(observers)
    with _opened(run, settings, evaluator, audience) as bench:
        _find(run, settings, bench)
    front = _tested(run, evaluator, _selected(run, bench.known.values()))
    if run.folder is not None and rank() == 0:
        _keep(front, run.folder, of_front(run, settings))
    hold(run, front)
    audience.tell("front", front)
    return front


def _tested(run: Run, evaluator: Evaluator, found: Sequence[Evaluation]) -> Front:
    """The front that was selected, measured on test data."""
    metric = evaluator.metric

    def network(evaluation: Evaluation) -> tuple[FrontNetwork, tuple[float | None, ...]]:
        arch = evaluator.calibrated(evaluation.architecture)
        test, by_class = evaluator.tested(arch)
        return FrontNetwork(arch, evaluation.costs, evaluation.score, test, metric), by_class

    ranges = run.ranges
    tested = []
    with Progress(len(found), "test", unit="network") as progress:
        for measured in evaluator.each(network, found):
            tested.append(measured)
            progress.advance(**{metric.name: metric.shown(measured[0].test)})
    inside = [each for each in tested if lies_inside(each[0].costs, ranges)]
    outside = [each for each in tested if not lies_inside(each[0].costs, ranges)]
    classes = class_results(run.data, [by_class for _, by_class in (*inside, *outside)])
    networks, others = (tuple(network for network, _ in part) for part in (inside, outside))
    return Front(ranges, networks, others, classes, run.task)


def _keep(front: Front, folder: RunFolder, found_with: Identity) -> None:
    """Write a front with what it was found with; another one that is there is set aside."""
    journal = read_jsonl(folder.evaluations, folder.held)[-1]["sum"]
    record = FrontRecord(identity=found_with, journal=journal, **front.to_json())
    text = canonical_json(record.written())
    with folder.locked():
        there = find_bytes(folder.front, held=folder.held)
        if there is not None and there != text.encode():
            aside = set_aside(folder.front, folder.held)
            _log.warning("%s: another front was there; it is kept as %s", folder.front, aside.name)
        write_text(folder.front, text, folder.held)


def _described(run: Run, settings: SearchSettings) -> identity.Identity:
    """What all processes must share that search together."""
    path = None if run.folder is None else run.folder.path
    return {
        "at work": "searching",
        **identity.of_settings(settings, "search"),
        **identity.of_task(run.task),
        **identity.of_policies(run.boundaries),
        **identity.of_run(run.model, run.data, run.budgets, run.seed, path),
    }


@contextmanager
def _opened(
    run: Run, settings: SearchSettings, evaluator: Evaluator, audience: Audience
) -> Iterator[Bench]:
    """The bench of a search, with its journals open."""
    name = Canonical(run.model, _allowed(run, settings), evaluator.costs.values())
    screen = None if settings.screen is None else _screen(run, settings, evaluator, name)
    journal = partial(_journal, run, settings, evaluator)
    with (
        journal("evaluations", estimated=screen is not None) as evaluations,
        Progress(_total(settings), "search", unit="network") as progress,
        audience.joined(Bar(progress, evaluator.metric)),
        ExitStack() as stack,
    ):
        measure, screening = stack.enter_context(evaluator.measuring(screen)), None
        if screen is not None:
            finalists = stack.enter_context(journal("finalists", estimated=False))
            measured = Bench(stack.enter_context(evaluator.measuring()), journal=finalists)
            screening = Screening(measured, partial(_selected, run), len(run.data.validation))
        show = partial(audience.tell, "candidate")
        yield Bench(measure, name=name, journal=evaluations, screening=screening, show=show)


@contextmanager
def _journal(
    run: Run, settings: SearchSettings, evaluator: Evaluator, name: str, *, estimated: bool
) -> Iterator[Journal | None]:
    """A journal of the run's folder, if it has one, which the first process writes."""
    if run.folder is None:
        yield None
        return
    path: Path = getattr(run.folder, name)
    identity = of_evaluations(run, settings, estimated)
    writes, space = rank() == 0, run.model.space
    known = evaluator.costs, evaluator.metric
    with (
        run.folder.locked() if writes else nullcontext(),
        Journal(path, space, identity, *known, writes, run.folder.held) as journal,
    ):
        wait("before the search")  # until all have read the journal
        yield journal


def _screen(
    run: Run, settings: SearchSettings, evaluator: Evaluator, name: Name
) -> Callable[[Architecture], Judged]:
    """Estimates the accuracy of an architecture from images that the first candidates choose."""
    pilots = _pilots(run, settings, evaluator, name)
    exact = {arch: judged_by(correct) for arch, correct in pilots.items()}
    size = math.ceil(float(settings.screen or 0) * len(run.data.validation))
    generator = stream(run.seed, "search/screening")
    sample = Sample.draw(torch.stack(list(pilots.values())), size, generator)
    return lambda arch: exact.get(arch) or evaluator.screened(arch, sample)


def _pilots(
    run: Run, settings: SearchSettings, evaluator: Evaluator, name: Name
) -> dict[Architecture, Tensor]:
    """The first candidates, and which validation images each of them classifies correctly."""
    extremes, allowed = _extremes(run, settings), _allowed(run, settings)
    first = list(population(run.model.space, extremes, allowed, PILOTS, run.seed, name))
    validated = evaluator.each(evaluator.validated, mine(first))
    correct = spread([images.tolist() for images in validated], "in the search")
    return dict(zip(first, map(torch.tensor, correct), strict=True))


def _extremes(run: Run, settings: SearchSettings) -> tuple[Architecture, Architecture]:
    if settings.bounds == "learned":
        return run.boundaries.max.mode, run.boundaries.min.mode
    return run.model.space.largest, run.model.space.smallest


def _allowed(run: Run, settings: SearchSettings) -> Allowed:
    return run.allowed if settings.bounds == "learned" else run.model.space.whole


def _total(settings: SearchSettings) -> int:
    return settings.initial + settings.rounds * (settings.crossovers + settings.mutations)


def _find(run: Run, settings: SearchSettings, bench: Bench) -> None:
    """Measure what the chosen method draws."""
    largest, smallest = _extremes(run, settings)
    find = partial(
        genetic_search,
        initial=settings.initial,
        rounds=settings.rounds,
        crossovers=settings.crossovers,
        mutations=settings.mutations,
        mutation_probability=settings.mutation_probability,
    )
    if settings.method != "genetic":
        total, population = _total(settings), settings.initial
        find = partial(sampled_search, method=settings.method, total=total, population=population)
    find(
        bench,
        costs=list(run.ranges),
        largest=largest,
        smallest=smallest,
        allowed=_allowed(run, settings),
        seed=run.seed,
    )


def _selected(run: Run, evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    return selected(evaluations, run.ranges)
