"""Rules of what repeats the entries of axes."""

from __future__ import annotations

from boundnas.convert.axes import Axis, Map, Size
from boundnas.convert.facts import Repeat
from boundnas.convert.reading import Call, NoRuleError, rule
from boundnas.convert.record import in_a_row
from boundnas.convert.reshaping import follows, number
from boundnas.convert.shapes import joined_axis, numbers
from boundnas.convert.weights import repeats_for_samples


@rule("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> Map:
    """Axes of one entry are repeated."""
    x = call.map
    new = len(call.form.shape) - len(x.shape)
    _not_by_channels(call)
    for other in call.maps()[1:]:
        return _expanded_as(call, x, other)
    axes = [*[None] * new, *x.axes]
    for i, axis in enumerate(x.axes):
        repeated = x.shape[i] != call.form.shape[new + i]
        literal = axis is not None and not axis.is_fixed and not _kept(call, new + i)
        if repeated or literal:
            call.fix(axis, why="is told its number of channels")
    return call.result(*axes)


def _expanded_as(call: Call, x: Map, other: Map) -> Map:
    """Along axes that are not repeated the channels are one."""
    new, axes = len(other.shape) - len(x.shape), list[Axis | None]()
    for i, theirs in enumerate(other.axes):
        own = x.axes[i - new] if i >= new else None
        if i >= new and x.shape[i - new] == other.shape[i]:
            axes.append(joined_axis(call, [own, theirs]))
        else:
            call.fix(own, theirs, why="repeats by a number of channels")
            axes.append(theirs if theirs is not None and theirs.of_samples else None)
    return call.result(*axes)


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Map:
    """The entries of an axis, each several times in a row, as samples are for their windows."""
    x, times, at = call.map, call.argument(1, "repeats"), call.argument(2, "dim")
    if at is None or isinstance(times, Map):
        raise NoRuleError("names no axis, or repeats each entry by a number of its own")
    at, axes = number(at) % len(x.shape), list(x.axes)
    axis = axes[at]
    axes[at] = None if axis is None else axis.times(number(times))
    return call.result(*axes)


@rule("repeat", "tile")
def repeat(call: Call) -> Map:
    """The entries of axes several times, one time after another."""
    x = call.map
    times = numbers(in_a_row(call.args[1:]) or call.kwargs.get("repeats", call.kwargs.get("dims")))
    _not_by_channels(call)
    rank = len(call.form.shape)
    times = [1] * (rank - len(times)) + times
    axes = [*[None] * (rank - len(x.shape)), *x.axes]
    for i, axis in enumerate(axes):
        if axis is None or times[i] == 1:
            continue
        if axis.of_samples:
            call.fix(*x.axes, why="puts samples after samples")
        else:
            others = (*times[:i], 1, *times[i + 1 :])
            call.read.repeats[call.node] = Repeat(axis, i, times[i], others)
        axes[i] = Axis(axis.parts * times[i])
    return call.result(*axes)


def _not_by_channels(call: Call) -> None:
    """Numbers of channels that it is repeated by stay."""
    for n in call.arguments():
        if isinstance(n, Size) and n.is_searched:
            call.fix(*n.of, why="repeats by a number of channels")
    if not call.node.meta.get("values", True) and repeats_for_samples(call.node):
        call.fix(*call.map.axes, why="repeats what is computed of weights for every sample")


def _kept(call: Call, i: int) -> bool:
    told = call.args[1:]
    given = list(in_a_row(told))
    return i < len(given) and follows(given[i], None)
