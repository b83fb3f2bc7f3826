"""Sub-networks as plain modules."""

from __future__ import annotations

import copy
from operator import attrgetter
from typing import Any

from torch import Tensor, fx, nn

from boundnas.elastic import ElasticLayer
from boundnas.errors import ExportError
from boundnas.modes import evaluating
from boundnas.space import Architecture
from boundnas.supernet import Supernet


class _Bound(nn.Module):
    """A supernet at one architecture, so that tracing sees the images as its only input."""

    def __init__(self, model: Supernet, arch: Architecture) -> None:
        super().__init__()
        self.model, self.arch = model, arch

    def forward(self, x: Tensor) -> Any:
        return self.model(x, self.arch)


class _Tracer(fx.Tracer):
    """Follows ``forward`` down to the elastic layers, and drops their architecture."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ElasticLayer) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(m, ElasticLayer):
            args, kwargs = (args[0] if args else kwargs["x"],), {}
        return super().call_module(m, forward, args, kwargs)


def extract(model: Supernet, arch: Architecture) -> nn.Module:
    """The sub-network ``arch`` as a plain module: bit for bit ``model(x, arch)`` in evaluation.

    Args:
        model: The supernet; it is left as it is.
        arch: What `boundnas.calibrate` returned, or any architecture of a model without BatchNorm.

    Returns:
        A ``torch.nn.Module`` in evaluation mode with weights of its own, made of ``torch.nn``
        layers only; dropout and drop-connect are gone.

    Raises:
        CalibrationError: The model has BatchNorm and ``arch`` carries no statistics.
        ExportError: ``forward`` cannot be followed because it branches on values or shapes of
            tensors.
    """
    try:
        with evaluating(model):
            traced = _Tracer().trace(_Bound(model, arch))
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise ExportError(
            f"{type(model).__name__}.forward cannot be turned into a plain module: {error}. "
            "Its control flow may depend on arch, not on the values or shapes of tensors"
        ) from error
    for node in traced.nodes:
        node.type = None  # our annotations are text, which pickling takes for objects
    graph = fx.Graph()  # a copy that does not remember our tracer: it pickles without BoundNAS
    graph.output(graph.graph_copy(traced, {}))
    parts = _plain_parts(model, arch, graph)
    net = fx.GraphModule(parts, graph, class_name=type(model).__name__).eval()
    net.meta["input_shape"] = model.input_shape
    return net


def _plain_parts(model: Supernet, arch: Architecture, graph: fx.Graph) -> dict[str, Any]:
    """The modules and tensors that ``graph`` uses, in plain form, by their name in the model."""
    parts: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        node.target = name = str(node.target).removeprefix("model.")
        if name in parts:
            continue
        original = attrgetter(name)(model)
        if not isinstance(original, ElasticLayer):
            parts[name] = copy.deepcopy(original)
        elif (plain := original.plain(arch)) is not None:
            parts[name] = plain
        else:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return parts
