"""Random networks chosen among several of like cost: AttentiveNAS' best-up and worst-up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from boundnas.space import Allowed, Architecture, SearchSpace

CLOSE = 0.05
"""Relative difference of costs that count as alike."""

DRAWS = 64
"""How many architectures are drawn, at most, to find one of like cost."""


def candidates(
    count: int,
    space: SearchSpace,
    generator: torch.Generator,
    allowed: Allowed,
    cost: Callable[[Architecture], float],
) -> list[Architecture]:
    """A random architecture and others of like cost (Wang et al., CVPR 2021, Sec. 3.2).

    The first one's cost is the target, so targets are distributed as the costs of uniform draws.
    The others are uniform draws whose cost is within 5 % of it; where 64 draws find none, the
    nearest of them.

    Args:
        count: How many; the same one may come twice.
        space: The search space.
        generator: Source of the draws.
        allowed: The options that are drawn from.
        cost: An architecture's cost, in any unit.

    Returns:
        ``count`` architectures.
    """
    draw = partial(space.sample, generator, allowed)
    first = draw()
    target = cost(first)

    def like() -> Architecture:
        nearest, least = first, float("inf")
        for _ in range(DRAWS):
            arch = draw()
            distance = abs(cost(arch) - target)
            if distance < least:
                nearest, least = arch, distance
            if least <= CLOSE * target:
                break
        return nearest

    return [first, *(like() for _ in range(count - 1))]


CHOICES: dict[str, Callable[[Tensor], Tensor] | None] = {
    "uniform": None,
    "best_up": torch.argmin,
    "worst_up": torch.argmax,
}
"""Which candidate is trained, from their losses: by the name in a configuration."""
