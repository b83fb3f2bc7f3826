"""Weights that several modules of a network have."""

from __future__ import annotations

from collections.abc import Container, Mapping

from torch import fx, nn

from boundnas.convert.graph import Traced


def shared_weights(
    traced: Traced, parts: Container[fx.Node]
) -> tuple[dict[str, str], dict[str, str]]:
    """Modules that are called and hold a weight that something else uses too, and what.

    Linear layers that multiply by a table of vectors come by themselves, with its name.

    Args:
        traced: The network.
        parts: What goes into weights that layers compute.
    """
    holders: dict[int, set[str]] = {}
    used = {str(n.target) for n in traced.graph.nodes if n.op == "call_module"}
    for name in sorted(used):
        for parameter in traced.model.get_submodule(name).parameters():
            holders.setdefault(id(parameter), set()).add(name)
        for way in traced.computed[name].weights.values() if name in traced.computed else ():
            for tensor in (t for t in way.parts.values() if isinstance(t, nn.Parameter)):
                holders.setdefault(id(tensor), set()).add(name)
    for node in traced.graph.nodes:
        if node.op == "get_attr" and node.users and node not in parts:
            tensor = traced.attribute(str(node.target))
            holders.setdefault(id(tensor), set()).add(str(node.target))
    found: dict[str, str] = {}
    for names in holders.values():
        for name in names if len(names) > 1 else ():
            found[name] = min(names - {name})
    tied = _tied(traced, found)
    return {n: o for n, o in found.items() if {n, o}.isdisjoint(tied)}, tied


def _tied(traced: Traced, shared: Mapping[str, str]) -> dict[str, str]:
    """Linear layers that multiply by a table which is looked up before, and nothing else has."""
    modules = dict(traced.model.named_modules(remove_duplicate=False))
    called = list(dict.fromkeys(str(n.target) for n in traced.graph.nodes))
    found = {}
    for name, other in shared.items():
        alone = {n for n, o in shared.items() if {n, o} & {name, other}} == {name, other}
        if not alone or traced.whole.keys() & {name, other} or name in traced.computed:
            continue
        layer, table = modules.get(name), modules.get(other)
        if type(layer) is not nn.Linear or type(table) is not nn.Embedding:
            continue
        if layer.weight is table.weight and called.index(other) < called.index(name):
            found[name] = other
    return found
