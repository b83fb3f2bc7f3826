"""A network as a graph of what its ``forward`` calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from boundnas.convert.record import Form


@dataclass
class Called:
    """One call of a module that has modules inside.

    Args:
        name: Of the module.
        nodes: What it calls, in order; those of the modules inside included.
        output: What it gives; none if that is no single tensor.
    """

    name: str
    nodes: list[fx.Node]
    output: fx.Node | None


@dataclass(frozen=True)
class Way:
    """How a weight is computed of parameters and buffers alone.

    Args:
        function: Called with these, in order.
        parts: They, by names of their own.
    """

    function: fx.GraphModule
    parts: Mapping[str, Tensor]


@dataclass(frozen=True)
class Function:
    """A function that became a layer, which takes the weights that are computed as arguments.

    Args:
        function: It, as ``F.linear``.
        kwargs: Its other arguments but the map, which is the first.
        weights: How each of its weights that is no parameter as it stands is computed, by its name.
    """

    function: Any
    kwargs: Mapping[str, Any]
    weights: Mapping[str, Way]


@dataclass
class Traced:
    """A network as a graph.

    Args:
        model: Whose modules the graph calls by name.
        graph: Of each node, ``meta["form"]`` is what it gave, with shapes in place of tensors, and
            ``meta["source"]`` the file and line it is called from, ``meta["inside"]`` the module
            whose ``forward`` calls it, ``meta["macs"]`` its multiply-accumulates for the batch,
            ``meta["follows"]`` whether it is computed from the input, and ``meta["values"]``
            whether it is, or holds, a tensor that is computed from the values of the input.
        calls: The calls of modules with modules inside, the inner ones first.
        whole: Modules that could not be followed, by name, and why.
        read: Numbers that a branch or a loop depended on.
        constants: Tensors that were made while it was read, by their names in the graph.
        computed: Layers that functions became and whose weights are computed of others, by name.
        left_out: What is done in training only, and is not in the graph.
        rounds: Whether something of it is computed otherwise now, the same but for rounding.
    """

    model: nn.Module
    graph: fx.Graph = field(default_factory=fx.Graph)
    calls: list[Called] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)
    read: list[fx.Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    computed: dict[str, Function] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    rounds: bool = False

    def put(
        self, node: fx.Node, x: fx.Node, function: Any, args: tuple[Any, ...], shape: Iterable[int]
    ) -> fx.Node:
        """Put a function of a map before the node that is to take what it gives.

        Args:
            node: That one; whatever calls it calls both.
            x: The map.
            function: It, or the name of a method.
            args: What it takes beside the map.
            shape: Of what it gives.
        """
        kind = "call_method" if isinstance(function, str) else "call_function"
        with node.graph.inserting_before(node):
            made = node.graph.create_node(kind, function, (x, *args))
        held = {key: x.meta[key] for key in ("follows", "values")}
        form = Form(torch.Size(shape), x.meta["form"].dtype)
        made.meta = {**node.meta, **held, "macs": 0, "form": form}
        for call in self.calls:
            if node in call.nodes:
                call.nodes.insert(call.nodes.index(node), made)
        return made

    def attribute(self, name: str) -> Any:
        """What the graph reads under a name."""
        return self.constants[name] if name in self.constants else attrgetter(name)(self.model)
