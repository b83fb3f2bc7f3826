"""A block several times in one network: what one more of them takes is its time.

A call of a runtime costs something by itself, more than a small block takes. So one network holds
the block `COPIES` times, side by side and with weights of their own, another one holds it once,
and all else is the same in both.

Every copy's output has to be read by something, in the way in which the network reads it, as
runtimes hold maps in layouts of their own and convert them for whatever reads another one. So
each output has a tap: a layer of the kind that reads it in the network, which gives one pixel
alone. The copy that is alone has as many taps.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from boundnas.latency.blocks import CONVOLUTION, DEPTHWISE, MAP, Block

COPIES = 8
"""With four, predictions of whole networks were off by 4.4 % instead of 2.8 %."""

MOST_BYTES = 1 << 28
"""What all copies may hold in weights and outputs; of large blocks there are fewer."""

FEWEST = 3

_TAP_WIDTH = 16
"""Channels that a convolution gives that is a tap: runtimes hold so many together."""


class Copies(NamedTuple):
    """Two networks that differ in the number of copies of a block.

    Args:
        many: Holds it ``number`` times.
        one: Holds it once.
        inputs: What both take.
        number: See there.
    """

    many: fx.GraphModule
    one: fx.GraphModule
    inputs: tuple[Tensor, ...]
    number: int


def of_one(many: int, one: int, number: int) -> int:
    """The time of one copy.

    Args:
        many: The time of a network with so many copies.
        one: That of the other.
        number: Of copies.
    """
    return max(round((many - one) / (number - 1)), 0)


def copies(block: Block, taps: bool = True) -> Copies:
    """The two networks whose times tell that of a block.

    Args:
        block: A part of an extracted network.
        taps: Whether outputs are read by taps; otherwise the networks give them as they are, for
            runtimes that compute no more of a map than what is read.
    """
    with torch.no_grad():
        outputs = block.net(*block.inputs)
    number = _number(block, outputs)
    # Without weights, copies on the same inputs are the same, and runtimes compute them once.
    own = not any(True for _ in block.net.parameters())
    inputs = [x.clone() for _ in range(number) for x in block.inputs] if own else [*block.inputs]
    many, one = (_assembled(block, outputs, number, held, taps, own) for held in (number, 1))
    return Copies(many, one, tuple(inputs), number)


def _number(block: Block, outputs: Sequence[Tensor]) -> int:
    held = (*outputs, *block.net.parameters())
    size = sum(x.numel() * x.element_size() for x in held)
    return max(min(COPIES, MOST_BYTES // max(size, 1)), FEWEST)


def _assembled(
    block: Block, outputs: Sequence[Tensor], number: int, held: int, taps: bool, own: bool
) -> fx.GraphModule:
    """A network with so many of the copies; see `copies`."""
    root, graph = nn.Module(), fx.Graph()
    given = [
        [graph.placeholder(f"input{k}_{i}") for i in range(len(block.inputs))]
        for k in range(number if own else 1)
    ]
    read = _Read(root, graph)
    for k, inputs in enumerate(given if own else ()):
        for node, example in zip(inputs, block.inputs, strict=True):
            read(node, example, "", k)
    found: list[list[fx.Node]] = []
    for k in range(number):
        if k < held:
            root.add_module(f"copy{k}", _varied(block.net, k))
            found.append(_inlined(graph, block.net, f"copy{k}", given[k % len(given)]))
        if taps:
            for node, example, readers in zip(found[-1], outputs, block.readers, strict=True):
                for reader in readers:
                    read(node, example, reader, k)
    graph.output(read.totals if taps else tuple(node for nodes in found for node in nodes))
    return fx.GraphModule(root, graph).eval()


def _varied(net: fx.GraphModule, number: int) -> nn.Module:
    """What a block holds, with weights of its own: what is equal is held, or computed, once."""
    held = nn.Module()
    held._modules, held._parameters, held._buffers = copy.deepcopy(
        (net._modules, net._parameters, net._buffers)
    )
    with torch.no_grad():
        for parameter in held.parameters():
            if parameter.is_floating_point():
                parameter.mul_(1 + number / 64)
    return held


def _inlined(
    graph: fx.Graph, net: fx.GraphModule, place: str, inputs: Sequence[fx.Node]
) -> list[fx.Node]:
    """The nodes of a block among those of another graph; gives its outputs."""
    given, made = iter(inputs), dict[fx.Node, fx.Node]()
    for node in net.graph.nodes:
        if node.op == "placeholder":
            made[node] = next(given)
        elif node.op != "output":
            made[node] = graph.node_copy(node, made.__getitem__)
            if node.op in ("call_module", "get_attr"):
                made[node].target = f"{place}.{node.target}"
    (output,) = (node for node in net.graph.nodes if node.op == "output")
    return [made[node] for node in output.args[0]]


class _Read:
    """Adds up what taps give.

    Args:
        root: Gets the taps.
        graph: Gets the nodes.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        self._root, self._graph = root, graph
        self._taps = count()
        self._totals: dict[torch.Size, fx.Node] = {}

    @property
    def totals(self) -> tuple[fx.Node, ...]:
        """The sums, each of values of one shape."""
        return tuple(self._totals.values())

    def __call__(self, node: fx.Node, example: Tensor, reader: str, number: int) -> None:
        """Read one value.

        Args:
            node: The value.
            example: One of its type and shape.
            reader: What reads it; see `Block.readers`.
            number: Tells equal taps apart, so that none is left out as a repetition.
        """
        made, name = _tap(example, reader, number), f"tap{next(self._taps)}"
        self._root.add_module(name, made)
        found = self._graph.call_module(name, (node,))
        with torch.no_grad():
            shape = made(example).shape
        if shape in self._totals:
            found = self._graph.call_function(operator.add, (self._totals[shape], found))
        self._totals[shape] = found


def _tap(example: Tensor, reader: str, number: int) -> nn.Module:
    """What reads a value as a layer of a kind does, and gives one pixel of it."""
    sizes = tuple(example.shape[2:])
    if reader in (CONVOLUTION, DEPTHWISE):
        channels = example.shape[1]
        width, groups = (channels, channels) if reader == DEPTHWISE else (_TAP_WIDTH, 1)
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(sizes) - 1]
        conv = nn.utils.skip_init(
            kind, channels, width, 1, stride=sizes, groups=groups, bias=False
        ).requires_grad_(False)
        conv.weight.fill_(1 / (1 + number))  # of its own
        return conv
    if reader == MAP and len(sizes) == 2:
        return nn.MaxPool2d(1, (sizes[0] + number, sizes[1]))
    return _First(number)


class _First(nn.Module):
    """One number of a value."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(1,)``."""
        place = self.place % x.numel()
        return x.flatten()[place : place + 1].float()
