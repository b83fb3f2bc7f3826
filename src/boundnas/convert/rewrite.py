"""A network as a graph of elastic layers, called with an architecture."""

from __future__ import annotations

from torch import fx, nn

from boundnas import elastic
from boundnas.convert import resizing
from boundnas.convert.blocks import Block, Run
from boundnas.convert.building import Builder
from boundnas.convert.dimensions import Plan
from boundnas.convert.parts import Parts, first
from boundnas.space import Dimension


def rewrite(plan: Plan, builder: Builder) -> fx.GraphModule:
    """The network with ``forward(x, arch)``.

    Args:
        plan: What is searched. Its graph is used up.
        builder: Makes its elastic layers.
    """
    traced = plan.read.traced
    graph = traced.graph
    x = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(x):
        arch = graph.placeholder("arch")
    parts = Parts(plan, builder)
    for node, numbers in plan.read.numbers.items():
        resizing.keep(plan, node, numbers)
    for node, told in plan.read.sizes.items():
        resizing.tell(parts, node, told)
    for node, weight in plan.read.weights.items():
        parts.weight(node, weight)
    for node, cut in plan.read.splits.items():
        if plan.is_searched(cut.axis):
            parts.split(node, cut)
    for node, pad in plan.read.pads.items():
        if plan.is_searched(pad.axis):
            parts.pad(node, pad)
    for node, repeat in plan.read.repeats.items():
        if plan.is_searched(repeat.axis):
            parts.repeat(node, repeat)
    for binding in plan.read.bindings.values():
        if isinstance(binding.module, nn.RNNBase) and parts.is_elastic(binding.name):
            for node in binding.nodes:
                parts.give_one(node)
    for node in list(graph.nodes):
        node.type = None
        if node.op == "call_module" and parts.is_elastic(str(node.target)):
            node.args, node.kwargs = (first(node), arch), {}
        elif node.op == "call_module" and node.target in traced.computed:
            function = traced.computed[str(node.target)]  # it stays the function that it was
            node.op, node.target = "call_function", function.function
            node.kwargs = {**function.kwargs, **node.kwargs}
        elif _asserts(node):
            graph.erase_node(node)  # what held in the example
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    for run, depth in plan.depths:
        _carve(graph, arch, run, depth, parts)
    return parts.assembled(graph)


def _asserts(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") in (
        "_assert",
        "_check",
    )


def _carve(graph: fx.Graph, arch: fx.Node, run: Run, depth: Dimension, parts: Parts) -> None:
    """Put a stage in the place of a run of blocks."""
    spans = [_span(graph, block, parts) for block in run.blocks]
    gone = [node for span in spans for node in span]
    layers = [_layer(*each, arch, parts) for each in zip(run.blocks, spans, strict=True)]
    last = parts.replaced.get(run.blocks[-1].output, run.blocks[-1].output)
    with graph.inserting_after(gone[-1]):
        stage = graph.call_module(run.name, (_input(gone, arch), arch))
    last.replace_all_uses_with(stage, lambda user: user not in set(gone))
    for node in reversed(gone):
        graph.erase_node(node)
    parts.stages[run.name] = elastic.Stage(layers, depth)


def _span(graph: fx.Graph, block: Block, parts: Parts) -> list[fx.Node]:
    """The nodes of a block, and those that were put before one of them for it."""
    inside = set(block.nodes)
    return [node for node in graph.nodes if parts.owners.get(node, node) in inside]


def _layer(block: Block, span: list[fx.Node], arch: fx.Node, parts: Parts) -> nn.Module:
    graph = fx.Graph()
    held = {_input(span, arch): graph.placeholder("x"), arch: graph.placeholder("arch")}
    for node in span:
        held[node] = graph.node_copy(node, lambda n: held[n])
    graph.output(held[parts.replaced.get(block.output, block.output)])
    kind = type(parts.plan.read.traced.model.get_submodule(block.name)).__name__
    return parts.assembled(graph, block.name, kind)


def _input(span: list[fx.Node], arch: fx.Node) -> fx.Node:
    """What nodes get from before them, beside the architecture."""
    inside = {*span, arch}
    return next(n for node in span for n in node.all_input_nodes if n not in inside)
