"""The max network's gradient without what opposes its students' (NASViT; Gong et al., 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from boundnas.engine.ranks import average


def set_aside(parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Take the gradients away, so that those computed next stand alone.

    Returns:
        The gradients, by position of their parameter.
    """
    held = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return held


@torch.no_grad()
def add_projected(parameters: Sequence[nn.Parameter], held: Sequence[Tensor | None]) -> None:
    """Add the gradients held to those there are, projected where the two conflict.

    For each parameter, with ``g`` its gradient now, the sum over all students, and ``m`` the one
    held: where ``<g, m> < 0``, ``m`` becomes ``m - <g, m> / <g, g> g``, which is orthogonal to
    ``g``. What the students want is left as it is. A ``g`` that is `ROUNDING` of ``m`` or less
    opposes nothing.

    Args:
        parameters: Weights.
        held: The max network's gradients, as `set_aside` gave them.

    Examples:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([-1.0, 1.0])
        >>> add_projected([weight], [torch.tensor([1.0, 0.0])])
        >>> weight.grad
        tensor([-0.5000,  1.5000])
    """
    for p, m in zip(parameters, held, strict=True):
        g = p.grad
        if g is None or m is None:
            p.grad = m if g is None else g
            continue
        own = g.square().sum()
        meant = own > ROUNDING**2 * m.square().sum()
        overlap = torch.where(meant, (g * m).sum().clamp(max=0) / own, 0.0)
        p.grad = g + (m - overlap * g)


@contextmanager
def projected(weights: Iterable[nn.Parameter], where: str) -> Iterator[None]:
    """Within it the students train; then the max network's gradients join, projected.

    Args:
        weights: They hold the gradients of the max network alone.
        where: Names the step to other ranks.
    """
    parameters = list(weights)
    held = set_aside(parameters)
    yield
    # A projection of means is no mean of projections, so the processes share both parts here.
    students = [p.grad for p in parameters if p.grad is not None]
    found = [*students, *(m for m in held if m is not None)]
    if found:
        average(found, where)
    add_projected(parameters, held)


ROUNDING = 1e-5
"""Gradients this much smaller than another may be rounding alone, whose direction means nothing:
that of a bias that the next normalization takes out again was found to be 1e-7."""
