"""Which entries of a layer's weights belong to the channels that an architecture chose.

A layer holds the weights of its largest form. Along an axis that ranges over the channels of a
width, the leading ones of each part are active; those of one setting are a leading slice. What is
left are the channels that travel as a ghost (`boundnas.elastic.ghost`), in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from boundnas.space import (
    Architecture,
    Dimension,
    Joined,
    Setting,
    Width,
    choices,
    followed,
    largest,
    parts_of,
)

GIVES = ("out_channels", "out_features", "channels", "features")
"""Names under which a layer holds the width of the maps that it gives, the first that it has."""


def active(weight: Tensor, width: Width, arch: Architecture, axis: int = 0) -> Tensor:
    """The entries of active channels along an axis: a view, or of several parts a copy."""
    if not isinstance(width, Joined):
        return weight.narrow(axis, 0, arch.size(width))
    cuts = [weight.narrow(axis, start, c) for start, c, _ in segments(width, arch)]
    return torch.cat(cuts, axis)


def others(weight: Tensor, width: Width, arch: Architecture, axis: int = 0) -> Tensor:
    """The entries of channels that were not chosen and have gates, likewise."""
    cuts = [weight.narrow(axis, start + c, rest) for start, c, rest in segments(width, arch)]
    return cuts[0] if len(cuts) == 1 else torch.cat(cuts, axis)


def segments(width: Width, arch: Architecture) -> Iterator[tuple[int, int, int]]:
    """Of each part where its channels start, how many are active, and how many are ghosts."""
    start = 0
    for part in parts_of(width):
        size, whole = arch.size(part), largest(part)
        yield start, size, whole - size if arch.gated(part) else 0
        start += whole


def ghosts_of(width: Width, arch: Architecture) -> bool:
    """Whether channels beyond the active ones have a gate waiting for their gradient."""
    return any(rest for _, _, rest in segments(width, arch))


def membership(width: Width, arch: Architecture, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which options contain which channels: 1 when ``c < choices[j]``.

    Returns:
        Of the active ones, shape ``(d, active)``, and of the others, ``(d, others)``; ``d`` counts
        the options of all that `Architecture.gate` gives gates of.
    """
    sizes = tuple((active, rest) for _, active, rest in segments(width, arch))
    return _membership(width, arch.gated(width), sizes, device)


@cache
def _membership(
    width: Width,
    gated: tuple[tuple[Dimension, ...], ...],
    sizes: tuple[tuple[int, int], ...],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    inside, outside = [], []
    for part, (size, rest) in zip(parts_of(width), sizes, strict=True):
        rows = [_contained(part, dimensions, device) for dimensions in gated]
        table = rows[0] if len(rows) == 1 else torch.cat(rows)
        inside.append(table[:, :size])
        outside.append(table[:, size : size + rest])
    if len(inside) == 1:
        return inside[0], outside[0]
    return torch.cat(inside, 1), torch.cat(outside, 1)


def _contained(part: Setting, dimensions: tuple[Dimension, ...], device: torch.device) -> Tensor:
    """Which combinations of dimensions contain which channels of a part; none of others'."""
    if followed(part) != dimensions:
        size = math.prod(map(len, dimensions)), largest(part)
        return torch.zeros(size, dtype=torch.float32, device=device)
    sizes = torch.tensor([int(c) for c in choices(part)], device=device)
    return (torch.arange(largest(part), device=device) < sizes[:, None]).float()
