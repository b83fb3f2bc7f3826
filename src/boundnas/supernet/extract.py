"""Sub-networks as plain modules."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from boundnas.elastic import ElasticLayer, Embedding, Linear
from boundnas.errors import BoundNASError, ExportError
from boundnas.nested import Inputs, mapped
from boundnas.randomness import stream
from boundnas.space import Architecture, Statistics
from boundnas.supernet.inputs import noise
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.tracing import free, plain_parameters, trace
from boundnas.typed import checked

ROUNDING = 1e-3
"""Largest difference on other devices than the CPU, relative to the largest output: libraries
choose the kernels there by themselves. On the CPU there is none."""


@checked
def extract(model: Supernet, arch: Architecture) -> nn.Module:
    """The sub-network ``arch`` as a plain module: bit for bit ``model(x, arch)`` in evaluation.

    It is compared with that on two random images before it is returned.

    Args:
        model: The supernet; it is left as it is.
        arch: What `boundnas.calibrate` returned, or any architecture of a model without BatchNorm.

    Returns:
        A ``torch.nn.Module`` in evaluation mode with weights of its own, made of ``torch.nn``
        layers only; dropout and drop-connect are gone. What ``forward`` computes from parameters
        of its own is computed and trained there too; what it reads off an elastic layer's
        weights, and tensors that it makes, are constants of it.

    Raises:
        CalibrationError: The model has BatchNorm and ``arch`` carries no statistics.
        ExportError: ``forward`` cannot be followed, because it branches on values or shapes of
            tensors, draws random numbers, changes its images or the model; or the network
            computes something else.
    """
    with _untouched(model):
        traced, tensors = trace(model, arch)
        net = _assembled(model, arch, traced, tensors)
        _check(model, arch, net)
    return net


def outlined(model: Supernet, arch: Architecture) -> fx.GraphModule:
    """As `extract`, for what looks at shapes and times alone: not compared with the supernet, and
    BatchNorm has a mean of zero and a variance of one.
    """
    made = arch.plain.carrying(statistics=_Standard(model, arch))
    model._name_modules()
    with _untouched(model):
        return _assembled(model, made, *trace(model, made))


@dataclass(frozen=True)
class _Standard(Statistics):
    """The statistics of normal noise, for whatever architecture."""

    model: Supernet
    arch: Architecture

    def of(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros and ones."""
        width = self.arch.size(self.model.get_submodule(layer).channels)  # type: ignore[arg-type]
        return x.new_zeros(width), x.new_ones(width)


def random_inputs(model: Supernet, number: int = 2) -> Inputs:
    """Noise that the model takes, of its precision and on its device, always the same."""
    return noise(model, number, stream(0, "extract"))


def _assembled(
    model: Supernet, arch: Architecture, traced: fx.Graph, tensors: Mapping[str, Tensor]
) -> fx.GraphModule:
    """The graph with the plain form of everything that it uses."""
    for node in traced.nodes:
        node.type = None  # our annotations are text, which pickling takes for objects
    graph = fx.Graph()  # a copy that does not remember our tracer: it pickles without BoundNAS
    graph.output(graph.graph_copy(traced, {}))
    parts = _plain_parts(model, arch, graph, tensors)
    net = fx.GraphModule(parts, graph, class_name=type(model).__name__).eval()
    net.meta["example"] = model.example
    return net


def _plain_parts(
    model: Supernet, arch: Architecture, graph: fx.Graph, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The modules and tensors that ``graph`` uses, in plain form, by their name there."""
    parts: dict[str, Any] = {}
    parameters = {id(p) for p in plain_parameters(model)}
    copied: dict[int, Any] = {}  # so that what was shared is shared still
    made: dict[ElasticLayer, nn.Module] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            tensor = tensors[node.target]
            own = id(tensor) in parameters
            parts[node.target] = copy.deepcopy(tensor if own else tensor.detach(), copied)
        if node.op != "call_module":
            continue
        place = str(node.target).removeprefix("model.")
        node.target = name = free(place)
        if name in parts:
            continue
        original = attrgetter(place)(model)
        if not isinstance(original, ElasticLayer):
            parts[name] = copy.deepcopy(original, copied)
        elif (plain := original.plain(arch)) is not None:
            parts[name] = made[original] = plain
        else:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    _tie(made)
    return parts


def _tie(made: Mapping[ElasticLayer, nn.Module]) -> None:
    """Have plain linear layers share the weight of the table that their elastic forms share."""
    tables = {id(each.weight): plain for each, plain in made.items() if isinstance(each, Embedding)}
    for original, plain in made.items():
        if isinstance(original, Linear) and original.is_tied and id(original.weight) in tables:
            plain.weight = tables[id(original.weight)].weight


@contextmanager
def _untouched(model: Supernet) -> Iterator[None]:
    """Refuse a ``forward`` that changes the model; what it drew or changed is undone.

    Raises:
        ExportError: Names what it changes.
    """
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    versions = {name: tensor._version for name, tensor in tensors.items()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    cuda = {tensor.device for tensor in tensors.values() if tensor.is_cuda}
    failure: BoundNASError | None = None
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    except BoundNASError as error:
        failure = error  # which may be that statistics do not fit the changed model
    finally:
        changed = [name for name, tensor in tensors.items() if tensor._version != versions[name]]
        for name in buffers.keys() & set(changed):
            tensors[name].copy_(buffers[name])
    if failure is not None and not changed:
        raise failure
    if changed:
        raise ExportError(
            f"{type(model).__name__}.forward changes {', '.join(changed)} of the model in "
            "evaluation, so a plain module would not give the same twice; let it compute from "
            "its images and arch alone"
        ) from failure


@torch.no_grad()
def _check(model: Supernet, arch: Architecture, net: nn.Module) -> None:
    """Compare a network with the slice of the supernet that it was extracted from.

    Raises:
        ExportError: They differ, or ``forward`` changes its images; names the largest difference.
    """
    images = random_inputs(model)
    given = mapped(Tensor.clone, images)
    with evaluating(model):
        expected = _leaves(model(given, arch))
        if not _same(_leaves(given), _leaves(images)):
            raise ExportError(
                f"{type(model).__name__}.forward changes its images in place, which all networks "
                "of a step share; compute a new tensor from them"
            )
        try:
            found = _leaves(net(mapped(Tensor.clone, images)))
        except Exception as error:
            raise ExportError(
                f"{type(model).__name__}: the extracted network fails where model(x, arch) does "
                f"not, {type(error).__name__}: {error}; forward follows another way while it is "
                f"traced (as by isinstance or try); architecture {arch}"
            ) from error
        if _same(expected, found):
            return
        again = _leaves(model(images, arch))
    raise ExportError(
        f"{type(model).__name__}: the extracted network computes something else than "
        f"model(x, arch): they differ by {_difference(expected, found):.3g} on random images"
        + (
            "; forward follows another way while it is traced (as by isinstance, try, autocast "
            "within it, or += on a map that is read again under another name), reads what is no "
            "tensor of the model, or an elastic layer has a hook, or a plain() that differs"
            if _same(expected, again)
            else ", and forward itself gives something else every time: it draws random numbers "
            "or keeps a state"
        )
        + f"; architecture {arch}"
    )


def _leaves(output: Any) -> list[Any]:
    """What is in an output of tensors, tuples, lists and mappings, with the names there."""
    if isinstance(output, Mapping):
        return [part for key, value in output.items() for part in (key, *_leaves(value))]
    if isinstance(output, tuple | list):
        return [part for value in output for part in _leaves(value)]
    return [output]


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(map(_equal, a, b))


def _equal(a: Any, b: Any) -> bool:
    """Whether two tensors, or what is no tensor, are the same, bit for bit on the CPU."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return type(a) is type(b) and bool(a == b)
    if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        return False
    if a.device.type == "cpu":
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    largest = a.abs().nan_to_num().max() if a.numel() else 0
    return torch.allclose(a, b, rtol=0, atol=float(largest) * ROUNDING, equal_nan=True)


def _difference(a: list[Any], b: list[Any]) -> float:
    """The largest difference between two outputs; infinite where they are of another form."""
    if len(a) != len(b):
        return float("inf")
    return max((_apart(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _apart(a: Any, b: Any) -> float:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.shape != b.shape:
        return 0.0 if _equal(a, b) else float("inf")
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
