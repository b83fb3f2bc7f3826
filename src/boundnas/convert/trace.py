"""Reading a network: the graph of what its ``forward`` calls, with real values at hand.

Every call is made on the example while it is recorded. So a branch on a shape is followed, as it
would be; what it depended on is noted and stays fixed. A module whose control flow follows the
values of tensors, or does what cannot be recorded, is one node of the graph, as it is.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode

from boundnas.convert import inplace
from boundnas.errors import BoundNASError, ConvertError
from boundnas.nested import Inputs
from boundnas.supernet.place import first_line
from boundnas.supernet.products import multiplications

_TORCH = f"{Path(torch.__file__).parent}/"
_VALUES = ("item", "tolist", "numpy", "equal", "allclose", "is_nonzero")
"""Functions that give numbers that follow the values of tensors."""
LEAVES = "boundnas.convert.known"
"""Where modules are defined that are one node, beside those of ``torch.nn``."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Called:
    """One call of a module that has modules inside.

    Args:
        name: Of the module.
        nodes: What it calls, in order; those of the modules inside included.
        output: What it gives; none if that is no single tensor.
    """

    name: str
    nodes: list[fx.Node]
    output: fx.Node | None


@dataclass
class Traced:
    """A network as a graph.

    Args:
        model: Whose modules the graph calls by name.
        graph: Of each node, ``meta["form"]`` is what it gave, with shapes in place of tensors, and
            ``meta["source"]`` the file and line it is called from, ``meta["inside"]`` the module
            whose ``forward`` calls it, ``meta["macs"]`` its multiply-accumulates for the batch.
        calls: The calls of modules with modules inside, the inner ones first.
        whole: Modules that could not be followed, by name, and why.
        read: Numbers that a branch or a loop depended on.
        constants: Tensors that were made while it was read, by their names in the graph.
    """

    model: nn.Module
    graph: fx.Graph = field(default_factory=fx.Graph)
    calls: list[Called] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)
    read: list[fx.Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def attribute(self, name: str) -> Any:
        """What the graph reads under a name."""
        return self.constants[name] if name in self.constants else attrgetter(name)(self.model)


def trace(model: nn.Module, example: Inputs) -> Traced:
    """Read a network in evaluation mode, without gradients.

    Args:
        model: The network; it is run, and afterwards nothing of it works in place.
        example: A batch that it takes.

    Raises:
        ConvertError: The outermost ``forward`` itself cannot be followed; names the line.
    """
    tracer = _Tracer(model)
    with torch.no_grad():
        try:
            tracer.found.graph = tracer.follow(example)
        except (BoundNASError, MemoryError):
            raise
        except Exception as error:
            raise ConvertError(
                f"{type(model).__name__}.forward cannot be followed: {_why(error)}"
                f"{_where(error)}; put what branches on values of tensors into a module of its "
                "own, which then stays as it is"
            ) from error
    inplace.remove(model, tracer.found.graph)
    for node in tracer.found.graph.nodes:
        node.meta["form"] = _form(node.meta.pop("value", None))
        node.meta.setdefault("macs", 0)
    return tracer.found


class _Counter(TorchDispatchMode):
    """Counts multiply-accumulates."""

    macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.macs += multiplications(func.overloadpacket, args, kwargs or {}, result)
        return result


class _Value(fx.Proxy):
    """A recorded value that knows what it is in the example."""

    def __index__(self) -> int:
        return self._number(int)

    def __int__(self) -> int:
        return self._number(int)

    def __float__(self) -> float:
        return self._number(float)

    def __len__(self) -> int:
        return len(self.node.meta["value"])

    def _number(self, kind: Callable[[Any], Any]) -> Any:
        assert isinstance(self.tracer, _Tracer)
        value = self.node.meta["value"]
        if isinstance(value, Tensor):
            raise fx.proxy.TraceError("it computes with the value of a tensor")
        self.tracer.found.read.append(self.node)
        return kind(value)


class _Root(nn.Module):
    """A network with one input: its arguments are the parts of a tuple or dict."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.model, self.parts = model, _parts(model, example)

    def forward(self, x: Any) -> Any:
        return _called(self.model, x, self.parts)


def called_with(model: nn.Module, inputs: Inputs) -> Any:
    """What a network gives: of a dict by name, of a tuple one by one if it takes several."""
    return _called(model, inputs, _parts(model, inputs))


def _called(model: nn.Module, x: Any, parts: Sequence[Any]) -> Any:
    if not parts:
        return model(x)
    if isinstance(parts[0], str):
        return model(**{name: x[name] for name in parts})
    return model(*(x[i] for i in parts))


def _parts(model: nn.Module, example: Inputs) -> Sequence[Any]:
    """The keys of what is given as arguments of their own; none for one argument."""
    if isinstance(example, Mapping):
        return list(example)
    taken = inspect.signature(model.forward).parameters.values()
    required = [p for p in taken if p.default is inspect.Parameter.empty]
    several = isinstance(example, tuple | list) and len(required) != 1
    return range(len(example)) if several else ()


class _Tracer(fx.Tracer):
    """Records calls and makes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found = Traced(model)
        self._paths = {m: name for name, m in model.named_modules()}
        tensors = (*model.named_parameters(), *model.named_buffers())
        self._tensors = {id(tensor): name for name, tensor in tensors}
        self._held: dict[str, fx.Proxy] = {}
        self._making = False  # whether a recorded call is being made
        self._macs = 0  # of the last one
        self._inside = ""  # the module that is being followed

    def follow(self, example: Inputs) -> fx.Graph:
        """The graph of the model, called with an example."""
        self._example = example
        return super().trace(_Root(self.found.model, example))

    def path_of_module(self, mod: nn.Module) -> str:
        """The name that a module has in the model."""
        if mod not in self._paths:
            raise fx.proxy.TraceError("it makes a module while it runs")
        return self._paths[mod]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node."""
        known = type(m).__module__.startswith(("torch.nn.", "torch.ao.nn.", LEAVES))
        return known and not isinstance(m, _CONTAINERS)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        """Parameters and buffers are recorded, unless a recorded call reads them."""
        if self._making or id(attr_val) not in self._tensors:
            return attr_val
        return self._tensor(attr_val)

    def _tensor(self, tensor: Tensor) -> fx.Proxy:
        """The record of a parameter, a buffer, or a tensor that was made while reading."""
        name = self._tensors.setdefault(id(tensor), f"_tensor_constant{len(self.found.constants)}")
        if name not in self._held:
            if name.startswith("_tensor_constant"):
                self.found.constants[name] = tensor
            self._held[name] = self.create_proxy("get_attr", name, (), {})
        return self._held[name]

    def create_arg(self, a: Any) -> Any:
        """An argument as a graph holds it."""
        return self._tensor(a).node if isinstance(a, Tensor) else super().create_arg(a)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Follow a module; what cannot be followed is one node."""
        if self._making:
            return forward(*args, **kwargs)
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name):
            return self.create_proxy("call_module", name, args, kwargs)
        before, calls = len(self.graph.nodes), len(self.found.calls)
        outer, self._inside = self._inside, name
        try:
            output = forward(*args, **kwargs)
        except (BoundNASError, MemoryError):
            raise
        except Exception as error:
            if m is self.found.model:
                raise
            self._forget(before, calls)
            self.found.whole[name] = f"{_why(error)}{_where(error)}"
            self._inside = outer
            return self.create_proxy("call_module", name, args, kwargs)
        finally:
            self._inside = outer
        nodes = list(self.graph.nodes)[before:]
        result = output.node if isinstance(output, fx.Proxy) else None
        self.found.calls.append(Called(name, nodes, result))
        return output

    def _forget(self, nodes: int, calls: int) -> None:
        for node in reversed(list(self.graph.nodes)[nodes:]):
            self.graph.erase_node(node)
        del self.found.calls[calls:]
        kept = set(self.graph.nodes)
        self.found.read = [node for node in self.found.read if node in kept]
        self._held = {name: proxy for name, proxy in self._held.items() if proxy.node in kept}

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **named: Any
    ) -> fx.Proxy:
        """Record a call and make it."""
        if getattr(target, "__name__", target) in _VALUES:
            raise fx.proxy.TraceError("it reads the value of a tensor")
        proxy = super().create_proxy(kind, target, args, kwargs, *others, **named)
        proxy.node.meta["source"], proxy.node.meta["inside"] = source(), self._inside
        proxy.node.meta["value"] = self._made(kind, target, args, kwargs)
        proxy.node.meta["macs"] = self._macs
        return proxy

    def _made(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self._example
        args, kwargs = map_aggregate((args, kwargs), _value)
        self._making = True
        try:
            with _Counter() as counter:
                return self._call(kind, target, args, kwargs)
        finally:
            self._making = False
            self._macs = counter.macs

    def _call(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "call_module":
            return self.found.model.get_submodule(target)(*args, **kwargs)
        return self.found.attribute(target) if kind == "get_attr" else args[0]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A recorded value."""
        return _Value(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """A branch: on numbers it is followed, on values of tensors it cannot be."""
        value = obj.node.meta["value"]
        if isinstance(value, Tensor):
            raise fx.proxy.TraceError("it branches on the value of a tensor")
        self.found.read.append(obj.node)
        return bool(value)

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        """A loop over what has a known number of parts."""
        value = obj.node.meta["value"]
        if isinstance(value, Mapping):
            raise fx.proxy.TraceError("it loops over a dict that it computed")
        parts: Any = obj
        return iter([parts[i] for i in range(len(value))])


def _value(x: Any) -> Any:
    return x.node.meta["value"] if isinstance(x, fx.Proxy) else x


def _form(value: Any) -> Any:
    """A value with shapes in place of tensors."""
    if isinstance(value, Tensor):
        return Form(value.shape, value.dtype)
    if isinstance(value, tuple | list):
        return tuple(map(_form, value))
    if isinstance(value, Mapping):
        return {key: _form(each) for key, each in value.items()}
    return value


@dataclass(frozen=True)
class Form:
    """What is kept of a tensor."""

    shape: torch.Size
    dtype: torch.dtype


def source() -> str:
    """File and line of the innermost frame that is neither torch's nor this file's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_TORCH, __file__, "<")):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}, line {frame.f_lineno}"


def _why(error: Exception) -> str:
    if isinstance(error, fx.proxy.TraceError):
        return str(error).splitlines()[0]
    return first_line(error).replace("Proxy", "recorded value")


def _where(error: Exception) -> str:
    """The innermost of the user's lines that an error went through."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((_TORCH, __file__, "<")):
            found = f", in {file}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
