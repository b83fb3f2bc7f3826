"""Following ``forward`` of a supernet at one architecture, as a graph of what it calls.

Only what is computed from the images is recorded. Tensors that the model holds have their values
while ``forward`` is followed, so whatever it reads off them (a dtype, a sum, a slice) is what it
reads in ``model(x, arch)``, and what it makes by itself is a constant of the graph.
"""

from __future__ import annotations

import linecache
import operator
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import RLock
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, fx, nn

from boundnas.elastic import ElasticLayer, ElasticModule
from boundnas.errors import BoundNASError, ExportError
from boundnas.nested import Inputs
from boundnas.space import Architecture
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
            node = self.create_node("call_function", operator.getitem, (node, key), {})
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
        with evaluating(model), torch.no_grad(), _told_sizes(tracer):
            graph = tracer.trace(_Bound(model, arch))
    except (BoundNASError, MemoryError):
        raise
    except Exception as error:  # whatever a forward of a user's may raise
        if isinstance(error, fx.proxy.TraceError):
            reason = "it branches on the value or shape of a tensor, or loops over one"
        else:
            text = (str(error).splitlines() or [""])[0].replace("Proxy", "traced tensor")
            reason = f"{type(error).__name__}: {text}"
        _refuse(model, reason, traceback.extract_tb(error.__traceback__), error)
    if tracer.stopped is not None:
        _refuse(model, "it catches the error of a branch on a tensor", tracer.stopped, None)
    return graph, tracer.tensors


_TOLD = [
    *((Tensor, name) for name in ("expand", "repeat", "tile", "view", "reshape", "__getitem__")),
    *((Tensor, name) for name in ("new_zeros", "new_ones", "new_full", "new_empty")),
    *((torch, name) for name in ("arange", "zeros", "ones", "full")),
]
"""What is told sizes in a way that torch.fx does not see."""


@contextmanager
def _told_sizes(tracer: _Tracer) -> Iterator[None]:
    """Within it tensors that are held or made may be told sizes that were read off the images.

    ``self.token.expand(len(x), -1, -1)`` is a method of a tensor that is none of the traced ones.
    """
    with _ONE_AT_A_TIME:
        own = {(owner, name): vars(owner).get(name) for owner, name in _TOLD}
        try:
            for owner, name in _TOLD:
                setattr(owner, name, _followed(tracer, owner, name, getattr(owner, name)))
            yield
        finally:
            for (owner, name), function in own.items():
                if function is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, function)


_ONE_AT_A_TIME = RLock()


def _followed(tracer: _Tracer, owner: Any, name: str, function: Any) -> Any:
    def follow(*args: Any, **kwargs: Any) -> Any:
        held = owner is Tensor and not isinstance(args[0], fx.Proxy)
        if not _holds_traced((args, kwargs)) or not (held or owner is torch):
            return function(*args, **kwargs)
        if owner is torch:
            return tracer.create_proxy("call_function", function, args, kwargs)
        if name == "__getitem__":
            return tracer.create_proxy("call_function", operator.getitem, args, kwargs)
        return tracer.create_proxy("call_method", name, args, kwargs)

    return follow


def _holds_traced(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_holds_traced, value))
    if isinstance(value, dict):
        return any(map(_holds_traced, value.values()))
    if isinstance(value, slice):
        return _holds_traced((value.start, value.stop, value.step))
    return isinstance(value, fx.Proxy)


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
