"""What a network holds in memory while it computes, moment by moment.

The plan of an extracted network is simple to state, and near to what a runtime does:

- Steps run in the order of the graph. A tensor is held from the step that makes it to the last one
  that takes it. Inputs are the caller's and held all along; weights and constants do not count.
- What only gives a tensor another shape takes nothing. What rearranges or cuts it makes a copy.
- Functions of single elements, BatchNorm, softmax and attention write into an operand of the same
  size that nothing takes any more, as where they are fused into the layer before. Activations that
  multiply their input by a function of it (`boundnas.cost.operators.GATED`) hold both.
- A convolution whose result, normalized or not, is added to a map that nothing takes any more adds
  into that map.
- Attention holds the scores of all heads, queries times keys, beside its operands.
- Of runtimes that compute blocks of channels, a map holds whole blocks from the convolution that
  makes it on, as long as functions of single elements and pooling follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from boundnas.cost.operators import JOINS, Operators, memory
from boundnas.cost.plains import Affine, Plains
from boundnas.elastic import ElasticLayer
from boundnas.elastic.width import GIVES
from boundnas.nested import mapped
from boundnas.space import Architecture, Setting, Width, parts_of
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.tracing import trace

Parts = tuple[tuple[Setting, Fraction], ...]
"""Bytes for each channel of a setting, of several side by side in order."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """The memory of one tensor.

    Args:
        size: Bytes of its numbers.
        parts: How they follow from widths.
        block: It holds whole blocks of so many channels.
    """

    size: int
    parts: Parts
    block: int = 1

    def held(self, arch: Architecture) -> int:
        """Bytes that it takes."""
        sizes = [(arch.size(setting), each) for setting, each in self.parts]
        return self.size + int(sum((rounded(n, self.block) - n) * each for n, each in sizes))


@dataclass(frozen=True)
class Step:
    """One node of a graph that computes.

    Args:
        name: The module whose ``forward`` it is in, and its number among the nodes there.
        takes: The memory of what it takes.
        makes: That of what it makes.
        within: Whether it may write into what it takes.
        beside: What it needs while it runs.
        kind: What of `Plan._added` it may be: a convolution, a BatchNorm or a sum.
    """

    name: tuple[str, int]
    takes: Sequence[Buffer]
    makes: Sequence[Buffer]
    within: bool
    beside: Sequence[Buffer]
    kind: str = ""


class Plan(fx.Interpreter):
    """The steps of an architecture, followed on the meta device, where nothing is computed.

    Args:
        model: The supernet.
        arch: The architecture.
        batch: Number of samples.
        block: Channels that a runtime holds together.
        plains: The plain forms of the model's modules, shared by the plans of many architectures.

    Raises:
        CostError: A module of torch does many things at once.
    """

    def __init__(
        self,
        model: Supernet,
        arch: Architecture,
        batch: int,
        block: int = 1,
        plains: Plains | None = None,
    ) -> None:
        graph, self.tensors = trace(model, arch)
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self.plains = plains or Plains(model)
        self.modules, self.arch = self.plains.modules, arch
        called = dict.fromkeys(n.target for n in graph.nodes if n.op == "call_module")
        self.plain = {target: self.plains.of(str(target), arch) for target in called}
        self.block = block
        self.inputs: list[Buffer] = []
        self.outputs: Sequence[Buffer] = ()
        self.steps: list[Step] = []
        self._held: dict[int, Buffer] = {}
        self._counts: Counter[str] = Counter()
        weight = next(model.parameters())
        with torch.no_grad():
            self.run(mapped(lambda x: _empty(x, batch, weight), model.example))

    def moments(self) -> dict[tuple[str, int], list[Buffer]]:
        """What is held at every step that makes something of its own, and at the start."""
        last = {b: i for i, step in enumerate(self.steps) for b in step.takes}
        last |= dict.fromkeys((*self.inputs, *self.outputs), len(self.steps))
        held, found = dict.fromkeys(self.inputs), {("", 0): list(self.inputs)}
        added = self._added(last)
        for i, step in enumerate(self.steps):
            free = [b for b in step.takes if step.within and last[b] == i]
            before = len(held)
            for made in (b for b in step.makes if b not in added):
                alike = [b for b in free if b in held and b.size == made.size]
                if alike:  # first what follows the same widths
                    held.pop(next((b for b in alike if b.parts == made.parts), alike[0]))
                held[made] = None
            if len(held) > before or step.beside:
                found[step.name] = [*held, *step.beside]
            held = {b: None for b in held if last.get(b, i) > i}
        return found

    def _added(self, last: Mapping[Buffer, int]) -> set[Buffer]:
        """What convolutions make that is added into another map, so that it needs no memory.

        Args:
            last: The last step that takes each.
        """
        made = {b: i for i, step in enumerate(self.steps) for b in step.makes}
        uses = Counter(b for step in self.steps for b in step.takes)
        found: set[Buffer] = set()
        for i, step in enumerate(self.steps):
            if step.kind != "sum" or len({b.size for b in step.takes}) > 1:
                continue
            into, *of = sorted(step.takes, key=lambda b: made.get(b, -1))
            while of and uses[of[0]] == 1 and self.steps[made[of[0]]].kind == "norm":
                of.insert(0, self.steps[made[of[0]]].takes[0])
            conv = self.steps[made.get(of[0], -1)] if of else step
            free = into in made and last[into] == i and into not in (*conv.takes, *found)
            if free and conv.kind == "convolution" and all(uses[b] == 1 for b in of):
                found.update(of)
        return found

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and note what it takes and makes."""
        given = [self.env[node] for node in n.all_input_nodes]
        taken = self._buffers(given)
        result, operators = self._known(n, taken) or self._run_anew(n, given, taken)
        if n.op == "output":
            self.outputs = taken
            return result
        known = set(self._held)
        result = tree_map(lambda x: self._apart(x, operators), result)
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor) and memory(x) not in known]
        if n.op == "placeholder":
            self.inputs += [self._hold(x, ((1, Fraction(_bytes(x))),)) for x in made]
        elif operators.called:
            self._note(n, taken, made, operators)
        return result

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What the plain form of a module gives."""
        plain = self.plain[target]
        return args[0] if plain is None else plain(*args, **kwargs)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Tensor:
        """A tensor that the model holds."""
        return self.tensors[target].to("meta")

    def _known(self, n: fx.Node, taken: Sequence[Buffer]) -> tuple[Tensor, Operators] | None:
        """What a module gives of a map, if it was given one like it before, and its operators."""
        plain, x = self._of_a_map(n, taken)
        found = None if plain is None else self.plains.known(plain, x)
        if found is None:
            return None
        operators = Operators(())
        operators.called = found[1]
        return found[0], operators

    def _of_a_map(self, n: fx.Node, taken: Sequence[Buffer]) -> tuple[nn.Module | None, Any]:
        """The module that a node calls with one map and nothing else, if it does, and the map."""
        if n.op != "call_module" or n.args != tuple(n.all_input_nodes) or n.kwargs or not taken:
            return None, None
        x = self.env[n.all_input_nodes[0]]
        return self.plain[n.target] if len(n.args) == 1 and isinstance(x, Tensor) else None, x

    def _run_anew(
        self, n: fx.Node, given: Sequence[Any], taken: Sequence[Buffer]
    ) -> tuple[Any, Operators]:
        with Operators(map(memory, filter(self._is_held, tree_leaves(given)))) as operators:
            result = self._run_on_meta(n, taken)
        plain, x = self._of_a_map(n, taken)
        if plain is not None and isinstance(result, Tensor) and not self._is_held(result):
            self.plains.note(plain, x, result, operators.called)
        return result, operators

    def _run_on_meta(self, n: fx.Node, taken: Sequence[Buffer]) -> Any:
        """Also what makes a tensor by itself, of sizes alone."""
        if taken or n.op == "placeholder":
            return super().run_node(n)
        with torch.device("meta"):
            return super().run_node(n)

    def _note(
        self, n: fx.Node, taken: Sequence[Buffer], made: Sequence[Tensor], operators: Operators
    ) -> None:
        place = _place(n)
        self._counts[place] += 1
        parts = self._parts(n, taken, [_bytes(x) for x in made], operators.names)
        kind = self._kind(n, taken, operators.names)
        block = self._together(kind, taken, operators)
        makes = [self._hold(x, each, block) for x, each in zip(made, parts, strict=True)]
        attends = n.target is F.scaled_dot_product_attention
        beside = [self._scores(n)] if attends else []
        within = attends or operators.within
        name = (place, self._counts[place])
        self.steps.append(Step(name, taken, makes, within, beside, kind))

    def _kind(self, n: fx.Node, taken: Sequence[Buffer], names: set[str]) -> str:
        """See `Step`."""
        if n.op == "call_module" and isinstance(self.plain[n.target], Affine):
            return "norm"
        if len(taken) == 2 and names in ({"add"}, {"add_"}):
            return "sum"
        return "convolution" if names == {"convolution"} else ""

    def _together(self, kind: str, taken: Sequence[Buffer], operators: Operators) -> int:
        """How many channels of a result are held together."""
        if kind == "convolution":
            return self.block
        return max(taken, key=lambda b: b.size).block if operators.keeps_blocks else 1

    def _apart(self, x: Any, operators: Operators) -> Any:
        """A result in memory of its own where it is no other shape of what was taken."""
        if not isinstance(x, Tensor):
            return x
        if self._is_held(x) and not operators.keeps:
            return x.clone(memory_format=torch.contiguous_format)
        return x.contiguous()

    def _parts(
        self, n: fx.Node, taken: Sequence[Buffer], sizes: Sequence[int], names: set[str]
    ) -> list[Parts]:
        """How the bytes of what a node makes follow from widths."""
        width = _width(self.modules[str(n.target)]) if n.op == "call_module" else None
        if width is not None:
            return [self._of_width(width, size) for size in sizes]
        whole = sum(sizes)
        if names & JOINS and len(taken) > 1 == len(sizes):
            parts = tuple(p for b in taken for p in b.parts)
            known = sum(b.size for b in taken)
            return [(*parts, (1, Fraction(whole - known)))]
        source = max(taken, key=lambda b: (not all(isinstance(s, int) for s, _ in b.parts), b.size))
        if len(sizes) > 1 and whole == source.size:
            cut = self._cut(source.parts, sizes)
            if cut is not None:
                return cut
        return [_scaled(source.parts, Fraction(size, source.size)) for size in sizes]

    def _of_width(self, width: Width, size: int) -> Parts:
        settings = parts_of(width)
        each = Fraction(size, sum(map(self.arch.size, settings)))
        return tuple((s, each) for s in settings)

    def _cut(self, parts: Parts, sizes: Sequence[int]) -> list[Parts] | None:
        """The parts of the pieces that a tensor is cut into; none where one of them is broken."""
        rest, found = list(parts), []
        for size in sizes:
            own: list[tuple[Setting, Fraction]] = []
            while size > 0 and rest:
                setting, each = rest.pop(0)
                own.append((setting, each))
                size -= int(each * self.arch.size(setting))
            if size:
                return None
            found.append(tuple(own))
        return found

    def _scores(self, n: fx.Node) -> Buffer:
        """One number for each head, query and key."""
        named: dict[str, Any] = {**dict(zip(("query", "key"), n.args, strict=False)), **n.kwargs}
        query, key = self.env[named["query"]], self.env[named["key"]]
        ratio = Fraction(key.shape[-2], query.shape[-1])
        queries = self._held[memory(query)]
        return Buffer(int(_bytes(query) * ratio), _scaled(queries.parts, ratio))

    def _hold(self, x: Tensor, parts: Parts, block: int = 1) -> Buffer:
        block = block if x.dim() == 4 else 1
        self._held[memory(x)] = buffer = Buffer(_bytes(x), parts, block)
        return buffer

    def _is_held(self, x: Any) -> bool:
        return isinstance(x, Tensor) and memory(x) in self._held

    def _buffers(self, values: Any) -> list[Buffer]:
        held = (self._held[memory(x)] for x in tree_leaves(values) if self._is_held(x))
        return list(dict.fromkeys(held))


def _width(module: nn.Module) -> Width | None:
    """The width of what a module gives; none of what keeps its input's."""
    names = GIVES if isinstance(module, ElasticLayer) else ()
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def rounded(channels: int, block: int) -> int:
    """The least multiple of a block that has room for so many channels."""
    return -(-channels // block) * block


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _empty(x: Tensor, batch: int, weight: Tensor) -> Tensor:
    kind = weight.dtype if x.is_floating_point() else x.dtype
    return torch.empty((batch, *x.shape), dtype=kind, device="meta")


def _scaled(parts: Parts, ratio: Fraction) -> Parts:
    return tuple((setting, each * ratio) for setting, each in parts)


def _place(n: fx.Node) -> str:
    """The module in whose ``forward`` a node is; of a module's call, that module."""
    stack = [place for place, _ in n.meta.get("nn_module_stack", {}).values()]
    return stack[-1].partition(".")[2] if stack else ""
