"""Random networks chosen among several of like cost: AttentiveNAS' best-up and worst-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from boundnas.engine.ranks import average
from boundnas.method.variants.parts import Objective
from boundnas.space import Architecture

CLOSE = 0.05
"""Relative difference of costs that count as alike."""

DRAWS = 64
"""How many architectures are drawn, at most, to find one of like cost."""


Draw = Callable[[], Architecture]


def candidates(count: int, draw: Draw, cost: Callable[[Architecture], float]) -> list[Architecture]:
    """A random architecture and others of like cost (Wang et al., CVPR 2021, Sec. 3.2).

    The first one's cost is the target, so targets are distributed as the costs of uniform draws.
    The others are uniform draws whose cost is within 5 % of it; where 64 draws find none, the
    nearest of them.

    Args:
        count: How many; the same one may come twice.
        draw: Gives one uniform draw after the other.
        cost: An architecture's cost, in any unit.

    Returns:
        ``count`` architectures.
    """
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


@dataclass(frozen=True)
class LikeCosts:
    """Trains one of several random networks of like cost, by their losses on the targets.

    Args:
        pick: Which one, from their losses, shape ``(count,)``.
        count: How many there are to choose from.
        cost: An architecture's cost, in any unit.
    """

    pick: Callable[[Tensor], Tensor]
    count: int
    cost: Callable[[Architecture], float]

    @torch.no_grad()
    def __call__(self, draw: Draw, loss: Objective, where: str) -> Architecture:
        """See `boundnas.method.variants.parts.Choice`."""
        found = candidates(self.count, draw, self.cost)
        losses = torch.stack([loss(arch) for arch in found])
        average([losses], where)  # so that all processes choose the same
        return found[int(self.pick(losses))]
