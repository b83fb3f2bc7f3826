"""How long calls take on a machine that does other things beside: in turn, as medians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

WARM_UPS = 2
"""Calls before each time that is taken: what another network left in the caches is gone then."""

SHORTEST = 100_000
"""Nanoseconds that are timed at once, at least, so that reading the clock does not count."""

MOST_CALLS = 20
"""So often at most is something called for one time."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """How long one call takes, in nanoseconds.

    Args:
        median: Of all rounds.
        lower: The lower quartile.
        upper: The upper quartile.
    """

    median: int
    lower: int
    upper: int

    @property
    def spread(self) -> float:
        """The distance of the quartiles over the median."""
        return (self.upper - self.lower) / max(self.median, 1)

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Times:
        """Those of the times of all rounds."""
        lower, median, upper = np.quantile(rounds, (0.25, 0.5, 0.75))
        return cls(round(median), round(lower), round(upper))


def in_turn(calls: Sequence[Call], rounds: int, clock: Callable[[], int]) -> list[Times]:
    """Time calls in turn, so that what the machine does beside meets all of them alike.

    Args:
        calls: What is timed.
        rounds: So often each of them has its turn.
        clock: Nanoseconds of a clock that never goes back.

    Returns:
        The times of each call.
    """
    often = [_often(call, clock) for call in calls]
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, number, times in zip(calls, often, found, strict=True):
            for _ in range(WARM_UPS):
                call()
            times.append(_timed(call, number, clock))
    return [Times.of(times) for times in found]


def _often(call: Call, clock: Callable[[], int]) -> int:
    """How often something is called for one time; what it prepares at first is over then."""
    for _ in range(WARM_UPS):
        call()
    once = max(_timed(call, 1, clock), 1)
    return min(ceil(SHORTEST / once), MOST_CALLS)


def _timed(call: Call, number: int, clock: Callable[[], int]) -> float:
    start = clock()
    for _ in range(number):
        call()
    return (clock() - start) / number
