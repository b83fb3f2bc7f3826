"""Rules of what makes one axis of several, or several of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

from boundnas.convert.axes import Axis, Map, Size, align, unite
from boundnas.convert.facts import Cut, Told
from boundnas.convert.reading import Call, NoRuleError, rule


def number(x: Any) -> Any:
    """A number of the example, from one that was read off a shape."""
    return x.value if isinstance(x, Size) else x


@rule("flatten", nn.Flatten)
def flatten(call: Call) -> Map:
    """Axes become one."""
    x, module = call.map, call.module
    if isinstance(module, nn.Flatten):
        start, end = module.start_dim, module.end_dim
    else:
        start = number(call.argument(1, "start_dim", 0))
        end = number(call.argument(2, "end_dim", -1))
    n = len(x.shape)
    start, end = start % n, end % n
    merged = _merged(call, x, range(start, end + 1))
    return call.result(*x.axes[:start], merged, *x.axes[end + 1 :])


def _merged(call: Call, x: Map, axes: Sequence[int]) -> Axis | None:
    """The axis that several, one after the other, become."""
    held = [i for i in axes if x.axes[i] is not None]
    if not held:
        return None
    first = held[0]
    before = math.prod(x.shape[i] for i in axes if i < first)
    if len(held) > 1 or before != 1:
        call.fix(*(x.axes[i] for i in held), why="mixes its channels with other axes")
        return None
    axis = x.axes[first]
    assert axis is not None
    return axis.times(math.prod(x.shape[i] for i in axes if i > first))


@rule("reshape", "view", "unflatten", nn.Unflatten)
def reshape(call: Call) -> Map:
    """Axes that stay, become one, or are cut into heads; else channels stay fixed."""
    x = call.map
    if call.name == "view" and not isinstance(number(call.args[1]), int | tuple | list):
        raise NoRuleError("takes its memory for another type")
    found: list[Axis | None] = []
    heads: _Heads | None = None
    runs = pieces(x.shape, call.form.shape)
    for old, new in runs:
        if len(new) == 1:
            found.append(_merged(call, x, old) if len(old) > 1 else x.axes[old[0]])
            continue
        sizes = [call.form.shape[i] for i in new]
        if len(old) == 1 and max(sizes) == x.shape[old[0]]:  # others are of one entry
            found += [
                x.axes[old[0]] if i == sizes.index(max(sizes)) else None for i in range(len(new))
            ]
            continue
        headed, inner = None, math.prod(sizes[1:])
        if len(old) == 1 and (axis := x.axes[old[0]]) is not None and _of_pixels(axis, inner):
            found += [axis.times(Fraction(1, inner)), *[None] * (len(sizes) - 1)]
            continue
        if len(old) == 1 and (axis := x.axes[old[0]]) is not None and not axis.is_fixed:
            headed = _headed(axis, old[0], new[0], sizes)
        if headed is None:
            call.fix(*(x.axes[i] for i in old), why="cuts its channels into several axes")
            found += [None] * len(new)
        else:
            heads, found = headed, [*found, *headed.axes]
    first = x.axes[0] if x.axes else None
    runs = runs if first is None or first.of_samples else []  # of a weight they are no samples
    of_samples = {i for old, new in runs if 0 in old and (old, new) != ([0], [0]) for i in new}
    _resize(call, found, heads, of_samples)
    return call.result(*found)


@rule("pixel_shuffle", nn.PixelShuffle)
def pixel_shuffle(call: Call) -> Map:
    """Several channels in a row become pixels of one."""
    x, place, axis, new = _with_pixels(call)
    if axis is None:
        return call.result(*x.axes)
    many = x.shape[place] // new
    if not all(s.factor == 1 and s.size % many == 0 for s in axis.segments):
        call.fix(axis, why="cuts its channels into pixels")
        return call.result(*x.axes[:place], None, None, None)
    for group in axis.groups:
        group.of_units(many)
    return call.result(*x.axes[:place], axis.times(Fraction(1, many)), None, None)


@rule("pixel_unshuffle", nn.PixelUnshuffle)
def pixel_unshuffle(call: Call) -> Map:
    """Pixels become channels, in a row for each."""
    x, place, axis, new = _with_pixels(call)
    more = None if axis is None else axis.times(new // x.shape[place])
    return call.result(*x.axes[:place], more, None, None)


def _with_pixels(call: Call) -> tuple[Map, int, Axis | None, int]:
    """A map, where its channels lie, they, and how many there are of the result."""
    x, place = call.map, len(call.map.shape) - 3
    axis = x.axes[place]
    if axis is not None and axis.of_samples:
        raise NoRuleError("is called without a batch axis")
    call.fix(*x.axes[place + 1 :], why="works on pixels, and gets channels there")
    return x.with_axes((*x.axes[: place + 1], None, None)), place, axis, call.form.shape[place]


@dataclass(frozen=True)
class _Heads:
    """Channels as heads, and queries, keys and values where these lie one after the other.

    Args:
        axes: Of the result, in place of that of the channels.
        stacked: The axis of the result along which they do.
        cut: How the channels are cut into them.
    """

    axes: list[Axis | None]
    stacked: int | None = None
    cut: Cut | None = None


def _headed(axis: Axis, at: int, first: int, sizes: list[int]) -> _Heads | None:
    """An axis cut into several, of which the outermost may be of heads."""
    number = sizes[0] if len(sizes) > 2 and sizes[0] in (2, 3) else 1
    inner, own = math.prod(sizes[2 if number > 1 else 1 :]), axis.size // number
    if not all(axis.cut(own * (i + 1)) for i in range(number)):
        return None
    parts = [axis.between(own * i, own * (i + 1)) for i in range(number)]
    if not all(align(parts[0], part) for part in parts):
        return None
    if any(s.factor != 1 or s.size % inner for part in parts for s in part.segments):
        return None
    for part in parts:
        for one, other in zip(parts[0].segments, part.segments, strict=True):
            unite(one.group, other.group)
    for group in parts[0].groups:
        group.of_units(inner)
        group.head = inner
    heads = [parts[0].times(Fraction(1, inner)), *[None] * (len(sizes) - 1 - (number > 1))]
    if number == 1:
        return _Heads(heads)
    return _Heads([None, *heads], first, Cut(axis, at if at == 1 else -1, parts))


def _of_pixels(axis: Axis, number: int) -> bool:
    """Whether an axis has so many entries in a row for each of its channels, or a multiple."""
    return all(s.factor > 1 and (s.factor / number).denominator == 1 for s in axis.segments)


def pieces(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes that have as many entries before as after."""
    found = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(a), j + len(b)
        while (p := math.prod(old[k] for k in a)) != (q := math.prod(new[k] for k in b)):
            if p < q:
                a.append(i)
                i += 1
            else:
                b.append(j)
                j += 1
        found.append((a, b))
    # Axes of one entry at the end belong to the last run.
    while len(found) > 1 and not (found[-1][0] and found[-1][1]):
        a, b = found.pop()
        found[-1] = (found[-1][0] + a, found[-1][1] + b)
    return found


def _resize(
    call: Call, axes: list[Axis | None], heads: _Heads | None, of_samples: set[int]
) -> None:
    """Note the sizes that it is told, to be said in a way that holds for other widths.

    Args:
        call: Of a reshape.
        axes: Of its result.
        heads: The heads that it makes, if any.
        of_samples: Axes of the result whose sizes follow the number of samples.
    """
    values, given = _given(call)
    of = tuple(a for v in values if isinstance(v, Size) for a in v.of)
    if sum(axis is not None and not axis.of_samples for axis in axes) > 1:
        call.fix(*axes, why="is told several numbers of channels")
    unknown = any(number(v) == -1 and i in of_samples for i, v in enumerate(values) if i > 0)
    mixed = (isinstance(v, Size) and v.of and v.plain for v in values)
    if unknown or any(m and not _is_found(a) for m, a in zip(mixed, axes, strict=False)):
        call.fix(*axes, *of, why="is told its number of channels together with others")
    stacked, cut = (None, None) if heads is None else (heads.stacked, heads.cut)
    call.read.sizes[call.node] = Told(tuple(axes), given, of, stacked, cut)


def _is_found(axis: Axis | None) -> bool:
    """Whether a reshape will find the size of an axis by itself, whatever it is told."""
    return axis is not None and not axis.of_samples and not axis.is_fixed


def _given(call: Call) -> tuple[list[Any], tuple[Any, ...]]:
    """The sizes that a call is told, as they are known and as they stand in the graph."""
    if call.name == "unflatten" or call.module is not None:
        return [None] * len(call.form.shape), (None,) * len(call.form.shape)
    node = call.node
    raw: Any = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
    known: Any = call.args[1:] or (call.kwargs.get("shape", call.kwargs.get("size")),)
    if len(known) == 1 and isinstance(known[0], tuple | list):
        raw = raw[0] if isinstance(raw[0], tuple | list) else (None,) * len(known[0])
        known = known[0]
    return list(known), tuple(raw)


def follows(given: Any, axis: Axis | None) -> bool:
    """Whether a size is that of the axis, however wide that is."""
    if isinstance(given, Size):
        return bool(given.of)
    return bool(given == -1)
