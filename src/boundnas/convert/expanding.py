"""``expand`` as it is told for every width: by sizes that are left open, or by another map."""

from __future__ import annotations

from torch import Tensor, fx

from boundnas.convert.record import in_a_row


def leave_open(graph: fx.Graph) -> None:
    """Have ``expand`` not be told the sizes of axes that it does not repeat."""
    for node in graph.nodes:
        if node.target != "expand" or node.kwargs or not isinstance(node.meta["value"], Tensor):
            continue
        x, *sizes = node.args
        told = in_a_row(sizes)
        old = node.args[0].meta["value"].shape
        shapes = [n.meta["value"] for n in told if isinstance(n, fx.Node)]
        if len(told) < len(old) or not all(isinstance(n, int) for n in shapes):
            continue  # or it is told a whole shape
        ends = zip(
            told[len(told) - len(old) :], old, node.meta["value"].shape[-len(old) :], strict=True
        )
        kept = [-1 if a == b != 1 else size for size, a, b in ends]
        node.args = (x, *told[: len(told) - len(old)], *kept)


def as_another(node: fx.Node) -> None:
    """Have ``expand`` of a map to the shape of another one be told that map."""
    if node.target != "expand" or len(node.args) != 2:
        return
    x, shape = node.args
    if not isinstance(shape, fx.Node) or shape.args[1:] not in (("shape",), ()) or shape.kwargs:
        return
    of = shape.args[0] if shape.target in (getattr, "size") else None
    if isinstance(x, fx.Node) and x.meta["values"] and isinstance(of, fx.Node):
        node.target, node.args = "expand_as", (x, of)
