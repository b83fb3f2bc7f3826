"""``x[:, 1:3] = y`` becomes a new tensor: what stays of ``x`` on both sides of ``y``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

Key = Any


def check(whole: Any, key: Key, value: Any) -> None:
    """Refuse what is assigned in a way that is not followed.

    Raises:
        TraceError: The key is of another kind than slices and numbers, or the type would change.
    """
    if not isinstance(whole, Tensor) or by_axes(key, whole.dim()) is None:
        raise fx.proxy.TraceError("it assigns to entries by a list, a mask or a step")
    if isinstance(value, Tensor) and torch.result_type(whole, value) != whole.dtype:
        raise fx.proxy.TraceError(f"it assigns {value.dtype} to {whole.dtype}")


def by_mask(whole: Any, key: Any, value: Any) -> bool:
    """Whether a number is assigned to the entries that a mask of the same shape says."""
    number = isinstance(value, int | float)
    masks = isinstance(whole, Tensor) and isinstance(key, Tensor) and key.dtype == torch.bool
    return masks and number and key.shape == whole.shape


def by_axes(key: Key, rank: int) -> list[slice | int] | None:
    """A slice or number for each axis; none for a key of another kind, or of steps.

    Args:
        key: What stands in the brackets; numbers in it may be nodes of a graph.
        rank: Axes of the tensor.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if sum(k is Ellipsis for k in keys) > 1:
        return None
    if Ellipsis in [k for k in keys if k is Ellipsis]:
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (rank - len(keys) + 1)
    keys += [slice(None)] * (rank - len(keys))
    if len(keys) != rank or not all(map(_is_plain, keys)):
        return None
    return keys


def _is_plain(key: Key) -> bool:
    if isinstance(key, slice):
        return key.step in (None, 1)
    return type(_value(key)) is int


def as_new(node: fx.Node) -> list[fx.Node]:
    """The nodes that make what an assignment changes as a new tensor, which is the last.

    Args:
        node: A call of ``operator.setitem`` whose key is of slices and numbers; they are put
            before it.
    """
    whole, key, value = node.args
    assert isinstance(whole, fx.Node)
    before = set(node.graph.nodes)
    with node.graph.inserting_before(node):
        made = _Made(node)
        keys = by_axes(key, whole.meta["value"].dim())
        assert keys is not None
        last = made.put(whole, *made.of_slices(keys, value))
        if last is value:  # all of it; which has a node of its own in any case
            last = made.call(torch.clone, last)
    return [*(n for n in node.graph.nodes if n not in before and n is not last), last]


class _Made:
    """Makes nodes where an assignment stands."""

    def __init__(self, node: fx.Node) -> None:
        self.graph, self.meta = node.graph, {**node.meta, "macs": 0, "samples": False}

    def call(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        """A call of a function, with what it gives."""
        node = self.graph.call_function(function, args)
        with torch.no_grad():
            value = function(*map_aggregate(args, _value))
        node.meta = {**self.meta, "value": value}
        return node

    def of_slices(self, keys: Sequence[slice | Any], value: Any) -> tuple[list[slice], Any]:
        """Keys that are slices only, and a value with an axis of one entry for each number."""
        found: list[slice] = []
        for i, key in reversed(list(enumerate(keys))):
            if isinstance(key, slice):
                found.insert(0, key)
                continue
            n, after = _value(key), len(keys) - 1 - i
            found.insert(0, slice(n, None if n == -1 else n + 1))
            if isinstance(value, fx.Node) and _value(value).dim() >= after:
                value = self.call(torch.unsqueeze, value, -(after + 1))
        return found, value

    def put(self, whole: fx.Node, keys: list[slice], value: Any) -> fx.Node:
        """``whole`` with ``value`` where the slices say."""
        x = _value(whole)
        ends = [slice(*map(_value, (k.start, k.stop, k.step))).indices(n)
                for k, n in zip(keys, x.shape, strict=True)]  # fmt: skip
        cut = [i for i, (n, end) in enumerate(zip(x.shape, ends, strict=True)) if end != (0, n, 1)]
        if not cut:
            return self._all(whole, value)
        at, key = cut[0], keys[cut[0]]
        free = [slice(None)] * at
        inside = self.call(operator.getitem, whole, (*free, key))
        pieces = [self.put(inside, [*free, slice(None), *keys[at + 1 :]], value)]
        start, stop, _ = ends[at]
        if start > 0:
            left = self.call(operator.getitem, whole, (*free, slice(None, key.start)))
            pieces.insert(0, left)
        if stop < x.shape[at]:
            pieces.append(self.call(operator.getitem, whole, (*free, slice(key.stop, None))))
        return self.call(torch.cat, pieces, at)

    def _all(self, whole: fx.Node, value: Any) -> fx.Node:
        """A tensor of the shape and type of ``whole``, of other entries."""
        x, y = _value(whole), _value(value)
        if not isinstance(value, fx.Node) or not isinstance(y, Tensor):
            return self.call(torch.full_like, whole, value)
        if y.shape != x.shape or y.dtype != x.dtype:
            empty = self.call(torch.zeros_like, whole)
            value = self.call(operator.add, empty, value)
        return value


def _value(argument: Any) -> Any:
    return argument.meta["value"] if isinstance(argument, fx.Node) else argument
