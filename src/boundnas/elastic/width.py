"""Which entries of a layer's weights belong to the channels that an architecture chose.

A layer holds the weights of its largest form. Along an axis that ranges over the channels of a
width, the leading ones of each part are active; those of one setting are a leading slice. What is
left are the channels that travel as a ghost (`boundnas.elastic.ghost`), in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from boundnas.space import (
    Architecture,
    Dimension,
    Setting,
    Width,
    choices,
    dimension_of,
    largest,
    parts_of,
    searched,
)


def active(weight: Tensor, width: Width, arch: Architecture, axis: int = 0) -> Tensor:
    """The entries of active channels along an axis: a view, or of several parts a copy."""
    cuts = [weight.narrow(axis, start, c) for start, c, _ in segments(width, arch)]
    return cuts[0] if len(cuts) == 1 else torch.cat(cuts, axis)


def others(weight: Tensor, width: Width, arch: Architecture, axis: int = 0) -> Tensor:
    """The entries of channels that were not chosen, likewise."""
    cuts = [weight.narrow(axis, start + c, all_ - c) for start, c, all_ in segments(width, arch)]
    return cuts[0] if len(cuts) == 1 else torch.cat(cuts, axis)


def segments(width: Width, arch: Architecture) -> Iterator[tuple[int, int, int]]:
    """Of each part where its channels start, how many are active, and how many there are."""
    start = 0
    for part in parts_of(width):
        yield start, arch.size(part), largest(part)
        start += largest(part)


def ghosts_of(width: Width, arch: Architecture) -> bool:
    """Whether channels beyond the active ones have a gate waiting for their gradient."""
    return arch.gate(width) is not None and arch.size(width) < largest(width)


def membership(width: Width, arch: Architecture, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which options contain which channels: 1 when ``c < choices[j]``.

    Returns:
        Of the active ones, shape ``(d, active)``, and of the others, ``(d, largest - active)``;
        ``d`` counts the options of all dimensions that `Architecture.gate` gives gates of.
    """
    return _membership(width, tuple(map(arch.size, parts_of(width))), device)


@cache
def _membership(
    width: Width, sizes: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    inside, outside = [], []
    for part, size in zip(parts_of(width), sizes, strict=True):
        rows = [_contained(part, dimension, device) for dimension in searched(width)]
        table = rows[0] if len(rows) == 1 else torch.cat(rows)
        inside.append(table[:, :size])
        outside.append(table[:, size:])
    if len(inside) == 1:
        return inside[0], outside[0]
    return torch.cat(inside, 1), torch.cat(outside, 1)


def _contained(part: Setting, dimension: Dimension, device: torch.device) -> Tensor:
    """Which options of a dimension contain which channels of a part; none of another's."""
    if dimension_of(part) != dimension:
        return torch.zeros(len(dimension), largest(part), device=device)
    sizes = torch.tensor([int(c) for c in choices(part)], device=device)
    return (torch.arange(largest(part), device=device) < sizes[:, None]).float()
