"""Which channels lie where in a searched map: its segments, in order.

A map of one elastic layer is one segment. ``torch.cat`` along the channels puts several side by
side, ``split`` and ``chunk`` take them apart again, and the layer that takes such a map must be
built for the same ones (`boundnas.space.Joined`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boundnas.elastic.ghost import CATS, SPLITS, Ghosted
from boundnas.elastic.varied import Varied
from boundnas.elastic.width import segments
from boundnas.space import Architecture, Dimension, Width, followed, parts_of


@dataclass(frozen=True)
class Segment:
    """Channels whose number follows dimensions, or none.

    Args:
        dimensions: Whose choice it is; none where no other number could be chosen.
        active: How many are active.
        ghost: How many were not chosen.
    """

    dimensions: tuple[Dimension, ...]
    active: int
    ghost: int


Segments = tuple[Segment, ...]


def of_width(width: Width, arch: Architecture) -> Segments:
    """The segments that a layer built with a width takes or gives."""
    sizes = segments(width, arch)
    return merged(
        Segment(followed(part), active, ghost)
        for part, (_, active, ghost) in zip(parts_of(width), sizes, strict=True)
    )


def merged(parts: Iterable[Segment]) -> Segments:
    """The segments with those that have no ghost put together: nothing tells them apart."""
    found: list[Segment] = []
    for each in parts:
        own = each if each.ghost else replace(each, dimensions=())
        if found and not (own.ghost or found[-1].ghost):
            found[-1] = replace(own, active=own.active + found[-1].active)
        else:
            found.append(own)
    return tuple(found)


def scaled(parts: Segments, active: int, ghost: int) -> Segments:
    """The segments of a map that has so many channels after a function; empty if not clear.

    Where pixels become features, every channel becomes as many; the other way round, one of many.
    """
    before = max(1, sum(part.active for part in parts))
    found = tuple(
        Segment(part.dimensions, *(n * active // before for n in (part.active, part.ghost)))
        for part in parts
    )
    whole = sum(part.active for part in found), sum(part.ghost for part in found)
    return found if whole == (active, ghost) else ()


def parted(parts: Segments, sizes: Sequence[tuple[int, int]]) -> list[Segments] | None:
    """The segments of maps that one is split into; none if one of them would be broken.

    Args:
        parts: Of the map.
        sizes: Of every part, channels that are active and not chosen.
    """
    rest, found = list(parts), []
    for active, ghost in sizes:
        own: list[Segment] = []
        while active or ghost:
            if not rest:
                return None
            head = rest.pop(0)
            if not head.ghost and head.active > active > 0:
                rest.insert(0, replace(head, active=head.active - active))
                head = replace(head, active=active)
            active, ghost = active - head.active, ghost - head.ghost
            own.append(head)
        found.append(tuple(own))
    return found


def as_built(x: Tensor, axis: int, built: Segments) -> Segments:
    """The segments of a map of which nothing was noted: a layer's, if as many channels arrive."""
    widths = sum(part.active for part in built), sum(part.ghost for part in built)
    return built if width_of(x, axis) == widths else (Segment((), *width_of(x, axis)),)


def shown(parts: Segments) -> str:
    """Segments in words."""
    names = (
        f"{p.active} of {', '.join(d.name for d in p.dimensions)} (of {p.active + p.ghost})"
        if p.dimensions
        else str(p.active)
        for p in parts
    )
    return " and ".join(names) or "in an order that is not known any more"


_APART = SPLITS | {torch.chunk, Tensor.chunk}


def along(func: Callable, args: Any, kwargs: Any) -> int | None:
    """The axis along which maps are put side by side or taken apart; none for other functions."""
    if func not in CATS | _APART:
        return None
    place = 1 if func in CATS else 2
    axis = args[place] if len(args) > place else kwargs.get("dim", kwargs.get("axis", 0))
    maps = args[0] if args else next(iter(kwargs.values()))
    return int(axis) % (maps if isinstance(maps, Tensor) else maps[0]).dim()


def side_by_side(func: Callable, args: Any, kwargs: Any) -> list[Tensor]:
    """The maps that a function puts side by side; none for other functions."""
    return list(args[0] if args else kwargs["tensors"]) if func in CATS else []


def width_of(x: Tensor, axis: int) -> tuple[int, int]:
    """Channels of a map along an axis that are active, and not chosen."""
    if not isinstance(x, Ghosted):
        return x.shape[axis], 0
    if isinstance(x, Varied):
        return x.active.shape[axis], x.options.whole[axis] - x.active.shape[axis]
    return x.active.shape[axis], x.ghost.shape[axis]
