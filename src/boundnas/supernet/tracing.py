"""Following ``forward`` of a supernet at one architecture, as a graph of what it calls.

Recorded is what is computed from the images, and what is computed from parameters, which a plain
network keeps and trains. Tensors that the model holds have their values while ``forward`` is
followed, so whatever it reads off them (a dtype, a number) is what it reads in ``model(x, arch)``,
and what it makes by itself, or of buffers, is a constant of the graph.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Iterator, Mapping
from operator import getitem
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, fx, nn

from boundnas.elastic import ElasticLayer, ElasticModule
from boundnas.errors import BoundNASError, ExportError
from boundnas.nested import Inputs
from boundnas.space import Architecture
from boundnas.supernet.held import Computed, NotFollowedError, told_sizes
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet

WHOLE = "is_followed_no_further"
"""An attribute that marks a module as one step of a graph, whatever it does inside."""


class _Bound(nn.Module):
    """A supernet at one architecture, so that the images are its only input."""

    def __init__(self, model: Supernet, arch: Architecture) -> None:
        super().__init__()
        self.model, self.arch = model, arch

    def forward(self, x: Inputs) -> Any:
        return self.model(x, self.arch)


class _Tracer(fx.Tracer):
    """Follows ``forward`` down to the elastic layers, and drops their architecture.

    Args:
        model: The supernet that is followed.

    Attributes:
        tensors: The tensors that the graph reads by itself, by their names there.
    """

    def __init__(self, model: Supernet) -> None:
        super().__init__()
        self.tensors: dict[str, Tensor] = {}
        self.stopped: traceback.StackSummary | None = None
        self._device = next(model.parameters()).device
        self._names = _names_of_tensors(model)
        self._held, self._example = set(model.modules()), model.example
        self.computed = Computed(self, {id(p) for p in plain_parameters(model)})

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, ElasticLayer) or getattr(m, WHOLE, False)
        return own or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if m is not self.root and m not in self._held:
            return forward(*args, **kwargs)  # made in forward: what it calls is followed
        if isinstance(m, ElasticLayer):
            args, kwargs = (args[0] if args else kwargs["x"],), {}
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        return attr_val

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and (node := self.computed.node(a)) is not None:
            return node
        if isinstance(a, Tensor):
            name = self._names.setdefault(id(a), f"_tensor_constant{len(self.tensors)}")
            self.tensors[name] = a  # which keeps it alive, and its id its own
            return self.create_node("get_attr", name, (), {})
        if isinstance(a, torch.device) and a == self._device:
            # The network may be moved, and computes where its images are.
            return self.create_node("call_function", getattr, (self._a_tensor(), "device"), {})
        return super().create_arg(a.item() if isinstance(a, np.generic) else a)

    def _a_tensor(self) -> fx.Node:
        """The first tensor of the inputs."""
        node, inputs = next(iter(self.graph.nodes)), self._example
        while not isinstance(inputs, Tensor):
            key = next(iter(inputs)) if isinstance(inputs, Mapping) else 0
            node = self.create_node("call_function", getitem, (node, key), {})
            inputs = inputs[key]
        return node

    def to_bool(self, obj: fx.Proxy) -> bool:
        if _asserts():  # which held when real tensors passed
            return True
        self.stopped = traceback.extract_stack()
        return super().to_bool(obj)


def _asserts() -> bool:
    """Whether the innermost line outside of libraries is an ``assert``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_LIBRARIES):
        frame = frame.f_back
    if frame is None:
        return False
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return line.lstrip().startswith("assert ")


_LIBRARIES = ("torch.", __name__)


def _names_of_tensors(model: Supernet) -> dict[int, str]:
    """A name in the graph for every tensor of the model, by its identity.

    That of an elastic layer gets one outside the layer, where its slice will be.
    """
    names: dict[int, str] = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for name, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ):
            full = prefix + name
            if isinstance(module, ElasticLayer):
                full = "_whole_" + full.replace(".", "_")
            names.setdefault(id(tensor), free(full))
    return names


def plain_parameters(model: Supernet) -> Iterator[nn.Parameter]:
    """The parameters that are no elastic layer's, so that a plain network has them whole."""
    for module in model.modules():
        if not isinstance(module, ElasticLayer):
            yield from module.parameters(recurse=False)


def followed(model: Supernet) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose own ``forward`` is followed, by name; of a list, whoever uses its parts."""
    whole: set[nn.Module] = set()
    for name, module in model.named_modules():
        if getattr(module, WHOLE, False) or isinstance(module, ElasticLayer) or is_plain(module):
            whole.update(module.modules())
        elif module not in whole:
            yield name, module


def read_by_functions(model: Supernet) -> dict[str, nn.Parameter]:
    """The parameters that a plain network has where functions compute with them, by name.

    Those of layers are there with the layer, used or not.
    """
    found: dict[nn.Parameter, str] = {}
    for path, module in followed(model):
        for name, parameter in module.named_parameters(path, recurse=False):
            found.setdefault(parameter, name)
    return {name: parameter for parameter, name in found.items()}


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a layer of torch's."""
    where = type(module).__module__
    return where.startswith("torch.") and not where.endswith(".container")


_TAKEN = frozenset(dir(fx.GraphModule({}, fx.Graph())))


def free(name: str) -> str:
    """A dotted name that a graph's module can give to a part; those it uses itself get a mark."""
    first, dot, rest = name.partition(".")
    return f"{first}_{dot}{rest}" if first in _TAKEN else name


def trace(model: Supernet, arch: Architecture) -> tuple[fx.Graph, dict[str, Tensor]]:
    """What ``model(x, arch)`` computes from ``x`` in evaluation.

    Returns:
        The graph, whose modules are named from the supernet on (``model.…``), and the tensors it
        reads by itself, by name.

    Raises:
        ExportError: ``forward`` cannot be followed; names the line where.
    """
    tracer = _Tracer(model)
    try:
        with evaluating(model), torch.no_grad(), told_sizes(tracer), tracer.computed:
            graph = tracer.trace(_Bound(model, arch))
    except (BoundNASError, MemoryError):
        raise
    except Exception as error:  # whatever a forward of a user's may raise
        if isinstance(error, fx.proxy.TraceError):
            reason = "it branches on the value or shape of a tensor, or loops over one"
        elif isinstance(error, NotFollowedError):
            reason = str(error)
        else:
            text = (str(error).splitlines() or [""])[0].replace("Proxy", "traced tensor")
            reason = f"{type(error).__name__}: {text}"
        _refuse(model, reason, traceback.extract_tb(error.__traceback__), error)
    if tracer.stopped is not None:
        _refuse(model, "it catches the error of a branch on a tensor", tracer.stopped, None)
    return graph, tracer.tensors


def _refuse(
    model: Supernet, reason: str, frames: traceback.StackSummary, cause: Exception | None
) -> NoReturn:
    files = {
        code.co_filename
        for kind in {type(m) for m in model.modules()}
        if not issubclass(kind, ElasticModule) and not kind.__module__.startswith("torch.")
        if (code := getattr(kind.forward, "__code__", None)) is not None
    }
    own = [frame for frame in frames if frame.filename in files]
    where = f", in {own[-1].filename}, line {own[-1].lineno}: {own[-1].line}" if own else ""
    raise ExportError(
        f"{type(model).__name__}.forward cannot be turned into a plain module: {reason}{where}. "
        "Its control flow may depend on arch, not on the values or shapes of tensors, and what "
        "it does with them must be functions of torch"
    ) from cause
