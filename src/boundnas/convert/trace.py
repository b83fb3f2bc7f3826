"""Reading a network: the graph of what its ``forward`` calls, with real values at hand.

Every call is made on the example while it is recorded. So a branch on a shape is followed, as it
would be; what it depended on is noted and stays fixed. A module whose control flow follows the
values of tensors, or does what cannot be recorded, is one node of the graph, as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import (
    ParametrizationList,
    is_parametrized,
    type_before_parametrizations,
)
from torch.nn.utils.rnn import PackedSequence

from boundnas.convert import answers, expanding, inplace, making, training
from boundnas.convert.calling import Root
from boundnas.convert.given import hooked
from boundnas.convert.gradients import Switch, holds_proxy
from boundnas.convert.graph import Called, Traced
from boundnas.convert.record import (
    Counter,
    form_of,
    holds_tensor,
    source,
    where,
    why,
)
from boundnas.convert.recorded import Recorded, is_of_tensor, value_of
from boundnas.errors import BoundNASError, ConvertError
from boundnas.nested import Inputs, count

_VALUES = ("item", "tolist", "numpy", "equal", "allclose", "is_nonzero")
"""Functions that give numbers that follow the values of tensors."""
LEAVES = "boundnas.convert.known"
"""Where modules are defined that are one node, beside those of ``torch.nn``."""
_LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
"""Layers whose parametrizations are followed."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def trace(model: nn.Module, example: Inputs) -> Traced:
    """Read a network in evaluation mode, without gradients.

    Args:
        model: The network; it is run, and afterwards nothing of it works in place.
        example: A batch that it takes.

    Raises:
        ConvertError: The outermost ``forward`` itself cannot be followed; names the line.
    """
    stays = {n: f"has a hook, {h}" for n, m in model.named_modules() if n and (h := hooked(m))}
    found = training.in_both_modes(model, partial(_followed, example), stays)
    inplace.remove(found.model, found.graph, found.calls)
    _give_one(found.graph)
    expanding.leave_open(found.graph)
    _without_unused(found)
    for node in found.graph.nodes:
        node.meta["form"] = form_of(node.meta.pop("value", None))
        node.meta.setdefault("macs", 0)
        given = node.all_input_nodes
        node.meta["follows"] = node.op == "placeholder" or any(n.meta["follows"] for n in given)
        values = any(n.meta["values"] for n in given) and holds_tensor(node.meta["form"])
        node.meta["values"] = node.op == "placeholder" or values
        if not _is_wrapped(node.target):
            node.meta.pop("is_wrapped", None)  # what a followed function gave
        expanding.as_another(node)
    return found


def _followed(
    example: Inputs, model: nn.Module, stays: Mapping[str, str], trains: bool
) -> tuple[Traced, dict[str, str]]:
    """What is read in one go, and the modules that ask whether they train, and where."""
    tracer = _Tracer(model, stays, trains)
    with torch.no_grad():
        try:
            with (
                answers.of_tensors(is_of_tensor),
                making.watched(tracer.factory, tracer.method),
                training.asked(tracer.tell),
                tracer.switch.watched(),
                torch._dynamo.config.patch(error_on_nested_fx_trace=False),
            ):
                tracer.found.graph = tracer.follow(example)
        except (BoundNASError, MemoryError):
            raise
        except Exception as error:
            raise ConvertError(
                f"{type(model).__name__}.forward cannot be followed{' in training' * trains}: "
                f"{why(error)}{where(error)}; put what branches on values of tensors into a module "
                "of its own, which then stays as it is"
            ) from error
    return tracer.found, tracer.readers


def _give_one(graph: fx.Graph) -> None:
    """Have a network give a tensor that is all that its tuple, list or dict holds."""
    output, held = next(iter(reversed(graph.nodes))), list[Any]()
    map_aggregate(output.args, held.append)
    held = [x for x in held if x is not None]
    if len(held) == 1 and isinstance(held[0], fx.Node):
        output.args = (held[0],)


def _without_unused(traced: Traced) -> None:
    """Take out what nothing depends on, as weights of attention that nobody looks at."""
    wanted = set(traced.read)
    traced.graph.eliminate_dead_code(lambda n: n.op in ("placeholder", "output") or n in wanted)
    kept = set(traced.graph.nodes)
    for call in traced.calls:
        call.nodes = [node for node in call.nodes if node in kept]
        call.output = call.output if call.output in kept else None


class _Tracer(fx.Tracer):
    """Records calls and makes them."""

    def __init__(self, model: nn.Module, stays: Mapping[str, str], trains: bool) -> None:
        super().__init__()
        self.found = Traced(model)
        self.readers: dict[str, str] = {}
        self._stays, self._trains = stays, trains
        self._paths = {m: name for name, m in model.named_modules()}
        tensors = (*model.named_parameters(), *model.named_buffers())
        self._tensors = {id(tensor): name for name, tensor in tensors}
        self._held: dict[str, fx.Proxy] = {}
        self._making = False  # whether a recorded call is being made
        self.switch = Switch(lambda: not self._making)
        self._macs = 0  # of the last one
        self._inside = ""  # the module that is being followed

    def follow(self, example: Inputs) -> fx.Graph:
        """The graph of the model, called with an example."""
        self._example, self._samples = example, count(example)
        return super().trace(Root(self.found.model, example))

    def tell(self, module: nn.Module, value: bool) -> bool:
        """Whether a module trains, for those who ask."""
        if self._making or module not in self._paths:
            return value
        self.readers.setdefault(self._inside, source())
        return value or self._trains

    def path_of_module(self, mod: nn.Module) -> str:
        """The name that a module has in the model."""
        if mod not in self._paths:
            raise fx.proxy.TraceError("it makes a module while it runs")
        return self._paths[mod]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node."""
        known = type(m).__module__.startswith(("torch.nn.", "torch.ao.nn.", LEAVES))
        return known and not isinstance(m, _CONTAINERS) and not _computes(m)

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
        if isinstance(a, fx.Proxy):
            return a.node
        a = a.item() if isinstance(a, np.generic) else a
        return self._tensor(a).node if isinstance(a, Tensor) else super().create_arg(a)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Follow a module; what cannot be followed is one node."""
        if self._making or self._is_made_now(m):
            return forward(*args, **kwargs)
        name = self.path_of_module(m)
        if name in self._stays:
            self.found.whole[name] = self._stays[name]
        if self.is_leaf_module(m, name) or name in self._stays:
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
            self.found.whole[name] = f"{why(error)}{where(error)}"
            self._inside = outer
            return self.create_proxy("call_module", name, args, kwargs)
        finally:
            self._inside = outer
        nodes = list(self.graph.nodes)[before:]
        result = output.node if isinstance(output, fx.Proxy) else None
        self.found.calls.append(Called(name, nodes, result))
        return output

    def _is_made_now(self, m: nn.Module) -> bool:
        """Whether a forward made a module, which holds nothing, to call it as a function."""
        held = any(True for _ in (*m.parameters(), *m.buffers()))
        return m not in self._paths and m is not self.root and not held

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
        self.switch.check()
        if any(isinstance(a, PackedSequence) for a in (*args, *kwargs.values())):
            raise fx.proxy.TraceError("it hands packed sequences on")
        if getattr(target, "__name__", target) in _VALUES:
            raise fx.proxy.TraceError("it reads the value of a tensor")
        if kind == "call_method" and inplace.is_only_in_place(str(target)):
            raise fx.proxy.TraceError(f"it calls {target}, for which there is no other way")
        if target in making.NEW and not self._follows_samples((args, kwargs)):
            of, *sizes = args
            return self._now(getattr(Tensor, target), (value_of(of), *sizes), kwargs)
        if kind == "call_function" and _is_wrapped(target):
            return self._inwards(target, args, kwargs)
        args, kwargs = making.on_own_device((args, kwargs), value_of)
        proxy = super().create_proxy(kind, target, args, kwargs, *others, **named)
        proxy.node.meta["source"], proxy.node.meta["inside"] = source(), self._inside
        proxy.node.meta["value"] = self._made(kind, target, args, kwargs)
        proxy.node.meta["macs"] = self._macs
        proxy.node.meta["samples"] = self._is_of_samples(target, args, kwargs, proxy)
        return proxy

    def _is_of_samples(self, target: Any, args: Any, kwargs: Any, proxy: fx.Proxy) -> bool:
        """Whether a number follows the number of samples, as far as that shows."""
        value = proxy.node.meta["value"]
        if isinstance(value, torch.Size):  # a shape, or what was cut from the start of one
            cut = args[1] if target is operator.getitem else slice(None)
            return value[:1] == (self._samples,) and cut.start in (None, 0)
        if not isinstance(value, int):
            return False
        if target in (operator.getitem, "size"):
            return bool(args[-1] == 0) and value == self._samples
        return self._follows_samples((args, kwargs))

    def _follows_samples(self, arguments: Any) -> bool:
        found: list[fx.Proxy] = []
        map_aggregate(arguments, lambda a: found.append(a) if isinstance(a, fx.Proxy) else None)
        return any(proxy.node.meta.get("samples") for proxy in found)

    def _now(self, function: Any, args: Any, kwargs: Any) -> Any:
        """What a function gives of numbers, which stay what they are in the example."""
        args, kwargs = map_aggregate((args, kwargs), self._settled)
        self._making = True
        try:
            return function(*args, **kwargs)
        finally:
            self._making = False

    def _settled(self, argument: Any) -> Any:
        if not isinstance(argument, fx.Proxy):
            return argument
        value = argument.node.meta["value"]
        if isinstance(value, Tensor):
            raise fx.proxy.TraceError("it reads the value of a tensor")
        self.found.read.append(argument.node)
        return value

    def _inwards(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Follow a function that ``torch.fx.wrap`` would keep whole, if it can be."""
        before, calls = len(self.graph.nodes), len(self.found.calls)
        try:
            return function(*args, **kwargs)
        except (BoundNASError, MemoryError):
            raise
        except Exception:
            self._forget(before, calls)
            record = super().create_proxy
            proxy: fx.Proxy = record("call_function", function, args, kwargs)
            proxy.node.meta |= {"source": source(), "inside": self._inside, "samples": False}
            proxy.node.meta["value"] = self._made("call_function", function, args, kwargs)
            proxy.node.meta["macs"] = self._macs
            return proxy

    def factory(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """What a function makes of sizes, or says of a type."""
        if self._making or not holds_proxy((args, kwargs)):
            return function(*args, **kwargs)
        if self._follows_samples((args, kwargs)):
            return self.create_proxy("call_function", function, args, kwargs)
        return self._now(function, args, kwargs)

    def method(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        """What a method of a tensor makes of sizes."""
        if self._making or not holds_proxy((args, kwargs)):
            return function(*args, **kwargs)
        return self.create_proxy("call_method", name, args, kwargs)

    def _made(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self._example
        args, kwargs = map_aggregate((args, kwargs), value_of)
        self._making = True
        try:
            with Counter() as counter:
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
        return Recorded(node, self)

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


def _computes(module: nn.Module) -> bool:
    """Whether a layer computes its weight of parameters alone, or a module does that for one."""
    if isinstance(module, ParametrizationList):
        return True
    if type(module).__module__ == parametrizations.__name__:
        return not any(True for _ in module.buffers())  # as a spectral norm has
    if not is_parametrized(module) or type_before_parametrizations(module) not in _LAYERS:
        return False
    lists: Any = module.parametrizations
    return all(_computes(each) for listed in lists.values() for each in listed)


def _is_wrapped(function: Any) -> bool:
    """Whether a function is somebody's own, in Python."""
    module = getattr(function, "__module__", None) or ""
    return isinstance(function, FunctionType) and not module.startswith("torch.")
