"""Functions that work in place become functions that give a new tensor.

A supernet computes some maps again, and ghosts beside others, so nothing may be overwritten. What
is read after it was overwritten reads the new tensor instead.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate
from torch.nn import functional

from boundnas.convert import assigning
from boundnas.convert.graph import Called

_OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod, operator.ipow: operator.pow, operator.iand: operator.and_,
    operator.ior: operator.or_, operator.ixor: operator.xor,
}  # fmt: skip


_FILLING: dict[Any, Callable[..., Any]] = {"zero_": torch.zeros_like, "fill_": torch.full_like}
"""Methods that have no other of the same name, and functions that do the same."""


_TURNING = ("squeeze_", "unsqueeze_", "transpose_", "swapaxes_", "swapdims_", "t_")
"""Methods that change the shape, so that what was recorded has another one since."""


def remove(model: nn.Module, graph: fx.Graph, calls: Iterable[Called]) -> None:
    """Have nothing in a graph work in place.

    Args:
        model: Whose modules it calls; their ``inplace`` is switched off.
        graph: It is changed.
        calls: Of modules; those within which something is added are told.
    """
    place = {node: i for i, node in enumerate(graph.nodes)}

    def replace(old: Any, new: fx.Node, since: fx.Node) -> None:
        for user in list(old.users):
            if place.get(user, -1) > place[since]:
                user.replace_input_with(old, new)

    for node in list(graph.nodes):
        assigns = node.target is operator.setitem
        if not assigns and not _is_in_place(model, node):
            continue
        overwritten = node.args[0] if node.args else node.kwargs.get("input")
        made = assigning.as_new(node) if assigns else []
        new = made[-1] if made else node
        if isinstance(overwritten, fx.Node):
            replace(overwritten, new, node)
        if not assigns:
            _make_new(node)
        if back := _put_back(new, overwritten):
            replace(overwritten.args[0], back[-1], node)
            made = [*made, *back]
        for call in (c for c in calls if node in c.nodes):
            at = call.nodes.index(node) + 1
            call.nodes[at:at] = made
        if assigns:
            graph.erase_node(node)
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _put_back(part: fx.Node, before: Any) -> list[fx.Node]:
    """What makes a tensor of which a part along one axis became another, which is the last.

    Args:
        part: What the part became.
        before: What it was: ``whole[start:stop]``, as in ``bias[:n].zero_()``; for anything else
            nothing is made.
    """
    if not isinstance(before, fx.Node) or before.target is not operator.getitem:
        return []
    whole: Any = before.args[0]
    key: Any = before.args[1]
    keys = list(key) if isinstance(key, tuple) else [key]
    if not isinstance(whole, fx.Node) or not all(isinstance(k, slice) and not k.step for k in keys):
        return []
    cut = [i for i, k in enumerate(keys) if k != slice(None)]
    if len(cut) != 1:
        return []
    at, graph = cut[0], part.graph
    meta = {**part.meta, "macs": 0, "samples": False}
    pieces = [part]
    with graph.inserting_before(part.next):
        for end, place in ((0, slice(None, keys[at].start)), (1, slice(keys[at].stop, None))):
            if place != slice(None):
                other = graph.call_function(operator.getitem, (whole, (*keys[:at], place)))
                taken: Any = map_aggregate(other.args[1], _value)
                other.meta = {**meta, "value": whole.meta["value"][taken]}
                pieces.insert(end * len(pieces), other)
        found = graph.call_function(torch.cat, (pieces, at))
    found.meta = {**meta, "value": whole.meta["value"]}
    return [*(p for p in pieces if p is not part), found]


def _value(argument: Any) -> Any:
    return argument.meta["value"] if isinstance(argument, fx.Node) else argument


def _is_in_place(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return getattr(model.get_submodule(str(node.target)), "inplace", False) is True
    if node.op == "call_method":
        return _named_in_place(str(node.target))
    if node.op != "call_function":
        return False
    return (
        node.target in _OPERATORS
        or node.kwargs.get("inplace") is True
        or _named_in_place(getattr(node.target, "__name__", ""))
    )


def _named_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def is_only_in_place(method: str) -> bool:
    """Whether a method changes a tensor's shape, or all of it in a way that no other one does."""
    new = method in _FILLING or hasattr(torch.Tensor, method.removesuffix("_"))
    return _named_in_place(method) and (not new or method in _TURNING)


def _make_new(node: fx.Node) -> None:
    if node.op == "call_method" and node.target in _FILLING:
        node.op, node.target = "call_function", _FILLING[node.target]
    elif node.op == "call_method":
        node.target = str(node.target).removesuffix("_")
    elif node.op == "call_function":
        if node.kwargs.get("inplace") is True:
            node.kwargs = {**node.kwargs, "inplace": False}
        elif node.target in _OPERATORS:
            node.target = _OPERATORS[node.target]
        else:
            name = getattr(node.target, "__name__", "").removesuffix("_")
            if (new := _without_mark(node.target, name)) is not None:
                node.target = new


def _without_mark(function: Any, name: str) -> Callable[..., Any] | None:
    """The function beside one in place, as ``torch.relu`` beside ``torch.relu_``."""
    for home in (torch, functional):
        if getattr(home, f"{name}_", None) is function:
            return getattr(home, name, None)
    return None
