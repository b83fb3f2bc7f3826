"""From a trained run to its Pareto front, re-measured on test data (App. A.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boundnas.calibrate import CalibratedArchitecture
from boundnas.errors import RunError
from boundnas.pareto import non_dominated
from boundnas.progress import Progress
from boundnas.randomness import stream
from boundnas.ranks import mine, rank, spread, wait
from boundnas.search.evaluator import Evaluator
from boundnas.search.genetic import (
    Evaluate,
    genetic_search,
    journalled,
    population,
    shared,
)
from boundnas.search.journal import Evaluation, Journal
from boundnas.search.sampled import sampled_search
from boundnas.search.screening import PILOTS, Sample, Screening
from boundnas.settings import SearchSettings
from boundnas.space import Allowed, Architecture
from boundnas.train import Run


@dataclass(frozen=True)
class FrontNetwork:
    """One network of the front.

    Args:
        arch: The architecture with its BatchNorm statistics: ready to extract.
        costs: Its costs by name, each in its own unit: ``macs`` of one image, ``parameters``, and
            that of the run, if it is another.
        validation_accuracy: What it was selected by, 0 to 1.
        test_accuracy: Measured once, after the selection.
    """

    arch: CalibratedArchitecture
    costs: Mapping[str, int]
    validation_accuracy: float
    test_accuracy: float

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.costs["macs"]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.costs["parameters"]

    def to_json(self) -> dict[str, Any]:
        """JSON-able object with the architecture's values by name."""
        return {
            "architecture": self.arch.values,
            "costs": dict(self.costs),
            "validation_accuracy": self.validation_accuracy,
            "test_accuracy": self.test_accuracy,
        }


@dataclass(frozen=True)
class Front:
    """The networks that no other dominates, in ascending cost.

    Args:
        cost: Name of what they trade accuracy for: ``"macs"``, ``"parameters"`` or a cost of one's
            own.
        networks: Not dominated on validation data, nor by one another on test data.
        dominated_on_test: Selected as well, but on test data a cheaper one is at least as good.
    """

    cost: str
    networks: tuple[FrontNetwork, ...]
    dominated_on_test: tuple[FrontNetwork, ...]

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the costs that are known of every network."""
        return tuple(self.networks[0].costs)

    def best(self, **limits: float) -> FrontNetwork:
        """The network with the best validation accuracy within a budget.

        Args:
            limits: Most of each cost, by its name and in its own unit: ``best(macs=5e6)``,
                ``best(parameters=2e5, latency=8)``.

        Raises:
            RunError: No network of the front is that small, or there is no such cost.
        """
        smallest = {name: min(n.costs[name] for n in self.networks) for name in self.costs}
        unknown = sorted(limits.keys() - smallest)
        if unknown:
            raise RunError(
                f"this front has no cost {', '.join(unknown)}; it has {', '.join(smallest)}"
            )
        within = [
            network
            for network in self.networks
            if all(network.costs[name] <= limit for name, limit in limits.items())
        ]
        if not within:
            asked = " and ".join(f"{limit:,.0f} {name}" for name, limit in limits.items())
            raise RunError(
                f"no network of the front has at most {asked}; the smallest has "
                + " and ".join(f"{least:,} {name}" for name, least in smallest.items())
            )
        return max(within, key=attrgetter("validation_accuracy"))

    def folder(self, network: FrontNetwork) -> str:
        """Where a network of the front is exported to, within the run folder."""
        return f"networks/{network.costs[self.cost]}"

    def to_json(self, cost_range: tuple[float, float], exported: bool = True) -> dict[str, Any]:
        """JSON-able object for ``front.json``.

        Args:
            cost_range: That of the run, in the cost's own unit.
            exported: Whether the networks are written to their folders.
        """
        return {
            "cost_metric": self.cost,
            "cost_range": list(cost_range),
            "networks": [
                {**n.to_json(), "folder": self.folder(n) if exported else None}
                for n in self.networks
            ],
            "dominated_on_test": [n.to_json() for n in self.dominated_on_test],
        }


def search(run: Run, settings: SearchSettings | None = None) -> Front:
    """Find the Pareto front of a trained run and measure it on its test data.

    The genetic search of App. A.3, or another method, selects on validation data; with
    ``settings.screen`` on estimates, and what by them would be on the front is measured on all of
    it. What was measured is kept in the run's folder, if it has one, and a search that was
    interrupted there continues.

    Args:
        run: What `boundnas.fit` returned.
        settings: By default those of the paper.

    Returns:
        The front; test data was used for nothing but its last column and for dropping
        networks that it shows to be dominated.

    Raises:
        RunError: The folder's journal is damaged or of another space.
    """
    settings = settings or SearchSettings()
    cost = run.sandwich.cost.name
    evaluator = Evaluator(run.model, run.data, settings, run.sandwich.seed, run.sandwich.cost)
    if settings.screen is None:
        with (
            _measured(run, evaluator, evaluator, "evaluations") as measure,
            _progress(settings) as progress,
        ):
            found = _found(run, settings, measure, progress)
    else:
        found = _screened(run, settings, evaluator)

    def network(evaluation: Evaluation) -> FrontNetwork:
        arch = evaluator.calibrated(evaluation.architecture)
        accuracy = evaluator.accuracy(arch, run.data.test)
        return FrontNetwork(arch, evaluation.costs, evaluation.accuracy, accuracy)

    networks = list(evaluator.each(network, found))
    kept = non_dominated([n.costs[cost] for n in networks], [n.test_accuracy for n in networks])
    return Front(
        cost,
        tuple(networks[i] for i in kept),
        tuple(n for i, n in enumerate(networks) if i not in kept),
    )


@contextmanager
def _measured(
    run: Run,
    evaluator: Evaluator,
    measure: Callable[[Architecture], Evaluation],
    journal: str,
) -> Iterator[Evaluate]:
    """``measure`` of batches, shared by the processes; what it has measured is in the folder."""
    evaluate = shared(partial(evaluator.each, measure))
    if run.folder is None:
        yield evaluate
        return
    path: Path = getattr(run.folder, journal)
    writes = rank() == 0
    with (
        run.folder.locked() if writes else nullcontext(),
        Journal(path, run.model.space, evaluator.costs, writes, run.folder.held) as kept,
    ):
        wait("before the search")  # until all have read the journal
        yield journalled(evaluate, kept)


def _screened(run: Run, settings: SearchSettings, evaluator: Evaluator) -> list[Evaluation]:
    """The front of a search that estimates accuracies, and measures what would be on the front."""
    pilots = _pilots(run, settings, evaluator)
    exact = {arch: evaluator.answered(arch, correct) for arch, correct in pilots.items()}
    images = len(run.data.validation)
    assert settings.screen is not None
    sample = Sample.draw(
        torch.stack(list(pilots.values())),
        math.ceil(settings.screen * images),
        stream(run.sandwich.seed, "search/screening"),
    )

    def screen(arch: Architecture) -> Evaluation:
        return exact.get(arch) or evaluator.screened(arch, sample)

    with (
        _measured(run, evaluator, screen, "evaluations") as estimate,
        _measured(run, evaluator, evaluator, "finalists") as measure,
        _progress(settings) as progress,
    ):

        def shown(batch: Sequence[Architecture]) -> Iterator[Evaluation]:
            for evaluation in estimate(batch):
                progress.advance(accuracy=evaluation.accuracy)
                yield evaluation

        screening = Screening(shown, measure, run.sandwich.cost.name, images)
        _found(run, settings, screening)
    return screening.front


def _pilots(run: Run, settings: SearchSettings, evaluator: Evaluator) -> dict[Architecture, Tensor]:
    """The first candidates, and which validation images each of them classifies correctly."""
    extremes, allowed = _extremes(run, settings), _allowed(run, settings)
    first = population(run.model.space, extremes, allowed, PILOTS, run.sandwich.seed)
    validated = evaluator.each(evaluator.validated, mine(first))
    correct = spread([images.tolist() for images in validated], "in the search")
    return dict(zip(first, map(torch.tensor, correct), strict=True))


def _extremes(run: Run, settings: SearchSettings) -> tuple[Architecture, Architecture]:
    if settings.bounds == "learned":
        return run.sandwich.max_policy.mode, run.sandwich.min_policy.mode
    return run.model.space.largest, run.model.space.smallest


def _allowed(run: Run, settings: SearchSettings) -> Allowed:
    return run.allowed if settings.bounds == "learned" else run.model.space.whole


def _progress(settings: SearchSettings) -> Progress:
    return Progress(_total(settings), "search", unit="network")


def _total(settings: SearchSettings) -> int:
    return settings.initial + settings.rounds * (settings.crossovers + settings.mutations)


def _found(
    run: Run, settings: SearchSettings, evaluate: Evaluate, progress: Progress | None = None
) -> list[Evaluation]:
    largest, smallest = _extremes(run, settings)
    if settings.method == "genetic":
        find = partial(
            genetic_search,
            initial=settings.initial,
            rounds=settings.rounds,
            crossovers=settings.crossovers,
            mutations=settings.mutations,
            mutation_probability=settings.mutation_probability,
        )
    else:
        find = partial(
            sampled_search,
            method=settings.method,
            total=_total(settings),
            population=settings.initial,
        )
    return find(
        run.model.space,
        evaluate,
        cost=run.sandwich.cost.name,
        largest=largest,
        smallest=smallest,
        allowed=_allowed(run, settings),
        seed=run.sandwich.seed,
        progress=progress,
    )
