"""Channel axes: which channels of which maps stand and fall together.

A **group** is a number of channels that several layers share: those that a residual sum adds, a
depthwise convolution passes on, a gate multiplies. Groups are united as a network is read
(union-find), and one that meets what has no rule is fixed, with the reason. An **axis** of a map
is an ordered list of segments, each of them a group; a concatenation has several.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count

import torch


@dataclass(frozen=True)
class Reason:
    """Why something stays as it is, and where in the user's code.

    Args:
        text: In words.
        source: File and line, or nothing.
    """

    text: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.source})" if self.source else self.text


@dataclass(eq=False)
class Group:
    """Channels that are searched together.

    Args:
        size: How many there are.
        unit: Only whole multiples of so many may stay, as of a grouped convolution.
        reason: Why it stays fixed; none while it may be searched.
        makers: Names of the modules whose output channels these are, in the order of their calls.
        users: Names of all modules that are built with it.
        number: The order in which groups were made.
        samples: Whether it is no channels at all, but the samples of a batch.
        head: Channels of an attention head, where that is its unit.
        same: The axis that it is, for a weight's that met one of heads, and for queries of which
            there are several heads for each of keys.
        pieces: What it was cut into, where a part of its channels goes another way.
    """

    size: int
    unit: int = 1
    reason: Reason | None = None
    makers: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    number: int = field(default_factory=count().__next__)
    samples: bool = False
    head: int | None = None
    same: Axis | None = None
    pieces: tuple[Group, Group] | None = None
    _united: Group | None = None

    @property
    def root(self) -> Group:
        """The group that this one was united with, or itself."""
        found = self
        while found._united is not None:
            found = found._united
        return found

    def fix(self, reason: Reason) -> None:
        """Keep it as it is; the first reason stands."""
        root = self.root
        root.reason = root.reason or reason

    def of_units(self, unit: int) -> None:
        """Only whole multiples of ``unit`` channels may stay."""
        self.root.unit = math.lcm(self.root.unit, unit)

    @property
    def heads(self) -> int | None:
        """How many heads they are; none for channels that are no heads."""
        return self.size // self.unit if self.head == self.unit else None

    def cut(self, size: int) -> bool:
        """Let the first ``size`` channels and the others be two groups.

        Returns:
            Whether they can be.
        """
        root = self.root
        if size % root.unit or root.size % root.unit:
            return False
        first, second = (
            Group(n, root.unit, root.reason, [*root.makers], [*root.users], head=root.head)
            for n in (size, root.size - size)
        )
        root.pieces = first, second
        return True


def unite(a: Group, b: Group) -> None:
    """Make two groups of one size one; the one that was made first keeps its name."""
    a, b = a.root, b.root
    assert a.size == b.size, f"groups of {a.size} and {b.size} channels"
    if a is b:
        return
    if b.number < a.number:
        a, b = b, a
    a.unit, a.reason, a.head = math.lcm(a.unit, b.unit), a.reason or b.reason, a.head or b.head
    a.makers += [m for m in b.makers if m not in a.makers]
    a.users += [m for m in b.users if m not in a.users]
    b._united = a


@dataclass(frozen=True)
class Segment:
    """A piece of an axis: the channels of a group, ``factor`` entries in a row for each.

    A map that was flattened has as many entries per channel as it had pixels; an axis of heads one
    for all the channels of a head.
    """

    group: Group
    factor: Fraction = Fraction(1)

    @property
    def size(self) -> int:
        """Entries along the axis."""
        return int(self.group.root.size * self.factor)

    @property
    def whole(self) -> Iterator[Segment]:
        """It as it is by now, in pieces if its group was cut."""
        root = self.group.root
        if root.same is not None:
            yield from root.same.times(self.factor).segments
            return
        if root.pieces is None:
            yield Segment(root, self.factor)
            return
        for piece in root.pieces:
            yield from Segment(piece, self.factor).whole


@dataclass(frozen=True)
class Axis:
    """An axis along which channels lie.

    Args:
        parts: In order, as they were when it was made.
    """

    parts: tuple[Segment, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """In order, as they are by now."""
        return tuple(segment for part in self.parts for segment in part.whole)

    @property
    def size(self) -> int:
        """Entries along it."""
        return sum(s.size for s in self.segments)

    @property
    def groups(self) -> list[Group]:
        """The group of each segment."""
        return [s.group for s in self.segments]

    @property
    def of_samples(self) -> bool:
        """Whether samples lie along it, not channels."""
        return any(group.samples for group in self.groups)

    @property
    def is_fixed(self) -> bool:
        """Whether nothing of it may be searched."""
        return all(group.reason is not None for group in self.groups)

    def fix(self, reason: Reason) -> None:
        """Keep all of it as it is."""
        for group in self.groups:
            group.fix(reason)

    def times(self, factor: int | Fraction) -> Axis:
        """With ``factor`` entries for each of its own."""
        return Axis(tuple(Segment(s.group, s.factor * factor) for s in self.parts))

    def cut(self, at: int) -> bool:
        """Let a segment end at an entry.

        Returns:
            Whether one does now.
        """
        start = 0
        for segment in self.segments:
            inside = at - start
            if inside in (0, segment.size):
                return True
            if inside < segment.size:
                channels = inside / segment.factor
                return channels.denominator == 1 and segment.group.cut(int(channels))
            start += segment.size
        return False

    def between(self, start: int, stop: int) -> Axis:
        """Its segments from one entry to another, which are ends of segments."""
        found, at = [], 0
        for segment in self.segments:
            if start <= at and at + segment.size <= stop:
                found.append(segment)
            at += segment.size
        return Axis(tuple(found))


def _is_free(axis: Axis) -> bool:
    """Whether it is of a weight that has met no channels yet."""
    first, *others = axis.segments
    group = first.group
    return not others and not group.makers and group.reason is None and first.factor == 1


def _follows(several: Axis, one: Axis) -> bool:
    """Let heads of queries, several for each head of keys, be as many for each as there are.

    Returns:
        Whether they are now.
    """
    if len(several.segments) != 1 or len(one.segments) != 1:
        return False
    (queries,), (keys,) = several.segments, one.segments
    group, other = queries.group.root, keys.group.root
    times = keys.factor / queries.factor
    if times.denominator > 1 or times == 1 or group.head is None or other.head is None:
        return False
    if group.size != other.size * times or (other.unit * times) % group.unit:
        return False
    if group.reason is not None:
        other.fix(group.reason)
    other.makers += [m for m in group.makers if m not in other.makers]
    other.users += [m for m in group.users if m not in other.users]
    group.same = Axis((Segment(other, times),))
    return True


def align(a: Axis, b: Axis) -> bool:
    """Cut two axes into the same segments.

    Returns:
        Whether they have the same ones now.
    """
    if a.size != b.size:
        return False
    if _follows(a, b) or _follows(b, a):
        return True
    for one, other in ((a, b), (b, a)):
        if _is_free(one) and any(s.factor != 1 for s in other.segments):
            one.segments[0].group.same = other
            return True
    ends = {sum(s.size for s in axis.segments[: i + 1]) for axis in (a, b)
            for i in range(len(axis.segments))}  # fmt: skip
    if not all(axis.cut(end) for end in sorted(ends) for axis in (a, b)):
        return False
    return [(s.size, s.factor) for s in a.segments] == [(s.size, s.factor) for s in b.segments]


def constant(size: int, reason: Reason) -> Axis:
    """An axis of a fixed number of channels."""
    return Axis((Segment(Group(size, reason=reason)),))


def samples(size: int) -> Axis:
    """The axis of the samples of a batch."""
    return Axis((Segment(Group(size, reason=Reason("counts samples"), samples=True)),))


@dataclass(frozen=True)
class Map:
    """What is known of a tensor.

    Args:
        shape: Its shape in the example.
        axes: Of every axis the channels that lie along it; none where there are none.
    """

    shape: torch.Size
    axes: tuple[Axis | None, ...]

    def fix(self, reason: Reason) -> None:
        """Keep the channels of all its axes as they are."""
        for axis in self.axes:
            if axis is not None:
                axis.fix(reason)

    @property
    def is_searched(self) -> bool:
        """Whether any of its channels may still be searched."""
        return any(axis is not None and not axis.is_fixed for axis in self.axes)

    def with_axes(self, axes: Sequence[Axis | None]) -> Map:
        """The same shape with other axes."""
        return Map(self.shape, tuple(axes))


def plain(shape: Iterable[int]) -> Map:
    """A tensor without searched channels."""
    shape = torch.Size(shape)
    return Map(shape, (None,) * len(shape))


@dataclass(frozen=True)
class Size:
    """A number that was read off shapes.

    Args:
        value: In the example.
        of: The axes it depends on.
        whole: The axis whose number of entries it is; none for one that was computed.
        plain: Whether it depends on axes without channels, as on the number of samples.
    """

    value: int | float | bool
    of: tuple[Axis, ...] = ()
    whole: Axis | None = None
    plain: bool = False

    def fix(self, reason: Reason) -> None:
        """Keep all that it depends on as it is."""
        for axis in self.of:
            axis.fix(reason)

    @property
    def is_searched(self) -> bool:
        """Whether it may differ between architectures."""
        return any(not axis.is_fixed for axis in self.of)
