"""Where a step may depart from Algorithm 1, and the defaults, which do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from boundnas.method.policy import Policy
from boundnas.space import Architecture

Distance = Callable[[Tensor, Tensor], Tensor]
"""``(student, teacher)`` outputs to a scalar, zero where they agree."""

Objective = Callable[[Architecture], Tensor]
"""A scalar of one architecture on the batch of the step, without a graph."""

Surrogate = Callable[[Policy, Architecture, Tensor, Objective, torch.Generator], Tensor]
"""``(policy, arch, value, objective, generator)`` to a scalar whose gradient is the estimate.

``arch`` was drawn from ``policy`` and ``value`` is its objective."""

Choice = Callable[[Callable[[], Architecture], Objective, str], Architecture]
"""``(draw, loss, where)`` to the random network that is trained.

``draw`` gives uniform draws between the boundaries, ``loss`` is that on the targets, and ``where``
names the step to other ranks."""

Conflict = Callable[[Iterable[nn.Parameter], str], AbstractContextManager[None]]
"""``(weights, where)`` to what the students train within, once the max network was trained."""


def uniform(draw: Callable[[], Architecture], loss: Objective, where: str) -> Architecture:
    """The first draw."""
    return draw()


def added(weights: Iterable[nn.Parameter], where: str) -> AbstractContextManager[None]:
    """The gradients of all networks of a step add up as they are."""
    return nullcontext()


@dataclass(frozen=True)
class Variants:
    """How a step departs from Algorithm 1; by default not at all.

    Args:
        distance: How far a student is from its teacher; none is the task's.
        choose: Which random network is trained.
        conflict: How the gradients of the max network and of its students come together.
        surrogate: What a policy learns from, where no gradient flows through networks.
        gated_random: Whether random networks teach the policies too (App. C).
    """

    distance: Distance | None = None
    choose: Choice = uniform
    conflict: Conflict = added
    surrogate: Surrogate | None = None
    gated_random: bool = False
