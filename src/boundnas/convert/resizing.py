"""Sizes that a ``forward`` tells its functions, said in a way that holds for other widths."""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from boundnas.convert.axes import Map, Size
from boundnas.convert.dimensions import Plan
from boundnas.convert.facts import Told
from boundnas.convert.parts import Parts, first


def keep(plan: Plan, node: fx.Node, numbers: list[fx.Node]) -> None:
    """Have numbers of channels that a function computes with be those of the largest network."""
    known = {n: plan.read.values[n] for n in numbers}
    fixed = {n: v.value for n, v in known.items() if any(map(plan.is_searched, v.of))}
    node.args, node.kwargs = map_aggregate(
        (node.args, node.kwargs), lambda a: fixed.get(a, a) if isinstance(a, fx.Node) else a
    )


def tell(parts: Parts, node: fx.Node, told: Told) -> None:
    """Have a reshape find the size of its channels by itself."""
    plan, x = parts.plan, first(node)
    if not any(map(plan.is_searched, (*told.axes, *told.of))):
        return
    graph = node.graph
    with parts.inserting_before(node):
        sizes = [
            -1 if plan.is_searched(axis) else _size(plan, node, x, told, i)
            for i, axis in enumerate(told.axes)
        ]
        if told.stacked is not None and told.cut is not None and plan.is_searched(told.cut.axis):
            del sizes[told.stacked]
            pieces = parts.pieces(node, told.cut)
            shaped = [graph.call_method("reshape", (piece, tuple(sizes))) for piece in pieces]
            new = graph.call_function(torch.stack, (shaped, told.stacked))
            parts.replace(node, new)
            return
    node.op, node.kwargs = "call_method", {}
    node.target = "view" if node.target == "view" else "reshape"
    node.args = (x, tuple(sizes))


def _rows(graph: fx.Graph, x: fx.Node, before: int, after: int) -> fx.Node:
    """The size of the first axis, in which samples, and parts of them, lie before and after."""
    ratio = Fraction(after, before)
    rows = graph.call_method("size", (x, 0))
    if ratio.numerator > 1:
        rows = graph.call_function(operator.mul, (rows, ratio.numerator))
    if ratio.denominator > 1:
        rows = graph.call_function(operator.floordiv, (rows, ratio.denominator))
    return rows


def _size(plan: Plan, node: fx.Node, x: fx.Node, told: Told, i: int) -> Any:
    """The size of an axis without searched channels."""
    given, values = told.given[i], plan.read.values
    whole, before = values[node], values[x]
    assert isinstance(whole, Map)
    if given is None or given == -1:
        if i == 0 and not plan.is_searched(before.axes[0]):
            return _rows(node.graph, x, before.shape[0], whole.shape[0])
        return whole.shape[i]
    known = values.get(given) if isinstance(given, fx.Node) else None
    if isinstance(known, Size) and any(map(plan.is_searched, known.of)):
        return whole.shape[i]
    return given
