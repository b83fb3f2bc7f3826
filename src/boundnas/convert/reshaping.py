"""Rules of what makes one axis of several, or several of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import fx, nn

from boundnas.convert.axes import Axis, Map, Size
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
    """Axes that stay, become one, or are cut; those of channels may be in the first two only."""
    x = call.map
    if call.name == "view" and not isinstance(number(call.args[1]), int | tuple | list):
        raise NoRuleError("takes its memory for another type")
    found: list[Axis | None] = []
    for old, new in _pieces(x.shape, call.form.shape):
        if len(new) == 1:
            found.append(_merged(call, x, old) if len(old) > 1 else x.axes[old[0]])
            continue
        keep = [i for i in old if x.axes[i] is not None]
        if len(new) and keep:
            call.fix(*(x.axes[i] for i in keep), why="cuts its channels into several axes")
        found += [None] * len(new)
    _resize(call, x, found)
    return call.result(*found)


def _pieces(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
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


def _resize(call: Call, x: Map, axes: list[Axis | None]) -> None:
    """Say sizes that were told as numbers in a way that holds for other widths."""
    searched = [i for i, axis in enumerate(axes) if axis is not None]
    told = call.args[1:] or (call.kwargs.get("shape", call.kwargs.get("size")),)
    if call.node.op == "call_module" or call.name == "unflatten":
        call.fix(*axes, why="is told sizes")
        return
    given = list(told[0]) if len(told) == 1 and isinstance(told[0], tuple | list) else list(told)
    if not searched or all(follows(given[i], axes[i]) for i in searched):
        return
    if len(searched) > 1:
        call.fix(*axes, why="is told several sizes")
        return
    at = searched[0]
    rest = [i for i, n in enumerate(given) if isinstance(n, int) and n == -1 and i != at]
    if rest and (rest != [0] or x.axes[0] is not None or x.shape[0] != call.form.shape[0]):
        call.fix(*axes, why="is told its number of channels")
        return
    axis = axes[at]
    assert axis is not None
    tell = partial(_told_anew, call.node, at, bool(rest))
    call.read.sizes[call.node] = axis, tell


def follows(given: Any, axis: Axis | None) -> bool:
    """Whether a size is that of the axis, however wide that is."""
    if isinstance(given, Size):
        return bool(given.of)
    return bool(given == -1)


def _told_anew(node: fx.Node, at: int, batch: bool) -> None:
    """Have a reshape find the size of an axis by itself."""
    told: Any = node.args[1:]
    several = len(told) == 1 and isinstance(told[0], tuple | list)
    given = list(told[0]) if several else list(told)
    given[at] = -1
    if batch:
        with node.graph.inserting_before(node):
            given[0] = node.graph.call_method("size", (node.args[0], 0))
    node.args = (node.args[0], tuple(given))
    node.kwargs = {}
