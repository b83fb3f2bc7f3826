"""Rows of a table that are the same for every sample: learned positions.

``self.positions(torch.arange(length))`` has no axis of samples. It is the weight itself, or a part
of it, and follows the width of what it is added to, as any weight that ``forward`` uses by itself.
So is ``self.positions(torch.arange(length).expand(samples, length))`` where it is added to a map.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from boundnas.convert.given import hooked
from boundnas.convert.graph import Traced
from boundnas.convert.reading import operator_name
from boundnas.convert.record import Form, form_of, holds_tensor

_ARRANGING = {
    "getitem", "unsqueeze", "expand", "repeat", "tile", "view", "reshape", "flatten", "squeeze",
    "transpose", "to", "long", "int", "clone", "contiguous", "detach", "broadcast_to", "flip",
    "gather", "arange", "zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "cumsum",
    "add", "sub", "mul",
}  # fmt: skip
"""Functions that make whole numbers of whole numbers, the same at every call."""
_LIKE = {"zeros_like": 0, "ones_like": 0, "full_like": 0, "expand_as": 1, "view_as": 1}
"""Likewise, of another tensor's shape; which of the arguments that is."""


class _NotConstantError(Exception):
    """A value follows the samples, or is none of whole numbers."""


def as_weights(traced: Traced) -> None:
    """Replace looked-up rows in a graph by parts of the table."""
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        name = str(node.target)
        table = traced.model.get_submodule(name)
        if name in traced.whole or not _is_plain(table) or not _is_alone(traced, node, table):
            continue
        part = _part(traced, node)
        if part is not None:
            assert isinstance(table, nn.Embedding)
            _replace(node, f"{name}.weight", table, part)
        elif isinstance(node.args[0], fx.Node) and not node.args[0].meta["follows"]:
            _look_up(node, f"{name}.weight", table)


def _is_plain(table: nn.Module) -> bool:
    """Whether a module is a table that does nothing but give rows."""
    if type(table) is not nn.Embedding or hooked(table) or table.max_norm is not None:
        return False
    return table.padding_idx is None and not (table.scale_grad_by_freq or table.sparse)


def _is_alone(traced: Traced, call: fx.Node, table: nn.Module) -> bool:
    """Whether a table is called once, and nothing else has its weight."""
    for node in traced.graph.nodes:
        if node is call or not node.users:
            continue
        held: list[Any] = []
        if node.op == "call_module":
            held = [*traced.model.get_submodule(str(node.target)).parameters()]
        elif node.op == "get_attr":
            held = [traced.attribute(str(node.target))]
        if any(p is table.weight for p in held):
            return False
    return True


def _part(traced: Traced, node: fx.Node) -> slice | list[int] | None:
    """The rows that a table gives to all samples, each once; none if it does not."""
    try:
        rows = _constant(traced, node.args[0], {})
    except _NotConstantError:
        return None
    if not isinstance(rows, Tensor) or rows.dim() not in (1, 2) or not rows.numel():
        return None
    rows, each = rows.reshape(-1, rows.shape[-1])[0], rows.reshape(-1, rows.shape[-1])
    if len(each) > 1 and not (_is_added(node) and bool((each == rows).all())):
        return None  # of every sample its own
    found = rows.tolist()
    if len(found) > 1 and len(set(found)) == 1 and _is_added(node):
        return slice(found[0], found[0] + 1)
    if found == [*range(found[0], found[0] + len(found))]:
        return slice(found[0], found[0] + len(found))
    return found if len(set(found)) == len(found) else None


def _is_added(node: fx.Node) -> bool:
    """Whether rows are added to maps of their shape alone, and so may be repeated by the sum."""
    for user in node.users:
        other = [n.meta["form"] for n in user.all_input_nodes if n is not node]
        form = node.meta["form"]
        sums = operator_name(user) == "add" and len(other) == 1
        if not sums or not isinstance(other[0], Form) or other[0].shape != form.shape:
            return False
    return True


def _constant(traced: Traced, node: Any, known: dict[fx.Node, Any]) -> Any:
    """What a node gives whatever the samples are: numbers, or whole numbers in a tensor.

    Raises:
        _NotConstantError: It follows the samples, or is something else.
    """
    if not isinstance(node, fx.Node):
        return node
    if node not in known:
        known[node] = _evaluated(traced, node, known)
    return known[node]


def _evaluated(traced: Traced, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    form = node.meta["form"]
    if not isinstance(form, Form) and holds_tensor(form):
        raise _NotConstantError
    if not isinstance(form, Form):
        return form  # a number of the example, a type, a device
    if form.dtype.is_floating_point:
        raise _NotConstantError
    if node.op == "get_attr":
        return traced.attribute(str(node.target))
    name = operator_name(node)
    like = _LIKE.get(name)
    if like is None and name not in _ARRANGING:
        raise _NotConstantError
    args: list[Any] = list(node.args)
    if like is not None:
        if like >= len(args):
            raise _NotConstantError
        of = args[like].meta["form"]
        args[like] = torch.zeros(of.shape, dtype=of.dtype)
    args, kwargs = map_aggregate((args, node.kwargs), lambda a: _constant(traced, a, known))
    function = node.target if callable(node.target) else getattr(Tensor, str(node.target))
    return function(*args, **kwargs)


def _replace(node: fx.Node, name: str, table: nn.Embedding, part: slice | list[int]) -> None:
    graph, held = node.graph, {**node.meta, "macs": 0, "follows": False, "values": False}
    rows = table.weight[part]
    with graph.inserting_before(node):
        weight = graph.get_attr(name)
        found = graph.call_function(operator.getitem, (weight, part))
        weight.meta = held | {"form": form_of(table.weight)}
        found.meta = held | {"form": form_of(rows)}
        if len(node.meta["form"].shape) == 3:
            found = graph.call_method("unsqueeze", (found, 0))
            found.meta = held | {"form": form_of(rows[None])}
    node.replace_all_uses_with(found)
    graph.erase_node(node)


def _look_up(node: fx.Node, name: str, table: nn.Module) -> None:
    """Have the weight itself be read by numbers, some of them several times."""
    with node.graph.inserting_before(node):
        weight = node.graph.get_attr(name)
    weight.meta = {
        **node.meta,
        "macs": 0,
        "follows": False,
        "values": False,
        "form": form_of(table.weight),
    }
    node.op, node.target, node.args = "call_function", operator.getitem, (weight, node.args[0])
    node.meta["follows"] = node.meta["values"] = False
