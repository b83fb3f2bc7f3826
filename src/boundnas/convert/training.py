"""What a ``forward`` does in training only, which reading it in evaluation does not show.

A network is read a second time, where every module that is followed takes itself to be in training.
A module that does something else then stays as it is, as one piece.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate
from torch.nn import functional as F

from boundnas.errors import ConvertError


class Graphed(Protocol):
    """A network that was read."""

    graph: fx.Graph
    left_out: tuple[str, ...]


T = TypeVar("T", bound=Graphed)


def in_both_modes(
    model: nn.Module,
    follow: Callable[[nn.Module, Mapping[str, str], bool], tuple[T, dict[str, str]]],
    stays: Mapping[str, str],
) -> T:
    """A network in evaluation, with what does something else in training in one piece.

    Args:
        model: The network.
        follow: Reads a network, of which some modules stay as they are and why, in evaluation or
            as if it trained; tells which modules ask that, and where.
        stays: Modules that stay as they are in any case, and why.

    Raises:
        ConvertError: The outermost ``forward`` does; names the line.
    """
    stays = dict(stays)
    clean = _twin(model)  # a forward may keep something of what it is read with
    while True:
        found, readers = follow(_twin(clean) if stays else model, stays, False)
        if not readers:
            return found
        with torch.random.fork_rng(devices=[]):
            trained, _ = follow(_twin(clean), stays, True)
        found.left_out = _left_out(trained.graph)
        changing = _changing(found.graph, trained.graph, readers)
        if not changing:
            return found
        if "" in changing:
            raise ConvertError(
                f"{type(model).__name__}.forward does something else in training, in "
                f"{changing['']}, and as the outermost it cannot stay as it is in one piece; "
                "build it without, or put that into a module of its own"
            )
        stays |= {m: f"does something else in training, in {w}" for m, w in changing.items()}


def _twin(model: nn.Module) -> nn.Module:
    """A copy that has the parameters in common."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


@contextmanager
def asked(tell: Callable[[nn.Module, bool], bool]) -> Iterator[None]:
    """Within it whoever reads ``training`` of a module is given what ``tell`` says."""

    def read(module: nn.Module) -> bool:
        return tell(module, module.__dict__["training"])

    def write(module: nn.Module, value: bool) -> None:
        module.__dict__["training"] = value

    setattr(nn.Module, "training", property(read, write))  # noqa: B010
    try:
        yield
    finally:
        delattr(nn.Module, "training")


def _changing(one: fx.Graph, other: fx.Graph, readers: Mapping[str, str]) -> dict[str, str]:
    """The modules that do something else in training, and where they ask for it.

    Args:
        one: The graph in evaluation.
        other: The graph in training.
        readers: The modules that ask, and where.
    """
    if _all(one.nodes) == _all(other.nodes):
        return {}
    first, second = _by_module(one), _by_module(other)
    found = {name: place for name, place in readers.items() if first.get(name) != second.get(name)}
    return found or dict(readers)


def _by_module(graph: fx.Graph) -> dict[str, list[str]]:
    """What the own ``forward`` of each module calls."""
    found: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        found.setdefault(node.meta.get("inside", ""), []).append(node)
    return {name: _all(nodes) for name, nodes in found.items()}


def _all(nodes: Iterable[fx.Node]) -> list[str]:
    """What nodes call; a tensor that is read is named by those that take it."""
    return [_said(n) for n in nodes if n.op != "get_attr" and not _is_idle(n)]


def _is_idle(node: fx.Node) -> bool:
    """Whether nothing takes what a node gives, or it counts batches, as layers do by themselves."""
    if node.users or node.op == "output":
        return False
    name = str(getattr(node.target, "__name__", node.target))
    if not name.endswith("_") and name not in _WRITING:
        return True
    value, of = node.meta.get("value"), node.args[0] if node.args else None
    own = isinstance(of, fx.Node) and of.op == "get_attr"
    return own and isinstance(value, torch.Tensor) and not value.is_floating_point()


def _said(node: fx.Node) -> str:
    """What a node calls, with what; layers of torch know by themselves whether they train."""
    ignored = _KNOWING.get(node.target, "")
    kwargs = {name: value for name, value in node.kwargs.items() if name != ignored}
    return f"{_target(node)} {map_aggregate((node.args, kwargs), _argument)}"


def _target(node: fx.Node) -> str:
    target = str(node.target)
    return "constant" if target.startswith("_tensor_constant") else f"{node.op} {target}"


def _argument(value: Any) -> Any:
    return _target(value) if isinstance(value, fx.Node) else value


_WRITING = ("setitem", "iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod")

_KNOWING: dict[Any, str] = {
    F.scaled_dot_product_attention: "dropout_p",
    **dict.fromkeys(
        (
            F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout,
            F.feature_alpha_dropout, F.rrelu, F.batch_norm,
        ),
        "training",
    ),
}  # fmt: skip
"""Functions that become layers, by the argument that says whether they train."""


def _left_out(graph: fx.Graph) -> tuple[str, ...]:
    """What is done in training, of a graph that was read so, and is not by what becomes of it."""
    return tuple(
        f"dropout of attention weights, p = {node.kwargs['dropout_p']} ({node.meta['source']})"
        for node in graph.nodes
        if node.target is F.scaled_dot_product_attention and node.kwargs.get("dropout_p")
    )
