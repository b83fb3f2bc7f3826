"""Rows of a table that are the same for every sample: learned positions.

``self.positions(torch.arange(length))`` has no axis of samples. It is the weight itself, or a part
of it, and follows the width of what it is added to, as any weight that ``forward`` uses by itself.
"""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from boundnas.convert.given import hooked
from boundnas.convert.record import form_of
from boundnas.convert.trace import Traced


def as_weights(traced: Traced) -> None:
    """Replace looked-up rows in a graph by slices of the table."""
    calls = [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        name = str(node.target)
        table = traced.model.get_submodule(name)
        if calls.count(name) > 1 or name in traced.whole or not _is_plain(traced.model, table):
            continue
        rows = _constant(traced, node.args[0])
        if isinstance(rows, Tensor) and _are_in_order(rows):
            assert isinstance(table, nn.Embedding)
            _replace(node, f"{name}.weight", table, rows)


def _is_plain(model: nn.Module, table: nn.Module) -> bool:
    """Whether a module is a table that does nothing but give rows, and nobody else has."""
    if type(table) is not nn.Embedding or hooked(table) or table.max_norm is not None:
        return False
    parameters = [p for m in model.modules() for p in m._parameters.values()]
    alone = sum(p is table.weight for p in parameters) == 1
    return alone and table.padding_idx is None and not (table.scale_grad_by_freq or table.sparse)


def _constant(traced: Traced, node: Any) -> Any:
    """Whole numbers that are made or held, or a part of those; none for anything else."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "get_attr":
        return traced.attribute(str(node.target))
    if node.target is not operator.getitem:
        return None
    of, place = _constant(traced, node.args[0]), cast(Any, map_aggregate(node.args[1], _size))
    return of[place] if isinstance(of, Tensor) else None


def _size(argument: Any) -> Any:
    """A number that a node gives is that of the example."""
    return argument.meta["form"] if isinstance(argument, fx.Node) else argument


def _are_in_order(rows: Tensor) -> bool:
    if rows.dtype != torch.int64 or rows.dim() not in (1, 2) or rows.shape[:-1].numel() != 1:
        return False
    first = rows.flatten()
    return bool((first == first[0] + torch.arange(len(first), device=rows.device)).all())


def _replace(node: fx.Node, name: str, table: nn.Embedding, rows: Tensor) -> None:
    start, graph = int(rows.flatten()[0]), node.graph
    part = slice(start, start + rows.numel())
    held = {**node.meta, "macs": 0, "follows": False}
    with graph.inserting_before(node):
        weight = graph.get_attr(name)
        found = graph.call_function(operator.getitem, (weight, part))
        weight.meta = held | {"form": form_of(table.weight)}
        found.meta = held | {"form": form_of(table.weight[part])}
        if rows.dim() == 2:
            found = graph.call_method("unsqueeze", (found, 0))
            found.meta = dict(node.meta)
    node.replace_all_uses_with(found)
    graph.erase_node(node)
