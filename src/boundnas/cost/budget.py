"""What networks are wanted for: costs, each with its range."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple, cast

from torch import Tensor
from torch.nn import functional as F

from boundnas.cost.base import Cost
from boundnas.errors import CostError
from boundnas.randomness import stream
from boundnas.space import Architecture

_log = logging.getLogger(__name__)

CostRange = tuple[float, float]
"""Lowest and highest cost that networks are wanted for, in the cost's own unit."""

STARTS = 16
"""From so many architectures one inside several ranges is looked for."""


class Budget(NamedTuple):
    """A cost, and the range of it that networks are wanted for: ``g_L`` and ``g_U`` of Eq. 1."""

    cost: Cost
    range: CostRange

    def unused(self, cost: Tensor) -> Tensor:
        """How far a max network stays below the upper limit, as a part of it (Eq. 4): a hinge."""
        return F.relu(1 - cost / self.range[1])

    def excess(self, cost: Tensor) -> Tensor:
        """How far a min network lies above the lower limit, as a part of it (Eq. 4): a hinge."""
        lower = max(self.range[0], self.cost.reach[0])  # below it the hinge would never be met
        return F.relu(cost / lower - 1)

    def off(self, arch: Architecture) -> float:
        """How far a network lies outside the range, as a part of the limit that it misses."""
        cost, (lower, upper) = self.cost(arch), self.range
        return max(0.0, 1 - cost / lower, cost / upper - 1)


def paired(
    cost: Cost | Sequence[Cost] | None, cost_range: CostRange | Sequence[CostRange]
) -> list[tuple[Cost | None, CostRange]]:
    """Each cost with its range; none stands for the model's MACs.

    Raises:
        CostError: There is not one range for each cost, or two costs have one name.
    """
    several = isinstance(cost, Sequence)
    costs: Sequence[Cost | None] = cost if isinstance(cost, Sequence) else [cost]
    ranges = list(cost_range) if several else [cost_range]
    if not costs or len(costs) != len(ranges) or not all(map(_is_range, ranges)):
        named = ", ".join("MACs" if c is None else c.name for c in costs)
        raise CostError(
            f"each cost has a range (lower, upper), of several costs in a list; found the range "
            f"{cost_range} for {named or 'no cost'}"
        )
    names = [c.name for c in costs if c is not None]
    if len(set(names)) < len(names):
        raise CostError(f"each cost has one range, found several for one of {', '.join(names)}")
    return [
        (c, cast(CostRange, tuple(cast(CostRange, r)))) for c, r in zip(costs, ranges, strict=True)
    ]


def _is_range(found: object) -> bool:
    """Whether it is two numbers; what they are is checked with the cost."""
    return (
        isinstance(found, Sequence)
        and len(found) == 2
        and all(isinstance(limit, int | float) for limit in found)
    )


def as_written(shown: float, per_unit: float) -> float:
    """An amount in the unit that a cost is shown in, in its own.

    Multiplied as it is written: in binary 0.015627 million MACs are less than 15,627.

    Args:
        shown: Such as millions.
        per_unit: `Cost.per_unit`.

    Examples:
        >>> 0.015627 * 1e6 < as_written(0.015627, 1e6) == 15_627
        True
    """
    return float(Decimal(repr(shown)) * Decimal(per_unit))


def check_budgets(budgets: Sequence[Budget]) -> None:
    """Refuse a range that cannot be met; warn where no network inside all of several was found.

    Raises:
        CostError: Names the range and the reachable one.
    """
    for budget in budgets:
        budget.cost.check_range(*budget.range)
    if len(budgets) > 1 and not any(map(_inside, _starts(budgets), [budgets] * STARTS)):
        _log.warning(
            "no network inside all of the ranges of %s was found among those that lie near them; "
            "if there is none the front will be outside",
            " and ".join(budget.cost.name for budget in budgets),
        )


def _starts(budgets: Sequence[Budget]) -> list[Architecture]:
    space, generator = budgets[0].cost.space, stream(0, "budgets")
    drawn = [space.sample(generator, space.whole) for _ in range(STARTS - 2)]
    return [space.smallest, space.largest, *drawn]


def _inside(arch: Architecture, budgets: Sequence[Budget]) -> bool:
    """Whether changing one dimension at a time leads to a network inside all ranges."""

    def off(other: Architecture) -> float:
        return sum(budget.off(other) for budget in budgets)

    best, before = off(arch), float("inf")
    while 0 < best < before:
        before = best
        for i, dimension in enumerate(arch.space.dimensions):
            others = [
                Architecture(arch.space, (*arch.indices[:i], j, *arch.indices[i + 1 :]))
                for j in range(len(dimension))
            ]
            arch = min((arch, *others), key=off)  # of equal ones the first
        best = off(arch)
    return best == 0
