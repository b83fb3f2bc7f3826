"""The Pareto front of a run: its networks, inside the range of costs asked for and outside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from boundnas.data import Samples
from boundnas.errors import RunError
from boundnas.search.genetic import pareto_front
from boundnas.search.journal import Evaluation
from boundnas.space import Architecture
from boundnas.store.classes import ClassResult
from boundnas.store.records import Metric, Ranges, lies_inside, nearest, said_ranges
from boundnas.store.times import said_amount
from boundnas.task import Task
from boundnas.typed import checked


@dataclass(frozen=True)
class FrontNetwork:
    """One network of the front.

    Args:
        arch: The architecture with its BatchNorm statistics: ready to extract.
        costs: Its costs by name, each in its own unit: ``macs`` of one image, ``parameters``, and
            that of the run, if it is another.
        validation: The score that it was selected by; higher is better.
        test: That on test data, measured once, after the selection.
        metric: What both scores are.
    """

    arch: Architecture
    costs: Mapping[str, int]
    validation: float
    test: float
    metric: Metric

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.costs["macs"]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.costs["parameters"]

    def __str__(self) -> str:
        costs = ", ".join(
            f"{said_amount(n, cost)} {'MACs' if n == 'macs' else n}"
            for n, cost in self.costs.items()
        )
        scores = (
            f"{self.metric.shown(self.validation)} validation, {self.metric.shown(self.test)} test"
        )
        return f"{costs}: {self.metric.name} {scores}"

    def to_json(self) -> dict[str, Any]:
        """What is written of it, the architecture's values by name."""
        return {
            "architecture": self.arch.values,
            "costs": dict(self.costs),
            "validation": self.validation,
            "test": self.test,
        }


@dataclass(frozen=True)
class Front:
    """What validation data selects, in ascending cost; test data drops and reorders nothing.

    Args:
        ranges: What they trade the score for: costs by name, each with the range that was searched
            for in its own unit.
        networks: Those inside all ranges, which no other inside dominates on validation data.
        outside: Those outside one of them that no other at all dominates.
        classes: Images and test scores of each class, where the metric is a mean over images.
        task: What they were measured by; none where it was read from records alone.
    """

    ranges: Ranges
    networks: tuple[FrontNetwork, ...]
    outside: tuple[FrontNetwork, ...]
    classes: tuple[ClassResult, ...] = ()
    task: Task | None = field(default=None, repr=False, compare=False)

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the costs that are known of every network."""
        return tuple((*self.networks, *self.outside)[0].costs)

    @property
    def metric(self) -> Metric:
        """What the scores of all its networks are."""
        return (*self.networks, *self.outside)[0].metric

    @checked
    def best(self, **limits: float) -> FrontNetwork:
        """The network inside the range with the best validation score within a budget.

        Args:
            limits: Most of each cost, by its name and in what ``cost(arch)`` counts:
                ``best(macs=5e6)``, ``best(parameters=2e5, latency=8e6)`` for 8 ms.

        Raises:
            RunError: No network inside the range is that small, or there is none inside it, or
                there is no such cost.
        """
        unknown = sorted(limits.keys() - set(self.costs))
        if unknown:
            raise RunError(
                f"this front has no cost {', '.join(unknown)}; it has {', '.join(self.costs)}"
            )
        none = [name for name, limit in limits.items() if limit != limit]
        if none:
            raise RunError(f"the limit of {none[0]} is not a number (nan)")
        if not self.networks:
            raise RunError(self.nothing_inside())
        within = [
            network
            for network in self.networks
            if all(network.costs[name] <= limit for name, limit in limits.items())
        ]
        if not within:
            asked = " and ".join(f"{said_amount(n, limit)} {n}" for n, limit in limits.items())
            smallest = {name: min(n.costs[name] for n in self.networks) for name in self.costs}
            raise RunError(
                f"no network of the front has at most {asked}; the smallest has "
                + " and ".join(f"{said_amount(n, least)} {n}" for n, least in smallest.items())
            )
        return max(within, key=attrgetter("validation"))

    def nothing_inside(self) -> str:
        """What to say where no network lies inside the range, and which is the nearest."""
        near = nearest(self.outside, self.ranges).costs
        return (
            f"no network that was measured lies inside the range asked for, "
            f"{said_ranges(self.ranges)}; the nearest of the front, outside it, has "
            + " and ".join(f"{said_amount(name, near[name])} {name}" for name in self.ranges)
            + "; search longer, or train for another range"
        )

    def folder(self, network: FrontNetwork) -> str:
        """Where a network of the front is exported to, within the run folder."""
        return "networks/" + "-".join(str(network.costs[name]) for name in self.ranges)

    def to_json(self) -> dict[str, Any]:
        """JSON-able object for ``front.json``."""
        return {
            "metric": self.metric.model_dump(),
            "ranges": dict(self.ranges),
            "networks": [{**n.to_json(), "folder": self.folder(n)} for n in self.networks],
            "outside": [n.to_json() for n in self.outside],
            "classes": [result.model_dump() for result in self.classes],
        }


def class_results(
    data: Samples, by_class: Sequence[Sequence[float | None]]
) -> tuple[ClassResult, ...]:
    """What is known of each class.

    Args:
        data: What was trained on.
        by_class: The score of each class by each network; of no class where there is none.
    """
    if data.classes is None or not all(by_class) or (counts := data.counts) is None:
        return ()
    rows = zip(data.classes, *counts.values(), *by_class, strict=True)
    return tuple(
        ClassResult(name=name, train=train, validation=validation, test=test, scores=tuple(scores))
        for name, train, validation, test, *scores in rows
    )


def selected(evaluations: Iterable[Evaluation], ranges: Ranges) -> list[Evaluation]:
    """What validation data selects, in ascending cost.

    Args:
        evaluations: Of different architectures.
        ranges: What the score is traded for, each cost with the range asked for.

    Returns:
        Of those inside the ranges what no other inside dominates, as a cheaper network outside
        must not hide one that was asked for; of those outside what no other at all dominates.
    """
    found, costs = list(evaluations), tuple(ranges)
    inside = pareto_front([e for e in found if lies_inside(e.costs, ranges)], costs)
    outside = [e for e in pareto_front(found, costs) if not lies_inside(e.costs, ranges)]
    return sorted([*inside, *outside], key=lambda e: [e.costs[name] for name in costs])
