"""An extracted network cut into blocks that are measured one by one.

A block starts at one node of the network's graph that multiplies, a layer with weights or a product
of maps, and holds the light ones after it: normalization, activation, sum, pooling, reshaping. A
runtime of deployment fuses what is in one block, and hardly anything across two.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from boundnas.errors import CostError
from boundnas.nested import leaves
from boundnas.randomness import stream
from boundnas.supernet.inputs import noise_like
from boundnas.supernet.products import Products
from boundnas.supernet.signature import signature

CONVOLUTION, DEPTHWISE, MAP = "convolution", "depthwise convolution", "map"
"""Kinds of layers that read a map."""


@dataclass(frozen=True, eq=False)
class Block:
    """A part of an extracted network that is measured by itself.

    Args:
        name: The module of the supernet that it starts at; of a function that a module's own
            ``forward`` calls, ``"module().function"``. From the second call on with a number.
        signature: Equal for blocks that compute the same on the same shapes.
        kind: The same without what says how large something is.
        graph: Its nodes, from ``inputs`` to a tuple of tensors.
        root: The network, whose modules they call.
        inputs: What it takes in a pass of the whole network on noise.
        takes: Names of the inputs among the nodes of the network.
        gives: Names of its outputs there.
        readers: Of each output, kinds of layers that read it in the network: `CONVOLUTION`,
            `DEPTHWISE`, `MAP` for a sum or another light node, or an empty text. Runtimes hold a
            map in the layout that these need.
        macs: Its multiply-accumulates for the batch.
    """

    name: str
    signature: str
    kind: str
    graph: fx.Graph
    root: fx.GraphModule
    inputs: tuple[Tensor, ...]
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    readers: tuple[tuple[str, ...], ...]
    macs: int

    @property
    def modules(self) -> frozenset[str]:
        """Modules of the supernet whose ``forward`` its nodes stand in."""
        return frozenset(place for node in self.graph.nodes for place in _places(node))

    @cached_property
    def net(self) -> fx.GraphModule:
        """The block alone, with the weights that it has in the network."""
        return fx.GraphModule(self.root, self.graph).eval()


def blocks_of(net: fx.GraphModule, batch: int = 1) -> list[Block]:
    """The blocks of an extracted network, in the order in which they run.

    Args:
        net: What `boundnas.extract` gave.
        batch: Number of samples of the inputs.

    Returns:
        Blocks that hold every node once that computes something. Run one after the other they give
        what the network gives, bit for bit.

    Raises:
        CostError: A function whose products are not known, or that gives several tensors as one
            value to another block, or something that multiplies and whose result is not read.
    """
    watched = _Watched(net, batch)
    _check_read(watched)
    seen: Counter[str] = Counter()
    blocks = []
    for nodes in _groups(watched):
        name = _name(nodes, watched.macs)
        seen[name] += 1
        number = f" ({seen[name]})" if seen[name] > 1 else ""
        blocks.append(_block(f"{name}{number}", net, nodes, watched))
    return blocks


class _Watched(fx.Interpreter):
    """What every node of a network gives on noise, and its multiply-accumulates.

    Args:
        net: The network.
        batch: Number of samples.
    """

    def __init__(self, net: fx.GraphModule, batch: int) -> None:
        super().__init__(net, garbage_collect_values=False)
        self.macs: Counter[fx.Node] = Counter()
        self.values: dict[fx.Node, Any] = {}
        self.given: set[fx.Node] = set()
        """The inputs, of nested ones their parts too, and the tensors that the network holds."""
        self.written: set[fx.Node] = set()
        """What writes into a tensor that it takes."""
        weight = next(net.parameters(), torch.empty(0))
        inputs = noise_like(net.meta["example"], batch, stream(0, "blocks"), weight)
        with torch.no_grad():
            self.run(inputs)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and keep what it gives."""

        def add(_: str, macs: int) -> None:
            self.macs[n] += macs

        taken = [x for x in map(self.env.get, n.all_input_nodes) if isinstance(x, Tensor)]
        versions = [x._version for x in taken]
        with Products(add, lambda: n.name):
            result = super().run_node(n)
        if versions != [x._version for x in taken]:
            self.written.add(n)
        held = n.op in ("placeholder", "get_attr")
        source = n.args[0] if n.target is operator.getitem else None
        if held or (isinstance(source, fx.Node) and self._is_nested_input(source)):
            self.given.add(n)
        # A copy, as a later node may write into it.
        self.values[n] = result.clone() if isinstance(result, Tensor) else result
        return result

    def _is_nested_input(self, node: fx.Node) -> bool:
        return node in self.given and not isinstance(self.values[node], Tensor)


def _check_read(watched: _Watched) -> None:
    """Refuse what multiplies for nothing: some runtimes leave it out, and others do not.

    Raises:
        CostError: Names the first.
    """
    read: set[fx.Node] = set()
    for node in reversed(watched.graph.nodes):
        if node.op == "output" or node in watched.written or not read.isdisjoint(node.users):
            read.add(node)
    for node in watched.graph.nodes:
        if watched.macs[node] and node not in read:
            raise CostError(
                f"{_name([node], watched.macs)}: nothing reads what it computes, so runtimes may "
                "leave it out, and how long it takes is not known; remove the call from forward, "
                "or use what it gives"
            )


def _groups(watched: _Watched) -> list[list[fx.Node]]:
    """The nodes of every block, each in the order of the graph.

    A light node goes with the latest block that it takes something from; one that takes from none,
    as what prepares the inputs, with the first that takes something from it. One whose result is
    read by none goes with the first of all, so that its time is still there once: runtimes that
    leave it out do so in the block as in the network.
    """
    nodes = [n for n in watched.graph.nodes if n not in watched.given and n.op != "output"]
    number: dict[fx.Node, int] = {}
    count = 0
    for node in nodes:
        before = [number[n] for n in node.all_input_nodes if n in number]
        if watched.macs[node]:
            number[node] = count
            count += 1
        elif before:
            number[node] = max(before)
    for node in reversed(nodes):
        after = [number[n] for n in node.users if n in number]
        number.setdefault(node, min(after, default=0))
    groups: list[list[fx.Node]] = [[] for _ in range(max(count, 1))]
    for node in nodes:
        groups[number[node]].append(node)
    return groups


def _name(nodes: Sequence[fx.Node], macs: Mapping[fx.Node, int]) -> str:
    """See `Block`; from what the tracer noted, as a graph's own names are numbered."""
    node = next((n for n in nodes if macs[n]), nodes[0])
    places = _places(node)
    if node.op == "call_module":
        return places[-1] if places else str(node.target)
    function = node.target if isinstance(node.target, str) else node.target.__name__
    return f"{places[-1] if places else ''}().{function}"


def _places(node: fx.Node) -> list[str]:
    """The modules whose ``forward`` a node stands in, from the supernet itself inwards."""
    stack = node.meta.get("nn_module_stack", {}).values()
    return [place.partition(".")[2] for place, _ in stack]


def _block(name: str, net: fx.GraphModule, nodes: Sequence[fx.Node], watched: _Watched) -> Block:
    """A block of these nodes."""
    values, within = watched.values, {*nodes}
    taken = dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in within)
    tensors = [n for n in taken if n.op != "get_attr" and isinstance(values[n], Tensor)]
    graph = fx.Graph()
    copies: dict[fx.Node, Any] = {n: graph.placeholder(n.name) for n in tensors}
    for node in taken:
        if node.op == "get_attr":
            copies[node] = graph.node_copy(node)
        elif node not in copies:
            copies[node] = _constant(name, values[node])
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    outside = [n for n in nodes if not within.issuperset(n.users)]
    given = [n for n in outside if isinstance(values[n], Tensor)] or [nodes[-1]]
    graph.output(tuple(copies[n] for n in given))
    inputs = tuple(values[n] for n in tensors)
    readers = tuple(_readers(net, n, within, watched.macs) for n in given)
    return Block(
        name,
        *signature(graph, net, inputs, readers),
        graph=graph,
        root=net,
        inputs=inputs,
        takes=tuple(n.name for n in tensors),
        gives=tuple(n.name for n in given),
        readers=readers,
        macs=sum(watched.macs[n] for n in nodes),
    )


def _readers(
    net: fx.GraphModule, node: fx.Node, within: Collection[fx.Node], macs: Mapping[fx.Node, int]
) -> tuple[str, ...]:
    """See `Block`; where convolutions read a value, all others take it as they do."""
    found = {_reader(net, user, macs) for user in node.users if user not in within}
    return tuple(sorted(found & {CONVOLUTION, DEPTHWISE})) or (max(found, default=""),)


def _reader(net: fx.GraphModule, node: fx.Node, macs: Mapping[fx.Node, int]) -> str:
    layer = net.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return DEPTHWISE if layer.groups == layer.in_channels > 1 else CONVOLUTION
    return "" if macs[node] or node.op == "output" else MAP


def _constant(name: str, value: Any) -> Any:
    """What another block computed that is no tensor, as a size: it is the same every time.

    Raises:
        CostError: There are tensors in it.
    """
    if any(isinstance(part, Tensor) for _, part in leaves(value)):
        raise CostError(
            f"{name}: it takes several tensors as one value from a layer before it, so the two "
            "cannot be timed apart; take the tensors out where they are made, as in a, b = f(x)"
        )
    return tuple(value) if isinstance(value, torch.Size) else value
