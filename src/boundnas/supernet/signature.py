"""What a network, or a part of one, computes as a text: equal for those that take equally long."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

_SIZES = {
    "in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels",
    "num_groups", "num_parameters", "normalized_shape", "num_embeddings", "embedding_dim",
    "embed_dim", "num_heads", "kdim", "vdim", "head_dim", "hidden_size", "input_size", "size",
    "output_size",
}  # fmt: skip
"""Attributes of layers that say how large they are; all others say what they do."""


def digest(text: str) -> str:
    """A short name of a text, by SHA-256: no two texts of a project have the same."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Signature(NamedTuple):
    """What a graph computes.

    Args:
        text: Layers with their numbers, functions, and all shapes; no weights and no names.
        kind: The same without what says how large something is.
    """

    text: str
    kind: str


def signature(
    graph: fx.Graph,
    root: nn.Module,
    inputs: Sequence[Tensor],
    readers: Sequence[Sequence[str]],
) -> Signature:
    """What a graph of modules of ``root`` computes on inputs of these shapes, for such readers."""
    read = [f"read by {' and '.join(each)}" for each in readers]
    whole = [*map(_tensor, inputs), text_of(graph, root), *read]
    kinds = [*map(_form, inputs), *_lines(graph, root, False), *read]
    return Signature("\n".join(whole), "\n".join(kinds))


def text_of(graph: fx.Graph, root: nn.Module) -> str:
    """What a graph of modules of ``root`` computes, whatever its inputs and readers."""
    return "\n".join(_lines(graph, root, True))


def _lines(graph: fx.Graph, root: nn.Module, sized: bool) -> Iterator[str]:
    """What each node does, its arguments by the numbers of their lines."""
    places = {node: f"%{number}" for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.op == "placeholder":
            continue
        what = node.op
        if node.op == "get_attr":
            held = attrgetter(node.target)(root)
            what = f"tensor {_tensor(held) if sized else _form(held)}"
        elif node.op == "call_module":
            what = " ".join(_module(attrgetter(node.target)(root), sized))
        elif node.op != "output":
            what = node.target if isinstance(node.target, str) else _shown(node.target, {}, sized)
        yield f"{what}{_shown((node.args, node.kwargs), places, sized)}"


def _module(module: nn.Module, sized: bool) -> Iterator[str]:
    """Kinds, plain attributes and tensors of a module and of those within it."""
    for name, part in module.named_modules():
        yield f"{name}:{_named(type(part))}"
        for key, value in sorted(vars(part).items()):
            if key[0] != "_" and key != "training" and not isinstance(value, Tensor | nn.Module):
                yield from _attribute(part, key, value, sized)
        for key, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                yield f"{key}={_tensor(tensor) if sized else _form(tensor)}"
        if isinstance(part, fx.GraphModule):
            yield from _lines(part.graph, part, sized)


def _attribute(module: nn.Module, key: str, value: Any, sized: bool) -> Iterator[str]:
    if not sized and key == "groups":
        value = "one" if value == 1 else value == getattr(module, "in_channels", None)
    own = type(module).__module__.partition(".")[0] != "torch"
    if sized or not (key in _SIZES or (own and type(value) is int)):
        yield f"{key}={_shown(value, {}, True)}"


def _shown(value: Any, places: Mapping[fx.Node, str], sized: bool) -> str:
    """An argument as text, the same in every process; whole numbers where sizes count."""
    if isinstance(value, fx.Node):
        return places[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {_shown(v, places, sized)}' for k, v in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(_shown(v, places, sized) for v in value)})"
    if isinstance(value, slice):
        return f"slice{_shown((value.start, value.stop, value.step), places, sized)}"
    if isinstance(value, set | frozenset):
        return _shown(sorted(value, key=repr), places, sized)
    if isinstance(value, partial):
        return f"partial{_shown((value.func, value.args, value.keywords), places, sized)}"
    if hasattr(value, "__qualname__"):
        return _named(value)
    if " at 0x" in repr(value):  # an object that says where it lies and not what it is
        return f"{_named(type(value))}{_shown(getattr(value, '__dict__', {}), places, sized)}"
    return "int" if type(value) is int and not sized else repr(value)


def _named(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{thing.__qualname__}"


def _tensor(x: Tensor) -> str:
    """Type and shape, and how it lies in memory where that is not row by row."""
    lies = "" if x.is_contiguous() else f" of strides {x.stride()}"
    return f"{x.dtype} {tuple(x.shape)}{lies}"


def _form(x: Tensor) -> str:
    return f"{x.dtype} of {x.dim()} axes"
