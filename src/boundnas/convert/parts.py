"""The modules that a rewritten graph calls, each made once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from operator import getitem
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate
from torch.nn import functional as F

from boundnas import elastic
from boundnas.convert.axes import Map
from boundnas.convert.building import Builder
from boundnas.convert.dimensions import Plan
from boundnas.convert.facts import Cut, Pad, Repeat
from boundnas.convert.functional import added
from boundnas.convert.weights import Weight
from boundnas.space import Joined
from boundnas.supernet.tracing import WHOLE


def first(node: fx.Node) -> Any:
    """What a function or module is called with."""
    return node.args[0] if node.args else next(iter(node.kwargs.values()))


def _joined(graph: fx.Graph, nodes: list[fx.Node], at: int) -> fx.Node:
    return nodes[0] if len(nodes) == 1 else graph.call_function(torch.cat, (nodes, at))


def _is_of_samples(map_: Any) -> bool:
    """Whether the first axis of a map is that of the samples, one entry for each."""
    first = map_.axes[0] if map_.axes else None
    return first is not None and first.of_samples and [s.factor for s in first.segments] == [1]


class Parts:
    """The modules and tensors that graphs are given, each made once."""

    def __init__(self, plan: Plan, builder: Builder) -> None:
        self.plan, self.builder = plan, builder
        self.made: dict[str, Any] = {}
        self.stages: dict[str, nn.Module] = {}
        self.replaced: dict[fx.Node, fx.Node] = {}
        self.owners = {node: node for node in plan.read.traced.graph.nodes}
        """Of every node that was put into the graph, the one that it was put there for."""

    @contextmanager
    def inserting_before(self, node: fx.Node) -> Iterator[None]:
        """Within it nodes are put into the graph before one, and for it."""
        with node.graph.inserting_before(node):
            yield
        new = node.prev
        while new not in self.owners:
            self.owners[new] = node
            new = new.prev

    def replace(self, node: fx.Node, new: fx.Node) -> None:
        """Have what takes a node take another one, which gives the same."""
        self.replaced[node] = new
        self.plan.read.values[new] = self.plan.read.values[node]
        node.replace_all_uses_with(new)

    def is_elastic(self, name: str) -> bool:
        """Whether a module is called with an architecture."""
        return isinstance(self.module(name), elastic.ElasticModule)

    def module(self, name: str) -> nn.Module:
        """What stands in the place of a module."""
        if name in self.stages:
            return self.stages[name]
        if name not in self.made:
            read = self.plan.read
            binding = read.bindings.get(name)
            layer = None if binding is None else self.builder.built(binding)
            module = read.traced.model.get_submodule(name)
            self.made[name] = self._kept(name, module) if layer is None else layer
        found: nn.Module = self.made[name]
        return found

    def weight(self, node: fx.Node, weight: Weight) -> None:
        """Have a weight that ``forward`` uses itself follow the width of what it meets."""
        layer = self.builder.parameter_of(weight)
        if layer is None:
            return
        user = next(iter(node.users))
        with self.inserting_before(user):
            alone = weight.by_itself or weight.is_filled
            x = self._before(user) if alone else self._met(user, node)
            made = node.graph.call_module(weight.name, (x,))
            if weight.by_itself:
                made = node.graph.call_function(getitem, (made, 0))
        self.replace(node, made)
        for each in reversed(weight.nodes):
            if not each.users:
                node.graph.erase_node(each)
        self.made[weight.name] = layer

    def _before(self, node: fx.Node) -> fx.Node:
        """The last map before a node, of a block's nodes or what it gets if it is in one.

        Its first axis is that of the samples, if there is such a map.
        """
        values, weights = self.plan.read.values, self.plan.read.weights
        blocks = (block for run, _ in self.plan.depths for block in run.blocks)
        block = next((b for b in blocks if node in b.nodes), None)
        there = node.graph.nodes if block is None else [block.input, *block.nodes]
        before = itertools.takewhile(lambda n: n is not node, there)
        maps = (n for n in before if isinstance(values.get(n), Map) and n.op != "get_attr")
        found = [n for n in maps if n not in weights and n.meta.get("values", True)]
        return next((n for n in reversed(found) if _is_of_samples(values[n])), found[-1])

    def _met(self, user: fx.Node, node: fx.Node) -> fx.Node:
        """A map that a weight meets, which has as many samples."""
        values, weights = self.plan.read.values, self.plan.read.weights
        return next(
            n
            for n in user.all_input_nodes
            if n is not node
            and n not in weights
            and isinstance(values.get(n), Map)
            and n.meta.get("values", True)
        )

    def split(self, node: fx.Node, cut: Cut) -> None:
        """Have a function that takes a map apart follow its widths."""
        with self.inserting_before(node):
            parts = self.pieces(node, cut)
        for user in list(node.users):
            if user.target is getitem:
                which: Any = user.args[1]
                self.replace(user, parts[which])
            else:
                user.args = map_aggregate(user.args, lambda a: parts if a is node else a)

    def pieces(self, node: fx.Node, cut: Cut) -> tuple[fx.Node, ...]:
        """The parts of a node's map, put where the graph inserts."""
        width, graph = self.plan.width(cut.axis, cut.axis.size), node.graph
        name = added(self.plan.read.traced.model, node, "split", nn.Identity())
        joined = width if isinstance(width, Joined) else Joined((width,))
        self.made[name] = elastic.Split(joined, cut.at)
        apart = graph.call_module(name, (first(node),))
        each = [graph.call_function(getitem, (apart, i)) for i in range(len(cut.axis.segments))]
        rest = iter(each)
        return tuple(_joined(graph, [next(rest) for _ in p.segments], cut.at) for p in cut.pieces)

    def pad(self, node: fx.Node, pad: Pad) -> None:
        """Have zeros stand beside a map, whatever its width."""
        graph, shape = node.graph, self._shape(node)
        with self.inserting_before(node):
            x = first(node)
            if any(pad.others):
                x = graph.call_function(F.pad, (x, pad.others))
            sizes: list[Any] = [graph.call_method("size", (x, i)) for i in range(len(shape))]
            like: dict[str, Any] = {
                k: graph.call_function(getattr, (x, k)) for k in ("dtype", "device")
            }
            maps = [x]
            for end, number in ((0, pad.before), (1, pad.after)):
                if number:
                    sizes[pad.at] = number
                    zeros = graph.call_function(torch.zeros, (tuple(sizes),), like)
                    maps.insert(end * len(maps), zeros)
            new = graph.call_function(torch.cat, (maps, pad.at))
        self.replace(node, new)

    def repeat(self, node: fx.Node, repeat: Repeat) -> None:
        """Have channels stand several times one after another, as maps side by side do."""
        with self.inserting_before(node):
            x = first(node)
            if any(n > 1 for n in repeat.others) or len(repeat.others) > len(self._shape(x)):
                x = node.graph.call_method("repeat", (x, *repeat.others))
            new = node.graph.call_function(torch.cat, ([x] * repeat.times, repeat.at))
        self.replace(node, new)

    def give_one(self, node: fx.Node) -> None:
        """Have what gives a tuple, of which only the first is taken, give that."""
        for user in list(node.users):
            self.replace(user, node)

    def _shape(self, node: fx.Node) -> torch.Size:
        map_: Map = self.plan.read.values[node]
        return map_.shape

    def _kept(self, name: str, module: nn.Module) -> nn.Module:
        """A module as it was; what keeps statistics is frozen, as those would be no network's."""
        traced = self.plan.read.traced
        if name not in traced.whole:
            module.train()  # which not every module of others returns itself from
            return module
        setattr(module, WHOLE, True)
        self.builder.whole[module] = next(
            node.meta["form"]
            for node in traced.graph.nodes
            if node.op == "call_module" and node.target == name
        )
        norms = nn.modules.batchnorm._NormBase
        module.train(not any(isinstance(m, norms) for m in module.modules()))
        return module

    def assembled(self, graph: fx.Graph, inside: str = "", name: str = "Net") -> fx.GraphModule:
        """A module of a graph, whose parts are named from the module ``inside`` on."""
        parts: dict[str, Any] = {}
        for node in graph.nodes:
            if node.op not in ("call_module", "get_attr"):
                continue
            full = str(node.target)
            node.target = full.removeprefix(f"{inside}.") if inside else full
            parts[node.target] = (
                self.module(full)
                if node.op == "call_module"
                else self.plan.read.traced.attribute(full)
            )
        return fx.GraphModule(parts, graph, class_name=name)
