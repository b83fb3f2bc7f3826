"""Depth: runs of residual blocks that keep the shape of what they get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx, nn

from boundnas.convert.axes import Map
from boundnas.convert.facts import Read
from boundnas.convert.graph import Called
from boundnas.convert.known import DropBranch
from boundnas.convert.reading import operator_name


@dataclass
class Block:
    """A module with one input and one output.

    Args:
        name: Of the module.
        nodes: What it calls.
        input: What it gets.
        output: What it gives.
        is_residual: Whether it adds to what it gets and keeps its shape, so that it may be left
            out.
    """

    name: str
    nodes: list[fx.Node]
    input: fx.Node
    output: fx.Node
    is_residual: bool


@dataclass
class Run:
    """Blocks that follow each other; all but the first may be left out, from the last on.

    Args:
        name: What the stage will be called.
        blocks: At least two.
    """

    name: str
    blocks: list[Block]


def runs(read: Read) -> list[Run]:
    """All runs of a network, none within another's blocks."""
    blocks = [b for call in read.traced.calls if (b := _block(read, call)) is not None]
    parents = dict.fromkeys(b.name.rpartition(".")[0] for b in blocks)
    found: list[Run] = []
    taken: set[fx.Node] = set()
    for parent in sorted(parents, key=_level, reverse=True):  # the innermost runs first
        children = [b for b in blocks if b.name.rpartition(".")[0] == parent]
        for run in _chains(children):
            nodes = {node for block in run for node in block.nodes}
            if not nodes & taken:
                taken |= nodes
                found.append(Run(_name(read, parent, run), run))
    return found


def _level(name: str) -> int:
    return len(name.split(".")) if name else 0


def _chains(blocks: list[Block]) -> Iterator[list[Block]]:
    chain: list[Block] = []
    for block in blocks:
        if chain and not (block.is_residual and _follows(chain[-1], block)):
            if len(chain) > 1:
                yield chain
            chain = []
        chain.append(block)
    if len(chain) > 1:
        yield chain


def _follows(before: Block, block: Block) -> bool:
    inside = set(block.nodes)
    return block.input is before.output and all(user in inside for user in before.output.users)


def _name(read: Read, parent: str, run: list[Block]) -> str:
    """That of the container whose children they are, or of the first and last of them."""
    names = [block.name.rpartition(".")[2] for block in run]
    if parent and list(read.traced.model.get_submodule(parent)._modules) == names:
        return parent
    return ".".join(filter(None, (parent, f"{names[0]}-{names[-1]}")))


def _block(read: Read, call: Called) -> Block | None:
    """A call as a block; none if it gets several maps, or has weights in common with others."""
    if call.output is None or not call.nodes or not call.name:
        return None
    inside = set(call.nodes)
    inputs = {a for node in call.nodes for a in node.all_input_nodes if a not in inside}
    outwards = {n for n in call.nodes if any(user not in inside for user in n.users)}
    once = sum(other.name == call.name for other in read.traced.calls) == 1
    if len(inputs) != 1 or outwards != {call.output} or not once or not _own(read, call, inside):
        return None
    (x,) = inputs
    if not isinstance(read.values[x], Map):
        return None
    keeps = _alike(read.values[x], read.values[call.output])
    residual = keeps and _weighs(read, call.nodes) and _adds(read, call.nodes, x)
    return Block(call.name, call.nodes, x, call.output, residual)


def _own(read: Read, call: Called, inside: set[fx.Node]) -> bool:
    """Whether the modules that it calls are its own and nobody else's."""
    targets = {str(n.target) for n in call.nodes if n.op in ("call_module", "get_attr")}
    targets -= set(read.traced.constants)
    if not all(target.startswith(f"{call.name}.") for target in targets):
        return False
    return not any(
        n.op in ("call_module", "get_attr") and str(n.target) in targets and n not in inside
        for n in read.traced.graph.nodes
    )


def _alike(x: object, y: object) -> bool:
    """Whether two maps have the same shape and channels."""
    if not (isinstance(x, Map) and isinstance(y, Map)) or x.shape != y.shape:
        return False
    searched = [[a if a and not a.is_fixed else None for a in map_.axes] for map_ in (x, y)]
    return all(
        a is b if a is None or b is None else a.groups == b.groups
        for a, b in zip(*searched, strict=True)
    )


def _weighs(read: Read, nodes: list[fx.Node]) -> bool:
    """Whether a block has weights, as an activation that is written with a sum has not."""
    called = (str(node.target) for node in nodes if node.op == "call_module")
    modules = (read.traced.model.get_submodule(name) for name in called)
    own = any(True for module in modules for _ in module.parameters())
    return own or any(node.op == "get_attr" for node in nodes)


def _adds(read: Read, nodes: list[fx.Node], x: fx.Node) -> bool:
    """Whether something is added to what a block gets."""
    same = {x}
    for node in nodes:
        if _is_identity(read, node) and node.args[0] in same:
            same.add(node)
    return any(
        operator_name(node) == "add" and not same.isdisjoint(node.all_input_nodes) for node in nodes
    )


def _is_identity(read: Read, node: fx.Node) -> bool:
    if node.op != "call_module" or not node.args:
        return False
    return isinstance(read.traced.model.get_submodule(str(node.target)), nn.Identity | DropBranch)
