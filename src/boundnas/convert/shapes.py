"""Rules of what moves, cuts, joins and sums axes."""

from __future__ import annotations

from typing import Any

from boundnas.convert.axes import Axis, Map, Reason, Segment, Size, constant
from boundnas.convert.facts import Cut, Pad
from boundnas.convert.reading import Call, NoRuleError, rule, unite_axes
from boundnas.convert.record import Form
from boundnas.convert.reshaping import number, pieces


def numbers(given: Any) -> list[int]:
    """One number or several."""
    given = number(given)
    return [given] if isinstance(given, int) else [int(number(x)) for x in given]


@rule("getattr")
def attribute(call: Call) -> Any:
    """What is read off a tensor."""
    x, name = call.args[0], call.args[1]
    if isinstance(x, tuple) and name in ("values", "indices"):  # of extremes along an axis
        return x[name == "indices"]
    if not isinstance(x, Map):
        raise NoRuleError(f"reads .{name}")
    if name == "shape":
        return sizes(x)
    if name == "T":
        return call.result(*reversed(x.axes))
    if name in ("mT", "mH", "H"):
        return call.result(*x.axes[:-2], *reversed(x.axes[-2:]))
    if isinstance(call.form, Form):
        raise NoRuleError(f"reads .{name}")
    return call.form


def sizes(x: Map) -> tuple[Size, ...]:
    """The shape of a tensor."""
    return tuple(
        Size(n, plain=True) if axis is None or axis.of_samples else Size(n, (axis,), axis)
        for n, axis in zip(x.shape, x.axes, strict=True)
    )


@rule("size")
def size(call: Call) -> Any:
    """A shape, or one of its numbers."""
    axis = call.argument(1, "dim")
    found = sizes(call.map)
    return found if axis is None else found[number(axis)]


@rule("dim", "ndimension", "is_floating_point", "is_contiguous", "get_device", "type", "device")
def about(call: Call) -> Any:
    """What does not follow the number of channels."""
    if isinstance(call.form, Form):
        raise NoRuleError("has no rule")
    return call.form


@rule("numel", "len")
def count(call: Call) -> Any:
    """A number that follows all axes, or the first."""
    x = call.args[0]
    if not isinstance(x, Map):
        return len(x) if isinstance(x, tuple | list) else call.form
    of = x.axes if call.name == "numel" else x.axes[:1]
    return Size(call.form, tuple(axis for axis in of if axis is not None), plain=None in of)


def computed(call: Call) -> Size:
    """A number that follows all that it was computed from."""
    of = [x for x in call.arguments() if isinstance(x, Size)]
    return Size(call.form, tuple(a for x in of for a in x.of), plain=any(x.plain for x in of))


@rule("_assert", "_check")
def assertion(call: Call) -> None:
    """Held in the example."""
    return


@rule("int", "bool", "sqrt", "prod", "range", "sum_of_numbers")
def of_numbers(call: Call) -> Any:
    """A number that is computed from numbers."""
    if call.maps() or not isinstance(call.form, int | float):
        raise NoRuleError("has no rule")
    return computed(call)


@rule("getitem")
def item(call: Call) -> Any:
    """A part of a tuple, or of a tensor."""
    x, key = call.args
    if isinstance(x, dict):
        return x[key]
    if isinstance(x, tuple):
        if isinstance(key, slice):
            return x[slice(*(number(k) for k in (key.start, key.stop, key.step)))]
        return x[number(key)]
    if not isinstance(x, Map):
        raise NoRuleError("takes a part of what is no tensor")
    keys = list(key) if isinstance(key, tuple) else [key]
    if isinstance(keys[0], Map) and len(keys) == 1:  # entries of the first axis, by their numbers
        call.fix(x.axes[0], why="takes some of its channels")
        return call.result(*[None] * len(keys[0].shape), *x.axes[1:])
    return call.result(*_indexed(call, x, keys))


def _indexed(call: Call, x: Map, keys: list[Any]) -> list[Axis | None]:
    some = [k for k in keys if k is not None and k is not Ellipsis and not isinstance(k, slice)]
    if not all(map(_is_number, some)) and not _is_list(some):
        raise NoRuleError("takes entries by several lists or a tensor")
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        given = sum(k is not None for k in keys) - 1
        keys[at : at + 1] = [slice(None)] * (len(x.shape) - given)
    keys += [slice(None)] * (len(x.shape) - sum(k is not None for k in keys))
    found: list[Axis | None] = []
    axes = iter(zip(x.shape, x.axes, strict=True))
    for k in keys:
        if k is None:
            found.append(None)
            continue
        n, axis = next(axes)
        if isinstance(k, slice):
            found.append(_sliced(call, n, axis, k))
            continue
        call.fix(axis, why="takes some of its channels")
        if not _is_number(k):
            if axis is not None and axis.of_samples:
                raise NoRuleError("takes some of the samples")
            found.append(None)
    return found


def _is_number(key: Any) -> bool:
    return isinstance(key, int | Size) and not isinstance(key, bool)


def _is_list(keys: list[Any]) -> bool:
    """Whether it is one list of numbers, whose axis stays where it is."""
    return len(keys) == 1 and isinstance(keys[0], list | tuple) and all(map(_is_number, keys[0]))


def _sliced(call: Call, n: int, axis: Axis | None, key: slice) -> Axis | None:
    key = slice(*(number(k) for k in (key.start, key.stop, key.step)))
    start, stop, step = key.indices(n)
    if axis is None or (start, stop, step) == (0, n, 1):
        return axis
    call.fix(axis, why="cuts its channels")  # a number would cut elsewhere in a narrower network
    return None


@rule("view_as", "reshape_as")
def like(call: Call) -> Map:
    """The shape of another map, and its channels."""
    x, other = call.map, call.args[1]
    if x.shape == other.shape:
        return call.result(
            *(joined_axis(call, list(pair)) for pair in zip(x.axes, other.axes, strict=True))
        )
    found: list[Axis | None] = []
    for old, new in pieces(x.shape, call.form.shape):
        theirs = [other.axes[i] for i in new]
        if len(old) == len(new) == 1:
            found.append(joined_axis(call, [x.axes[old[0]], *theirs]))
            continue
        call.fix(*(x.axes[i] for i in old), *theirs, why="takes the shape of another map")
        found += [axis if axis is not None and axis.of_samples else None for axis in theirs]
    return call.result(*found)


@rule("permute")
def permute(call: Call) -> Map:
    """Axes in another order."""
    x = call.map
    order = call.args[1:] or (call.kwargs["dims"],)
    if len(order) == 1 and isinstance(order[0], tuple | list):
        order = tuple(order[0])
    return call.result(*(x.axes[number(i)] for i in order))


@rule("transpose", "swapaxes", "swapdims", "t")
def transpose(call: Call) -> Map:
    """Two axes change places."""
    x = call.map
    names = (("dim0", "axis0"), ("dim1", "axis1"))
    one, other = (
        number(call.argument(i + 1, a, call.kwargs.get(b, i))) for i, (a, b) in enumerate(names)
    )
    axes = list(x.axes)
    if len(axes) > 1:
        axes[one], axes[other] = axes[other], axes[one]
    return call.result(*axes)


@rule("movedim", "moveaxis")
def movedim(call: Call) -> Map:
    """Axes move."""
    x, n = call.map, len(call.map.shape)
    start = [i % n for i in numbers(call.argument(1, "source"))]
    end = [i % n for i in numbers(call.argument(2, "destination"))]
    rest = iter(i for i in range(n) if i not in start)
    order = [start[end.index(i)] if i in end else next(rest) for i in range(n)]
    return call.result(*(x.axes[i] for i in order))


@rule("unsqueeze")
def unsqueeze(call: Call) -> Map:
    """A further axis."""
    axes = list(call.map.axes)
    at = number(call.argument(1, "dim")) % (len(axes) + 1)
    return call.result(*axes[:at], None, *axes[at:])


@rule("squeeze")
def squeeze(call: Call) -> Map:
    """Without axes of one entry, which are named."""
    x, given = call.map, call.argument(1, "dim")
    if given is None:
        raise NoRuleError("names no axis, so that a batch or a width of one would be lost too")
    gone = {i % len(x.shape) for i in numbers(given) if x.shape[i] == 1}
    call.fix(*(x.axes[i] for i in gone), why="takes its axis away")
    return call.result(*(a for i, a in enumerate(x.axes) if i not in gone))


@rule("pad")
def pad(call: Call) -> Map:
    """Axes from the last on become larger."""
    x = call.map
    given = numbers(call.argument(1, "pad"))
    zeros = call.argument(2, "mode", "constant") == "constant" and not call.argument(3, "value")
    axes = list(x.axes)
    for i in range(len(given) // 2):
        before, after, axis = given[2 * i], given[2 * i + 1], axes[-1 - i]
        if axis is None or not (before or after):
            continue
        if zeros and not axis.of_samples and min(before, after) >= 0:
            axes[-1 - i] = _beside(before, axis, after, call.source)
            others = (*given[: 2 * i], 0, 0, *given[2 * i + 2 :])
            call.read.pads[call.node] = Pad(axis, len(axes) - 1 - i, before, after, others)
            zeros = False  # along one axis of channels
        else:
            call.fix(axis, why="pads its channels")
            axes[-1 - i] = None
    return call.result(*axes)


def _beside(before: int, axis: Axis, after: int, source: str) -> Axis:
    """An axis with zeros before and after it."""
    first, last = (constant(n, Reason("is zeros", source)).parts for n in (before, after))
    return Axis((*first * (before > 0), *axis.parts, *last * (after > 0)))


@rule("stack")
def stack(call: Call) -> Map:
    """A further axis; the channels of the others are one."""
    maps = list(call.argument(0, "tensors"))
    if not maps or not all(isinstance(x, Map) for x in maps):
        raise NoRuleError("joins what are no tensors")
    n = len(maps[0].shape)
    at = number(call.argument(1, "dim", 0)) % (n + 1)
    axes = [joined_axis(call, [x.axes[i] for x in maps]) for i in range(n)]
    return call.result(*axes[:at], None, *axes[at:])


@rule("cat", "concat", "concatenate")
def concatenate(call: Call) -> Map:
    """Along channels a list of segments; along other axes the channels are one."""
    maps = list(call.argument(0, "tensors"))
    at = number(call.argument(1, "dim", call.kwargs.get("axis", 0)))
    if not maps or not all(isinstance(x, Map) for x in maps):
        raise NoRuleError("joins what are no tensors")
    n = len(maps[0].shape)
    if any((axis := x.axes[at % n]) is not None and axis.of_samples for x in maps):
        call.fix(*(axis for x in maps for axis in x.axes), why="puts samples after samples")
    axes: list[Axis | None] = []
    for i in range(n):
        each = [x.axes[i] for x in maps]
        axes.append(_side_by_side(call, maps, i) if i == at % n else joined_axis(call, each))
    return call.result(*axes)


def joined_axis(call: Call, axes: list[Axis | None]) -> Axis | None:
    """The one that several are; none if they are no channels, or cannot be one."""
    if not any(axes):
        return None
    found = axes[0]
    for axis in axes[1:]:
        found = unite_axes(found, axis, call, "joins maps of other channels")
    return found


def _side_by_side(call: Call, maps: list[Map], i: int) -> Axis | None:
    if not any(x.axes[i] for x in maps):
        return None
    segments: list[Segment] = []
    for x in maps:
        axis = x.axes[i] or constant(x.shape[i], Reason("is joined as it is", call.source))
        segments += axis.parts
    return Axis(tuple(segments))


@rule("chunk", "split", "tensor_split")
def split(call: Call) -> tuple[Map, ...]:
    """Parts of an axis; of channels, groups of their own."""
    x = call.map
    at = number(call.argument(2, "dim", 0)) % len(x.shape)
    axis, sizes = x.axes[at], [form.shape[at] for form in call.form]
    pieces = [None] * len(sizes) if axis is None else _taken_apart(call, axis, at, sizes)
    return tuple(
        Map(form.shape, (*x.axes[:at], piece, *x.axes[at + 1 :]))
        for form, piece in zip(call.form, pieces, strict=True)
    )


def _taken_apart(call: Call, axis: Axis, at: int, sizes: list[int]) -> list[Axis | None]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    if at not in (1, len(call.map.shape) - 1) or not all(map(axis.cut, ends)):
        call.fix(axis, why="cuts its channels")
        return [None] * len(sizes)
    pieces = [axis.between(end - n, end) for end, n in zip(ends, sizes, strict=True)]
    call.read.splits[call.node] = Cut(axis, at if at == 1 else -1, pieces)
    return list(pieces)


@rule("unbind")
def unbind(call: Call) -> tuple[Map, ...]:
    """The entries of an axis; one of channels stays fixed."""
    x = call.map
    at = number(call.argument(1, "dim", 0)) % len(x.shape)
    call.fix(x.axes[at], why="takes its channels one by one")
    axes = (*x.axes[:at], *x.axes[at + 1 :])
    return tuple(Map(form.shape, axes) for form in call.form)
