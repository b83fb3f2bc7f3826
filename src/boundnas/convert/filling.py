"""Constants that a ``forward`` fills for every sample, as the state that a loop starts from.

``h = torch.zeros(len(x), 16)`` follows the width of what it meets, as a weight that nobody trains.
"""

from __future__ import annotations

import torch
from torch import fx

from boundnas.convert.graph import Traced
from boundnas.convert.reading import operator_name
from boundnas.convert.record import Form, in_a_row
from boundnas.convert.weights import FILLED

_FILLED = {"zeros": 0.0, "ones": 1.0, "new_zeros": 0.0, "new_ones": 1.0}


def as_weights(traced: Traced) -> None:
    """Replace tensors that are filled with one number for every sample by repeated constants."""
    for node in list(traced.graph.nodes):
        name, form = operator_name(node), node.meta["form"]
        if name not in _FILLED or not isinstance(form, Form) or len(form.shape) < 2:
            continue
        sizes = in_a_row(node.args[1:] if name.startswith("new") else node.args)
        samples = sizes[0] if sizes else None
        if form.dtype.is_floating_point and isinstance(samples, fx.Node):
            _replace(traced, node, samples, _FILLED[name])


def _replace(traced: Traced, node: fx.Node, samples: fx.Node, number: float) -> None:
    form, graph = node.meta["form"], node.graph
    device = next(traced.model.parameters()).device
    sizes = [n if i in (1, len(form.shape) - 1) else 1 for i, n in enumerate(form.shape)]
    one = torch.full(sizes, number, dtype=form.dtype, device=device)
    told = [-1 if n == m else m for n, m in zip(sizes[1:], form.shape[1:], strict=True)]
    name = f"{FILLED}{node.name}"
    traced.model.register_buffer(name, one)
    held = {**node.meta, "macs": 0, "follows": False, "values": False}
    with graph.inserting_before(node):
        constant = graph.get_attr(name)
        repeated = graph.call_method("expand", (constant, samples, *told))
    constant.meta = held | {"form": Form(one.shape, one.dtype)}
    repeated.meta = dict(node.meta)
    _put(traced, node, [constant, repeated])


def _put(traced: Traced, node: fx.Node, made: list[fx.Node]) -> None:
    """Have nodes, of which the last gives the same, stand in the place of one."""
    node.replace_all_uses_with(made[-1])
    for call in traced.calls:
        for i in [i for i, n in enumerate(call.nodes) if n is node]:
            call.nodes[i : i + 1] = made
        call.output = made[-1] if call.output is node else call.output
    node.graph.erase_node(node)
