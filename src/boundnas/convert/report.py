"""What of a network is searched, what stays fixed, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import fx

from boundnas.convert.axes import Axis, Map
from boundnas.convert.dimensions import Plan
from boundnas.convert.facts import Binding
from boundnas.space import Dimension


@dataclass(frozen=True)
class Row:
    """One module, or one function that keeps channels fixed.

    Args:
        module: Its name.
        kind: Its class.
        dimensions: Names of the dimensions that it is built with or cut off by.
        reason: Why it, or the number of channels that it gives, stays as it is; empty if it does
            not.
        source: File and line of the call.
        macs: Multiply-accumulates for one sample in the largest network.
    """

    module: str
    kind: str
    dimensions: tuple[str, ...]
    reason: str
    source: str
    macs: int


@dataclass(frozen=True)
class Report:
    """A table of a network's modules.

    Args:
        rows: In the order of their calls.
        macs: Multiply-accumulates of the whole network for one sample.
        searched_macs: The part of them in layers that some dimension changes.
        left_out: What the network does in training, and the supernet does not.
    """

    rows: tuple[Row, ...]
    macs: int
    searched_macs: float
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [_HEAD, *map(_line, self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
        table = "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        left_out = "".join(f"\nleft out in training: {what}" for what in self.left_out)
        return f"{table}\n{self.searched_macs:.1%} of {self.macs:,} MACs are searched{left_out}"


_HEAD = ("module", "kind", "MACs", "searched, or why it stays as it is", "source")


def _line(row: Row) -> tuple[str, ...]:
    fixed = f"fixed: {row.reason}" if row.reason else ""
    said = "; ".join(filter(None, (", ".join(row.dimensions), fixed)))
    file, _, line = row.source.rpartition(", ")
    return row.module, row.kind, f"{row.macs:,}", said, f"{Path(file).name}, {line}" if file else ""


def report(plan: Plan, samples: int) -> Report:
    """The table of a plan, before its graph is rewritten.

    Args:
        plan: What is searched.
        samples: Of the example.
    """
    read = plan.read
    cut = _cut(plan)
    rows = []
    for binding in read.bindings.values():
        names = _dimensions(plan, binding, cut)
        macs = _macs(binding.nodes, samples)
        reason = _reason(plan, binding, bool(names))
        kind = type(binding.module).__name__
        rows.append(Row(binding.name, kind, names, reason, binding.source, macs))
    for boundary in dict.fromkeys(read.boundaries):
        name, why = boundary.name, boundary.reason
        calls = (n for n in read.traced.graph.nodes if n.op == "call_module" and n.target == name)
        macs = _macs(calls, samples)
        rows.append(Row(name, "boundary", (), why.text, why.source, macs))
    total = _macs(read.traced.graph.nodes, samples)
    searched = _macs(_searched(plan, cut), samples)
    share = searched / total if total else 0.0
    return Report(tuple(rows), total, share, read.traced.left_out)


def _macs(nodes: Iterable[fx.Node], samples: int) -> int:
    """Of one sample; what is computed from weights alone counts whole."""
    nodes = list(nodes)
    whole = sum(n.meta["macs"] for n in nodes if not n.meta["follows"])
    return whole + sum(n.meta["macs"] for n in nodes if n.meta["follows"]) // samples


def _cut(plan: Plan) -> dict[fx.Node, Dimension]:
    """The nodes that a depth can cut off."""
    return {
        node: depth
        for run, depth in plan.depths
        for block in run.blocks[int(depth.choices[0]) :]
        for node in block.nodes
    }


def _searched(plan: Plan, cut: dict[fx.Node, Dimension]) -> Iterator[fx.Node]:
    """Calls whose cost some dimension changes."""
    bound = {n: b for b in plan.read.bindings.values() for n in b.nodes}
    for node in plan.read.traced.graph.nodes:
        if node in bound:
            searched = bool(_dimensions(plan, bound[node], {}))
        else:
            maps = (plan.read.values.get(n) for n in (node, *node.all_input_nodes))
            axes = (axis for x in maps if isinstance(x, Map) for axis in x.axes)
            searched = any(map(plan.is_searched, axes))
        if searched or node in cut:
            yield node


def _dimensions(plan: Plan, binding: Binding, cut: dict[fx.Node, Dimension]) -> tuple[str, ...]:
    names = [*_widths(plan, binding.inputs), *_widths(plan, binding.outputs)]
    if binding.name in plan.kernels:
        names.append(plan.kernels[binding.name].name)
    names += [cut[node].name for node in binding.nodes if node in cut]
    return tuple(dict.fromkeys(names))


def _widths(plan: Plan, axis: Axis | None) -> Iterator[str]:
    for group in axis.groups if axis is not None else ():
        if group in plan.widths:
            yield plan.widths[group].name


def _reason(plan: Plan, binding: Binding, searched: bool) -> str:
    """Why its output channels stay as they are, or all of it does."""
    axis = binding.outputs
    if plan.is_searched(axis) or (axis is None and searched):
        return ""
    for group in axis.groups if axis is not None else ():
        if group.reason is not None:
            return group.reason.text
    return "works on channels that stay as they are"
