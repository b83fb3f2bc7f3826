"""What the lines say: the true front, and how far bounds and supernets agree with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from boundnas.errors import RunError
from boundnas.search.pareto import chosen, mean_over_log_cost, non_dominated
from studies.truth.measured import ALONE, BOUNDS, INHERITED, Network, rows
from studies.truth.space import Setting

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
SPLITS = ("validation", "test")
BUDGETS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Places in the cost range, in the logarithm."""

FEWEST = 10
"""A rank correlation of fewer networks is not told."""


@dataclass(frozen=True)
class Truth:
    """All networks alone.

    Args:
        networks: An index for each dimension.
        macs: Of each network.
        validation: Scores of each seed, shape ``(seeds, networks)``.
        test: Likewise.
        cost_range: Least and most MACs that networks are wanted for.
    """

    networks: Sequence[Network]
    macs: Numbers
    validation: Numbers
    test: Numbers
    cost_range: tuple[float, float]

    @classmethod
    def read(cls, setting: Setting, out: Path) -> Truth:
        """From the lines of every seed that is whole.

        Raises:
            RunError: None is.
        """
        networks = setting.networks
        held: dict[int, dict[Network, Any]] = {}
        for row in rows(out / ALONE):
            held.setdefault(row["seed"], {})[tuple(row["network"])] = row
        whole = [found for _, found in sorted(held.items()) if len(found) == len(networks)]
        if not whole:
            raise RunError(
                f"{out / ALONE}: holds no seed of which all {len(networks)} networks were trained; "
                "run the study on"
            )
        validation, test = (
            np.array([[found[n][split] for n in networks] for found in whole]) for split in SPLITS
        )
        macs = np.array([whole[0][n]["macs"] for n in networks], np.float64)
        return cls(networks, macs, validation, test, setting.cost_range)

    @cached_property
    def wanted(self) -> Mask:
        """Which networks lie inside the cost range."""
        lower, upper = self.cost_range
        return (self.macs >= lower) & (self.macs <= upper)

    @cached_property
    def front(self) -> list[int]:
        """The true front: of those, what no other dominates on validation data, mean of seeds."""
        inside = self.wanted.nonzero()[0]
        kept = non_dominated(self.macs[inside, None].tolist(), self.mean[inside].tolist())
        return [int(inside[i]) for i in kept]

    @property
    def mean(self) -> Numbers:
        """Validation score of each network, mean of the seeds."""
        return self.validation.mean(0)

    def within(self, allowed: Sequence[Sequence[int]]) -> Mask:
        """Which networks bounds hold."""
        each = zip(allowed, np.array(self.networks).T, strict=True)
        return np.logical_and.reduce([np.isin(column, options) for options, column in each])

    def recall(self, bounds: Mask) -> float:
        """Share of the true front that bounds hold."""
        return fmean(bounds[self.front].tolist())

    def score(self, validation: Numbers, test: Numbers, bounds: Mask) -> float:
        """Test score of what validation chooses within bounds, mean over log cost."""
        costs, chooses, tells = (part[bounds].tolist() for part in (self.macs, validation, test))
        return mean_over_log_cost(costs, chooses, tells, *self.cost_range)

    def at(self, validation: Numbers, bounds: Mask) -> list[float | None]:
        """Test score alone of what validation chooses within bounds, at each budget."""
        lower, upper = self.cost_range
        costs, scores = self.macs[bounds].tolist(), validation[bounds].tolist()
        budgets = [lower * (upper / lower) ** part for part in BUDGETS]
        found = [chosen(costs, scores, budget, lower) for budget in budgets]
        test = self.test.mean(0)[bounds]
        return [None if i is None else float(test[i]) for i in found]

    def tau(self, validation: Numbers, bounds: Mask) -> float | None:
        """Kendall's rank correlation of validation scores with the test scores of each seed alone.

        Mean over these seeds; none of fewer networks than `FEWEST`.
        """
        if bounds.sum() < FEWEST:
            return None
        each = [kendalltau(validation[bounds], test[bounds]).statistic for test in self.test]
        return fmean(map(float, each))

    def ceiling(self, bounds: Mask) -> float | None:
        """The same of one seed alone with another, mean over pairs; none of a single seed."""
        pairs = list(itertools.permutations(range(len(self.test)), 2))
        if not pairs or bounds.sum() < FEWEST:
            return None
        found = (kendalltau(self.validation[a][bounds], self.test[b][bounds]) for a, b in pairs)
        return fmean(float(each.statistic) for each in found)


def boxes(setting: Setting) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All bounds there are: an interval of options of each dimension."""
    return itertools.product(*(list(intervals(len(v))) for v in setting.options.values()))


def intervals(number: int) -> Iterator[tuple[int, ...]]:
    """All runs of options that stand side by side."""
    for first in range(number):
        for last in range(first, number):
            yield tuple(range(first, last + 1))


def by_chance(truth: Truth, every: Sequence[Mask], bounds: Mask) -> dict[str, float]:
    """Recall of other bounds of the same number of networks: all there are, without a draw.

    Args:
        truth: The networks alone.
        every: What all bounds of the space hold.
        bounds: Those that are compared with others.

    Returns:
        ``recall``, the mean over all bounds that hold as many networks, and ``useful``, that over
        those of them with as many or more in the cost range; ``as_good``, the share of these
        that have at least the recall of ``bounds``.
    """
    same = [box for box in every if box.sum() == bounds.sum()]
    least = (bounds & truth.wanted).sum()
    useful = [box for box in same if (box & truth.wanted).sum() >= least]
    recalls = list(map(truth.recall, useful))
    return {
        "recall": fmean(map(truth.recall, same)),
        "useful": fmean(recalls),
        "as_good": fmean(recall >= truth.recall(bounds) for recall in recalls),
    }


def numbers(setting: Setting, out: Path) -> dict[str, Any]:
    """Everything that is told, as JSON.

    Raises:
        RunError: No seed of networks alone is whole.
    """
    truth = Truth.read(setting, out)
    everything = np.ones(len(truth.networks), bool)
    regions = {"whole": everything, "range": truth.wanted}
    every = list(map(truth.within, boxes(setting)))
    return {
        "seeds": len(truth.test),
        "wanted": int(truth.wanted.sum()),
        "front": [
            {
                "network": setting.values(truth.networks[i]),
                "macs": truth.macs[i],
                "validation": float(truth.mean[i]),
                "test": float(truth.test.mean(0)[i]),
            }
            for i in truth.front
        ],
        "score": truth.score(truth.mean, truth.test.mean(0), everything),
        "at": truth.at(truth.mean, everything),
        "ceiling": {name: truth.ceiling(mask) for name, mask in regions.items()},
        "supernets": [
            {**which, **of_supernet(truth, every, out, which)}
            for which in measured_supernets(setting, out)
        ],
    }


def measured_supernets(setting: Setting, out: Path) -> list[dict[str, Any]]:
    """Those in which every network was measured."""
    found: dict[tuple[str, int, int], int] = {}
    for row in rows(out / INHERITED):
        key = row["supernet"], row["length"], row["seed"]
        found[key] = found.get(key, 0) + 1
    whole = [key for key, number in found.items() if number == len(setting.networks)]
    return [dict(zip(("supernet", "length", "seed"), key, strict=True)) for key in whole]


def of_supernet(
    truth: Truth, every: Sequence[Mask], out: Path, which: Mapping[str, Any]
) -> dict[str, Any]:
    """What one supernet and its bounds are worth."""
    bounds = truth.within(allowed(out, which))
    found = {tuple(row["network"]): row for row in rows(out / INHERITED, **which)}
    validation, test = (np.array([found[n][s] for n in truth.networks]) for s in SPLITS)
    alone = truth.test.mean(0)
    regions = {"whole": np.ones_like(bounds), "range": truth.wanted, "bounds": bounds}
    for kind in ("clipped", "learned"):
        beside = {**which, "supernet": kind}
        if rows(out / BOUNDS, **beside):
            regions[kind] = truth.within(allowed(out, beside))
    return {
        "networks": int(bounds.sum()),
        "wanted": int((bounds & truth.wanted).sum()),
        "allowed": allowed(out, which),
        "recall": truth.recall(bounds),
        "by_chance": by_chance(truth, every, bounds),
        "alone": truth.score(validation, alone, bounds),
        "inherited": truth.score(validation, test, bounds),
        "best_inside": truth.score(truth.mean, alone, bounds),
        "at": truth.at(validation, bounds),
        "tau": {name: truth.tau(validation, mask) for name, mask in regions.items()},
        "ceiling": {name: truth.ceiling(mask) for name, mask in regions.items()},
    }


def allowed(out: Path, which: Mapping[str, Any]) -> list[list[int]]:
    """The options that a supernet ended with."""
    options: list[list[int]] = rows(out / BOUNDS, **which)[0]["allowed"]
    return options
