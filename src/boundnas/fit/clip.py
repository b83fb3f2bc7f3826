"""Boundaries that the cost range implies: all widths cut by one ratio, and nothing else."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from boundnas.cost import Budget
from boundnas.errors import SpaceError
from boundnas.method.policy import Boundary
from boundnas.settings import TrainSettings
from boundnas.space import Allowed, Architecture, Dimension, SearchSpace
from boundnas.store.clip import ClipRecord

CUT = ("width", "heads")
"""Kinds of dimensions that count as widths: what scales the work of layers, and none of it away."""


@dataclass(frozen=True)
class Clip:
    """A space without the widths that its cost ranges have no use for.

    Args:
        space: The whole space.
        lower: No width is below this part of its largest option, where it has options to choose.
        upper: None is above this part.
        allowed: The options that are left.
    """

    space: SearchSpace
    lower: float
    upper: float
    allowed: Allowed

    def end(self, boundary: Boundary) -> Architecture:
        """The largest architecture that is left, for the max boundary, or the smallest."""
        which = -1 if boundary == "max" else 0
        return Architecture(self.space, tuple(options[which] for options in self.allowed))

    @property
    def record(self) -> ClipRecord:
        """What is written down of it."""
        cut = [self.space.position(d) for d in widths(self.space)]
        left = sum(len(self.allowed[i]) for i in cut)
        whole = sum(len(self.space.dimensions[i]) for i in cut)
        return ClipRecord(lower=self.lower, upper=self.upper, left=left, whole=whole)


def widths(space: SearchSpace) -> list[Dimension]:
    """The dimensions that are cut: those of a kind of `CUT` with several numbers to choose from.

    Text and switches count from 0, so none of them is among these.
    """
    several = (d for d in space.dimensions if d.kind in CUT and len(d) > 1)
    return [d for d in several if d.numbers[0] > 0]


def of_settings(
    space: SearchSpace, settings: TrainSettings, budgets: Sequence[Budget]
) -> Clip | None:
    """The clip that settings ask for, if they do."""
    return clip(space, budgets) if settings.bounds == "from_cost" else None


def clip(space: SearchSpace, budgets: Sequence[Budget]) -> Clip:
    """Cut all widths by one ratio from below and one from above, as far as the ranges allow.

    A ratio is an option over the largest of its dimension. The lower one is the largest at which
    the smallest network of what is left, in depths, kernels and everything else too, still costs no
    more than the lower limit; the upper one the smallest at which the largest network still costs
    no less than the upper limit. Of several costs that holds for each. Should the two cross, as
    where depths alone span the range, what lies between them is left, their own options included.

    Args:
        space: The space.
        budgets: The costs, each with its range.

    Raises:
        SpaceError: It has no width to cut.
    """
    cut = widths(space)
    if not cut:
        kinds = ", ".join(sorted({d.kind for d in space.dimensions}))
        raise SpaceError(
            f"train.bounds = from_cost cuts widths ({' and '.join(CUT)} of several numbers), and "
            f"this space has none to cut, only {kinds}; leave it out, for the whole space"
        )
    ratios = sorted({number / d.numbers[-1] for d in cut for number in d.numbers})

    def too_dear(lower: float) -> bool:
        left = _within(space, cut, lower, 1.0)
        return any(c.reach_of(left)[0] > max(low, c.reach[0]) for c, (low, _) in budgets)

    def dear_enough(upper: float) -> bool:
        left = _within(space, cut, 0.0, upper)
        return all(c.reach_of(left)[1] >= min(high, c.reach[1]) for c, (_, high) in budgets)

    found = ratios[_first(ratios, too_dear) - 1], ratios[_first(ratios, dear_enough)]
    lower, upper = min(found), max(found)
    return Clip(space, lower, upper, _within(space, cut, lower, upper))


def _first(ratios: Sequence[float], holds: Callable[[float], bool]) -> int:
    """Where something holds from; it holds nowhere, or from there on."""
    return bisect_left(ratios, True, key=holds)


def _within(space: SearchSpace, cut: Sequence[Dimension], lower: float, upper: float) -> Allowed:
    """The options of a part of the widths; where none lies inside, the nearest on either side."""

    def options(dimension: Dimension) -> tuple[int, ...]:
        last = len(dimension) - 1
        if dimension not in cut:
            return tuple(range(last + 1))
        parts = [number / dimension.numbers[-1] for number in dimension.numbers]
        from_below = next(j for j in range(last + 1) if parts[j] >= lower)
        from_above = next((j for j in range(last, 0, -1) if parts[j] <= upper), 0)
        first, end = sorted((from_below, from_above))
        return tuple(range(first, end + 1))

    return tuple(map(options, space.dimensions))
