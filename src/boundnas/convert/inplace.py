"""Functions that work in place become functions that give a new tensor.

A supernet computes some maps again, and ghosts beside others, so nothing may be overwritten. What
is read after it was overwritten reads the new tensor instead.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

_OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod, operator.ipow: operator.pow, operator.iand: operator.and_,
    operator.ior: operator.or_, operator.ixor: operator.xor,
}  # fmt: skip


def remove(model: nn.Module, graph: fx.Graph) -> None:
    """Have nothing in a graph work in place.

    Args:
        model: Whose modules it calls; their ``inplace`` is switched off.
        graph: It is changed.
    """
    place = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if _is_in_place(model, node):
            overwritten = node.args[0] if node.args else node.kwargs.get("input")
            if isinstance(overwritten, fx.Node):
                for user in list(overwritten.users):
                    if place[user] > place[node]:
                        user.replace_input_with(overwritten, node)
            _make_new(node)
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


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


def _make_new(node: fx.Node) -> None:
    if node.op == "call_method":
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
