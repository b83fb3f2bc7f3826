"""A network as a graph of elastic layers, called with an architecture."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from boundnas import elastic
from boundnas.convert.axes import Axis, Map
from boundnas.convert.blocks import Block, Run
from boundnas.convert.building import Builder
from boundnas.convert.dimensions import Plan
from boundnas.convert.functional import added
from boundnas.convert.weights import Weight
from boundnas.space import Dimension, Joined
from boundnas.supernet.tracing import WHOLE


def rewrite(plan: Plan, builder: Builder) -> fx.GraphModule:
    """The network with ``forward(x, arch)``.

    Args:
        plan: What is searched. Its graph is used up.
        builder: Makes its elastic layers.
    """
    traced = plan.read.traced
    graph, parts = traced.graph, _Parts(plan, builder)
    parts.traced = set(graph.nodes)
    x = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(x):
        arch = graph.placeholder("arch")
    parts.traced.add(arch)
    for axis, tell in plan.read.sizes.values():
        if plan.is_searched(axis):
            tell()
    for node, weight in plan.read.weights.items():
        parts.weight(node, weight)
    for node, (axis, at) in plan.read.splits.items():
        if plan.is_searched(axis):
            parts.split(node, axis, at)
    for node in list(graph.nodes):
        node.type = None
        if node.op == "call_module" and parts.is_elastic(str(node.target)):
            node.args, node.kwargs = (_first(node), arch), {}
        elif _asserts(node):
            graph.erase_node(node)  # what held in the example
    for run, depth in plan.depths:
        _carve(graph, arch, run, depth, parts)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    return parts.assembled(graph)


def _first(node: fx.Node) -> Any:
    return node.args[0] if node.args else next(iter(node.kwargs.values()))


def _asserts(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") in (
        "_assert",
        "_check",
    )


class _Parts:
    """The modules and tensors that graphs are given, each made once."""

    def __init__(self, plan: Plan, builder: Builder) -> None:
        self.plan, self.builder = plan, builder
        self.made: dict[str, Any] = {}
        self.stages: dict[str, nn.Module] = {}
        self.traced: set[fx.Node] = set()

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
        with node.graph.inserting_before(user):
            made = node.graph.call_module(weight.name, (self._met(user, node),))
        node.replace_all_uses_with(made)
        for each in reversed(weight.nodes):
            if not each.users:
                node.graph.erase_node(each)
        self.made[weight.name] = layer

    def _met(self, user: fx.Node, node: fx.Node) -> fx.Node:
        """A map that a weight meets, which has as many samples."""
        values, weights = self.plan.read.values, self.plan.read.weights
        return next(
            n
            for n in user.all_input_nodes
            if n is not node and n not in weights and isinstance(values.get(n), Map)
        )

    def split(self, node: fx.Node, axis: Axis, at: int) -> None:
        """Have a function that takes a map apart follow its widths."""
        width = self.plan.width(axis, axis.size)
        assert isinstance(width, Joined)
        module = elastic.Split(width, at)
        name = added(self.plan.read.traced.model, node, "split", module)
        node.op, node.target, node.args, node.kwargs = "call_module", name, (_first(node),), {}
        self.made[name] = module

    def _kept(self, name: str, module: nn.Module) -> nn.Module:
        """A module as it was; what keeps statistics is frozen, as those would be no network's."""
        traced = self.plan.read.traced
        if name not in traced.whole:
            return module.train()
        setattr(module, WHOLE, True)
        self.builder.whole[module] = next(
            node.meta["form"]
            for node in traced.graph.nodes
            if node.op == "call_module" and node.target == name
        )
        norms = nn.modules.batchnorm._NormBase
        return module.train(not any(isinstance(m, norms) for m in module.modules()))

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


def _carve(graph: fx.Graph, arch: fx.Node, run: Run, depth: Dimension, parts: _Parts) -> None:
    """Put a stage in the place of a run of blocks."""
    nodes = list(graph.nodes)
    place = {node: i for i, node in enumerate(nodes)}
    layers, gone = [], []
    for block in run.blocks:
        inside = [place[node] for node in block.nodes if node in place]
        start = inside[0]
        while nodes[start - 1] not in parts.traced:  # what was put before the first of them
            start -= 1
        span = nodes[start : inside[-1] + 1]
        layers.append(_layer(block, span, arch, parts))
        gone += span
    last = run.blocks[-1].output
    with graph.inserting_after(gone[-1]):
        stage = graph.call_module(run.name, (_input(gone, arch), arch))
    last.replace_all_uses_with(stage, lambda user: user not in set(gone))
    for node in reversed(gone):
        graph.erase_node(node)
    parts.stages[run.name] = elastic.Stage(layers, depth)


def _layer(block: Block, span: list[fx.Node], arch: fx.Node, parts: _Parts) -> nn.Module:
    graph = fx.Graph()
    held = {_input(span, arch): graph.placeholder("x"), arch: graph.placeholder("arch")}
    for node in span:
        held[node] = graph.node_copy(node, lambda n: held[n])
    graph.output(held[block.output])
    kind = type(parts.plan.read.traced.model.get_submodule(block.name)).__name__
    return parts.assembled(graph, block.name, kind)


def _input(span: list[fx.Node], arch: fx.Node) -> fx.Node:
    """What nodes get from before them, beside the architecture."""
    inside = {*span, arch}
    return next(n for node in span for n in node.all_input_nodes if n not in inside)
