"""Weights that a ``forward`` uses by itself: positions, class tokens, a scale of each channel.

``x + self.positions`` follows the width of ``x`` if the weight does. What is computed of a weight
alone, as ``self.scale.view(1, -1, 1, 1)`` or ``self.token.expand(len(x), -1, -1)``, is part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from boundnas.convert.axes import Axis, Group, Map, Reason, Segment, Size
from boundnas.convert.graph import Traced
from boundnas.convert.record import Form, in_a_row

_SHAPING = {
    "view", "reshape", "unsqueeze", "permute", "transpose", "flatten", "getitem", "expand",
    "repeat",
}  # fmt: skip
_TAKING = {
    "add", "sub", "mul", "div", "truediv", "true_divide", "subtract", "multiply", "divide", "cat",
    "concat", "concatenate",
}  # fmt: skip


FILLED = "filled_"
"""How the names of constants start that ``forward`` makes for every sample."""


@dataclass(frozen=True)
class Weight:
    """A weight as a function of maps takes it.

    Args:
        name: Of the parameter.
        nodes: What makes it of the parameter, in order, which is the first.
        rank: Axes of the map that it meets.
        is_repeated: Whether it was repeated for every sample.
        by_itself: Whether functions work on it before it meets a map, so that it is taken without
            an axis of samples.
        is_filled: Whether it is repeated for every sample before it meets a map, or is a number
            everywhere that ``forward`` made for every sample.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    rank: int
    is_repeated: bool
    by_itself: bool = False
    is_filled: bool = False

    @property
    def last(self) -> fx.Node:
        """What functions of maps take."""
        return self.nodes[-1]

    def unknown(self) -> Map:
        """A map whose every axis may be one of channels."""
        shape = self.last.meta["form"].shape
        return Map(shape, tuple(None if n == 1 else _fresh(n) for n in self._own(shape)))

    def _own(self, shape: torch.Size) -> Iterator[int]:
        """Its sizes, but one for samples."""
        for i, n in enumerate(shape):
            yield 1 if i == 0 and len(shape) == self.rank else n

    def shape(self, map_: Map) -> tuple[int, ...]:
        """Of the weight for one sample, with as many axes as that has."""
        own = tuple(map_.shape[1:] if len(map_.shape) == self.rank else map_.shape)
        return (1,) * (self.rank - 1 - len(own)) + own

    def axes(self, map_: Map) -> tuple[Axis | None, ...]:
        """Of the same."""
        own = map_.axes[1:] if len(map_.shape) == self.rank else map_.axes
        return (None,) * (self.rank - 1 - len(own)) + tuple(own)

    def value(self, traced: Traced, values: Mapping[fx.Node, Any]) -> Tensor:
        """The weight as it stands, of the shape for one sample."""
        found: dict[fx.Node, Any] = {self.nodes[0]: traced.attribute(self.name).detach()}
        for node in self.nodes[1:]:
            args, kwargs = map_aggregate(
                (node.args, node.kwargs),
                lambda a: found.get(a, _number(values.get(a))) if isinstance(a, fx.Node) else a,
            )
            call = node.target if callable(node.target) else getattr(Tensor, str(node.target))
            found[node] = call(*args, **kwargs)
        whole: Tensor = found[self.last]
        return (whole[:1] if whole.dim() == self.rank else whole).reshape(
            self.shape(values[self.last])
        )


def _number(value: Any) -> Any:
    return value.value if isinstance(value, Size) else value


def _fresh(size: int) -> Axis:
    return Axis((Segment(Group(size)),))


def weights(traced: Traced) -> dict[fx.Node, Weight]:
    """The weights that functions of maps take, by the node that they take."""
    found = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr" and (weight := _weight(traced, node)) is not None:
            found[weight.last] = weight
    return found


def _weight(traced: Traced, first: fx.Node) -> Weight | None:
    name = str(first.target)
    held = None if name in traced.constants else traced.attribute(name)
    if not isinstance(held, Tensor) or not held.is_floating_point() or not held.dim():
        return None
    if name.startswith(FILLED):
        (repeated,) = first.users
        return Weight(name, (first, repeated), held.dim(), True, is_filled=True)
    met = _met(first, name) or _repeated(first, name)
    if met is not None and met.is_repeated:
        shape = met.last.meta["form"].shape[1:]
        met = met if shape.numel() == held.numel() else None  # else rows would not stay the same
    return met or Weight(name, (first,), held.dim() + 1, False, by_itself=True)


def _met(first: fx.Node, name: str) -> Weight | None:
    """A weight that maps meet as it is, or in another shape."""
    nodes = [first]
    while len(users := _maps_of(nodes[-1])) == 1 and _name(user := users[0]) in _SHAPING:
        others = [n for n in user.all_input_nodes if n is not nodes[-1]]
        if user.args[0] is not nodes[-1] or any(isinstance(n.meta["form"], Form) for n in others):
            return None  # it is told by a map, as rows that are looked up by numbers
        if not isinstance(user.meta["form"], Form):
            return None
        nodes.append(user)
    last = nodes[-1]
    if not users or any(_name(user) not in _TAKING or not _meets(user, last) for user in users):
        return None
    if any(len(node.users) > len(_maps_of(node)) and not _only(node, nodes) for node in nodes):
        return None
    ranks = {len(user.meta["form"].shape) for user in users}
    shape = last.meta["form"].shape
    if len(ranks) != 1 or len(shape) > (rank := ranks.pop()):
        return None
    repeated = any(_name(node) in ("expand", "repeat") for node in nodes)
    if len(shape) == rank and shape[0] != 1 and not repeated:
        return None
    return Weight(name, tuple(nodes), rank, repeated)


def _repeated(first: fx.Node, name: str) -> Weight | None:
    """A weight that is repeated for every sample, whatever takes it then."""
    nodes = [first]
    while len(users := _maps_of(nodes[-1])) == 1 and _name(users[0]) in _SHAPING:
        if users[0].args[0] is not nodes[-1] or not _only(nodes[-1], nodes):
            return None
        nodes.append(users[0])
        if repeats_for_samples(nodes[-1]):
            rank = len(nodes[-1].meta["form"].shape)
            return Weight(name, tuple(nodes), rank, True, is_filled=True)
    return None


def repeats_for_samples(node: fx.Node) -> bool:
    """Whether a function repeats something as often as there are samples."""
    sizes = in_a_row(node.args[1:])
    times = sizes[0] if sizes else None
    if _name(node) not in ("expand", "repeat") or not isinstance(times, fx.Node):
        return False
    return bool(times.meta.get("samples"))


def _meets(user: fx.Node, weight: fx.Node) -> bool:
    """Whether a function takes a map of samples, too."""
    others = (n for n in user.all_input_nodes if n is not weight)
    return any(n.meta["values"] for n in others)


def _maps_of(node: fx.Node) -> list[fx.Node]:
    """What takes a node and gives a tensor."""
    return [user for user in node.users if isinstance(user.meta["form"], Form)]


def _only(node: fx.Node, chain: list[fx.Node]) -> bool:
    """Whether the numbers that are read off a node go to nothing but a chain of nodes."""
    numbers = [user for user in node.users if not isinstance(user.meta["form"], Form)]
    return all(set(_maps_of(n)) <= set(chain) and _only(n, chain) for n in numbers)


def _name(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def settle(map_: Map, name: str) -> None:
    """At most one axis of a weight is searched."""
    searched = [a for a in map_.axes if a is not None and not a.is_fixed and _is_made(a)]
    if len(searched) > 1 or any(len(axis.segments) > 1 for axis in searched):
        map_.fix(Reason(f"{name} has several axes, or channels of several layers in one"))


def _is_made(axis: Axis) -> bool:
    return any(group.makers for group in axis.groups)
