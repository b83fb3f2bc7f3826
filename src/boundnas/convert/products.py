"""Rules of products of maps: attention, whose heads are treated separately."""

from __future__ import annotations

from typing import Any

import torch

from boundnas.convert.axes import Axis, Map
from boundnas.convert.reading import Call, NoRuleError, rule, unite_axes

_MIXES = "sums over its channels"


@rule("matmul", "bmm", "baddbmm")
def product(call: Call) -> Map:
    """Matrices are multiplied; axes before those of the matrices are treated one by one."""
    maps = call.maps()
    if call.name == "baddbmm" or len(maps) != 2 or min(len(x.shape) for x in maps) < 2:
        raise NoRuleError("multiplies what are no two matrices")
    x, y = maps
    call.fix(x.axes[-1], y.axes[-2], why=_MIXES)
    _fix_weights(call, maps)
    rows, columns = x.axes[-2], y.axes[-1]
    if x.is_searched and y.is_searched:
        call.fix(rows, columns, why=_MIXES)
    return call.result(*_separate(call, maps), rows, columns)


def _fix_weights(call: Call, maps: list[Map]) -> None:
    """Columns of a weight stay: what it gives is of all samples, and its ghosts would be too."""
    shape = call.form.shape
    for node, x in zip(call.node.all_input_nodes, maps, strict=False):
        every = len(x.shape) == len(shape) and x.shape[0] == shape[0]  # repeated for every sample
        if not node.meta.get("values", True) and not every:
            call.fix(*x.axes, why="multiplies a weight of its own")


def _separate(call: Call, maps: list[Map]) -> list[Axis | None]:
    """The axes before the last two, which all maps share."""
    number, found = len(call.form.shape), list[Axis | None]()
    for i in range(-number, -2):
        there = [x for x in maps if len(x.shape) >= -i and x.shape[i] == call.form.shape[i]]
        axes = [x.axes[i] for x in there if call.form.shape[i] > 1 or x.axes[i] is not None]
        axis = axes[0] if axes else None
        for other in axes[1:]:
            if axis is not None or other is not None:
                axis = unite_axes(axis, other, call, "multiplies it with other heads")
        found.append(axis)
    return found


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Map:
    """Heads lie before tokens and their features."""
    maps = call.maps()
    if call.kwargs.get("enable_gqa"):
        maps = [_repeated(x, maps[0].shape[-3]) for x in maps]
    for x in maps:
        call.fix(*x.axes[-2:], why=_MIXES)
    return call.result(*_separate(call, maps), None, None)


def _repeated(x: Map, heads: int) -> Map:
    """A map with each of its heads as often in a row as there are queries for it."""
    axis, own = x.axes[-3], x.shape[-3]
    if own in (1, heads):
        return x
    times = None if axis is None else axis.times(heads // own)
    shape = torch.Size((*x.shape[:-3], heads, *x.shape[-2:]))
    return Map(shape, (*x.axes[:-3], times, *x.axes[-2:]))


@rule("einsum")
def einsum(call: Call) -> Map:
    """Letters that the result lacks are summed over; those of several maps are one axis."""
    equation: Any = call.args[0]
    maps = call.maps()
    if not isinstance(equation, str) or "->" not in equation:
        raise NoRuleError("names no axes of its result")
    left, _, right = equation.replace(" ", "").partition("->")
    terms = [_letters(term, len(x.shape)) for term, x in zip(left.split(","), maps, strict=True)]
    if any(len(set(term)) < len(term) for term in terms):
        raise NoRuleError("takes a diagonal")
    _fix_weights(call, maps)
    places: dict[str, list[Axis | None]] = {}
    for term, x in zip(terms, maps, strict=True):
        for letter, axis in zip(term, x.axes, strict=True):
            places.setdefault(letter, []).append(axis)
    result = _letters(right, len(call.form.shape))
    for letter in places.keys() - set(result):
        call.fix(*places[letter], why=_MIXES)
    several = sum(x.is_searched for x in maps) > 1
    return call.result(*(_of_letter(call, places[letter], several) for letter in result))


def _letters(term: str, rank: int) -> list[str]:
    """The names of a map's axes; those that an ellipsis stands for have numbers, from the last."""
    before, dots, after = term.partition("...")
    between = range(rank - len(before) - len(after) if dots else 0)
    return [*before, *(str(i) for i in reversed(between)), *after]


def _of_letter(call: Call, axes: list[Axis | None], several: bool) -> Axis | None:
    if len(axes) == 1 and several:
        call.fix(axes[0], why=_MIXES)
    found = axes[0]
    for axis in axes[1:]:
        if found is not None or axis is not None:
            found = unite_axes(found, axis, call, "multiplies it with other heads")
    return found
