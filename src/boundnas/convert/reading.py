"""What a network's operators do with channels, one rule for each; what has none stays fixed.

The graph is read in order. The rule of an operator says which axes of its result are which of its
arguments', unites those that must be one, and fixes those that it mixes. **An operator without a
rule is a boundary**: all channels that it sees stay as they are, and the report says where.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from boundnas.convert.axes import (
    Axis,
    Group,
    Map,
    Reason,
    Segment,
    Size,
    align,
    plain,
    samples,
    unite,
)
from boundnas.convert.facts import Binding, Boundary, Read
from boundnas.convert.graph import Traced
from boundnas.convert.record import Form
from boundnas.convert.sharing import shared_weights
from boundnas.convert.weights import settle, weights


class NoRuleError(Exception):
    """Why an operator has no rule for what it was called with."""


@dataclass
class Call:
    """A node that is being read.

    Args:
        read: What is known so far.
        node: It.
        name: Of the function or module.
        args: What its arguments are known to be.
        kwargs: Likewise, by name.
        module: The module that it calls, if it does.
    """

    read: Read
    node: fx.Node
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    module: nn.Module | None = None

    @property
    def source(self) -> str:
        """File and line."""
        return str(self.node.meta.get("source", ""))

    @property
    def form(self) -> Any:
        """What it gave in the example."""
        return self.node.meta["form"]

    def reason(self, text: str) -> Reason:
        """Why something stays fixed here."""
        return Reason(text, self.source)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument that may be given either way."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    @property
    def map(self) -> Map:
        """The first argument, a tensor."""
        x = self.argument(0, "input", self.kwargs.get("x", self.kwargs.get("self")))
        if not isinstance(x, Map):
            raise NoRuleError("its first argument is no tensor")
        return x

    def arguments(self) -> Iterator[Any]:
        """Every value among the arguments, however nested."""
        yield from _leaves((self.args, self.kwargs))

    def maps(self) -> list[Map]:
        """Every tensor among the arguments."""
        return [x for x in self.arguments() if isinstance(x, Map)]

    def result(self, *axes: Axis | None) -> Map:
        """A tensor of the shape that it gave, with these axes."""
        shape = self.form.shape
        if len(shape) != len(axes):
            raise NoRuleError("gives another number of axes than its rule says")
        sizes = [n if axis is None else axis.size for n, axis in zip(shape, axes, strict=True)]
        if sizes != list(shape):
            raise NoRuleError("gives another number of channels than its rule says")
        return Map(shape, axes)

    def fix(self, *axes: Axis | None, why: str) -> None:
        """Keep channels as they are."""
        for axis in axes:
            if axis is not None and any(g.makers and g.reason is None for g in axis.groups):
                self.meets_boundary(why)
            if axis is not None:
                axis.fix(self.reason(f"{self.name} {why}"))

    def meets_boundary(self, why: str) -> None:
        """Note that channels stay fixed here."""
        name = self.name if self.module is not None else f"{self.name}()"
        self.read.boundaries.append(Boundary(name, self.reason(why)))

    def bind(self, inputs: Axis | None, outputs: Axis | None) -> None:
        """The module is built with these channels; called again, with the same."""
        assert self.module is not None
        name = str(self.node.target)
        for axis in (inputs, outputs):
            parts = () if axis is None else axis.segments
            if any(s.factor.denominator > 1 and s.group.head is not None for s in parts):
                self.fix(axis, why="works along an axis of heads")
        first, *others = self.map.axes
        if any(axis is not None and axis.of_samples for axis in others):
            self.fix(inputs, outputs, why="gets samples on another axis than the first")
        if first is not None and len(first.segments) > 1:
            self.fix(inputs, outputs, why="gets samples after samples")
        held = self.read.bindings.get(name)
        if held is None:
            held = Binding(name, self.module, inputs, outputs, self.source)
            self.read.bindings[name] = held
        held.nodes.append(self.node)
        for axis in (inputs, outputs):
            for group in axis.groups if axis is not None else ():
                if name not in group.users:
                    group.users.append(name)

    def held(self) -> Binding | None:
        """What the module was bound to at an earlier call."""
        return self.read.bindings.get(str(self.node.target))

    def produced(self, size: int, unit: int = 1) -> Axis:
        """New channels, which the module makes."""
        group = Group(size, unit, makers=[str(self.node.target)])
        return Axis((Segment(group),))


Rule = Callable[[Call], Any]
"""What an operator gives; it raises `NoRuleError` where there is none for such arguments."""

MODULES: dict[type[nn.Module], Rule] = {}
"""Rules of modules, by their exact type."""

FUNCTIONS: dict[str, Rule] = {}
"""Rules of functions and of tensors' methods, by their common name."""


OF_ONE = (nn.LayerNorm, nn.RMSNorm)
"""Modules that take the channels of one group."""


def rule(*kinds: type[nn.Module] | str) -> Callable[[Rule], Rule]:
    """Enter a rule for modules and functions."""

    def enter(function: Rule) -> Rule:
        for kind in kinds:
            if isinstance(kind, str):
                FUNCTIONS[kind] = function
            else:
                MODULES[kind] = function
        return function

    return enter


def read(traced: Traced) -> Read:
    """Find the channel groups of a network."""
    parts = _of_weights(traced)
    used = {n: w for n, w in weights(traced).items() if parts.isdisjoint(w.nodes)}
    shared, tied = shared_weights(traced, parts)
    found = Read(traced, shared=shared, tied=tied, weights=used)
    for node in traced.graph.nodes:
        if node in parts:
            found.values[node] = unknown(node.meta["form"])
        else:
            weight = found.weights.get(node)
            found.values[node] = _value(found, node) if weight is None else weight.unknown()
    for node, weight in found.weights.items():
        settle(found.values[node], weight.name)
    for binding in found.bindings.values():  # of channels that were cut since
        axis = binding.inputs
        if isinstance(binding.module, OF_ONE) and axis is not None and len(axis.segments) > 1:
            axis.fix(Reason("normalizes over channels of several layers", binding.source))
    for node in traced.read:
        value = found.values[node]
        if isinstance(value, Size):
            source = str(node.meta.get("source", ""))
            value.fix(Reason("a branch or a loop depends on its size", source))
    return found


def _of_weights(traced: Traced) -> set[fx.Node]:
    """What goes into weights that layers compute themselves, or numbers, and nowhere else."""
    found: set[fx.Node] = set()
    for node in reversed(traced.graph.nodes):
        takers = [n for n in node.users if n not in found]
        inside = all(str(n.target) in traced.computed and n.args[0] is not node for n in takers)
        if inside and node.op != "output" and not node.meta["follows"]:
            found.add(node)
    return found


def _value(found: Read, node: fx.Node) -> Any:
    if node.op == "placeholder":
        return _batched(node.meta["form"])
    if node.op == "get_attr":
        return unknown(node.meta["form"])
    args, kwargs = map_aggregate((node.args, node.kwargs), lambda a: _known(found, a))
    call = Call(found, node, "", args, kwargs)
    if node.op == "output":
        for x in call.arguments():
            if isinstance(x, Map | Size):
                x.fix(Reason("the network returns it"))
        return None
    try:
        value = _rule(call)(call)
    except NoRuleError as error:
        return boundary(call, str(error))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return boundary(call, "is called in a way for which there is no rule")
    if node not in found.sizes and call.maps():
        _keep_numbers(call)
    return value


def _keep_numbers(call: Call) -> None:
    """Numbers of channels that maps are computed with stay those of the largest network."""
    for node in call.node.all_input_nodes:
        x = call.read.values[node]
        if not isinstance(x, Size) or not x.of:
            continue
        if x.plain:
            call.fix(*x.of, why="computes with its number of channels")
        else:
            call.read.numbers.setdefault(call.node, []).append(node)


def _batched(form: Any) -> Any:
    """What comes from outside: tensors whose first axis is that of the samples."""
    if isinstance(form, Form):
        return Map(form.shape, (samples(form.shape[0]), *[None] * (len(form.shape) - 1)))
    if isinstance(form, tuple):
        return tuple(map(_batched, form))
    return {key: _batched(each) for key, each in form.items()}


def _known(found: Read, argument: Any) -> Any:
    return found.values[argument] if isinstance(argument, fx.Node) else argument


def _rule(call: Call) -> Rule:
    node, traced = call.node, call.read.traced
    if node.op == "call_module":
        call.module, call.name = traced.model.get_submodule(str(node.target)), str(node.target)
        if call.name in traced.whole:
            raise NoRuleError(f"stays as it is: {traced.whole[call.name]}")
        if call.name in call.read.shared:
            raise NoRuleError(f"shares a weight with {call.read.shared[call.name]}")
        if is_parametrized(call.module):
            raise NoRuleError(
                "computes its weight by a parametrization; "
                "torch.nn.utils.parametrize.remove_parametrizations makes that a plain one"
            )
        if type(call.module) not in MODULES:
            raise NoRuleError(f"is a {type(call.module).__name__}, for which there is no rule")
        return MODULES[type(call.module)]
    if node.op == "call_method":
        call.name = str(node.target)
    else:
        call.name = getattr(node.target, "__name__", str(node.target))
    name = operator_name(node)
    if name not in FUNCTIONS:
        raise NoRuleError("has no rule")
    return FUNCTIONS[name]


_HOMES = (torch, F, operator, torch.special, math, builtins, torch.Tensor)


def operator_name(node: fx.Node) -> str:
    """The common name of a function or method; nothing for a module or somebody else's function."""
    if node.op == "call_method":
        name, is_known = str(node.target), True
    else:
        name = getattr(node.target, "__name__", "")
        is_known = any(getattr(home, name, None) is node.target for home in _HOMES)
    if not is_known:
        return ""
    return name if name.endswith("__") else name.removesuffix("_")


def boundary(call: Call, why: str) -> Any:
    """All channels that an operator sees stay as they are."""
    weighs = call.module is not None and any(True for _ in call.module.parameters())
    if weighs or any(isinstance(x, Map | Size) and x.is_searched for x in call.arguments()):
        call.meets_boundary(why)
    reason = call.reason(f"{call.name} {why}")
    for x in call.arguments():
        if isinstance(x, Map | Size):
            x.fix(reason)
    for name in (call.name, call.read.tied.get(call.name)) if call.module is not None else ():
        held = call.read.bindings.get(str(name))  # of another call, or of its weight
        for axis in (held.inputs, held.outputs) if held is not None else ():
            if axis is not None:
                axis.fix(reason)
    return unknown(call.form)


def unknown(form: Any) -> Any:
    """A result without searched channels."""
    if isinstance(form, Form):
        return plain(form.shape)
    if isinstance(form, tuple):
        return tuple(map(unknown, form))
    if isinstance(form, Mapping):
        return {key: unknown(each) for key, each in form.items()}
    return Size(form) if isinstance(form, int | float) else form


def _leaves(argument: Any) -> Iterator[Any]:
    if isinstance(argument, Mapping):
        argument = tuple(argument.values())
    if isinstance(argument, slice):
        argument = (argument.start, argument.stop, argument.step)
    if isinstance(argument, list | tuple):
        for part in argument:
            yield from _leaves(part)
    else:
        yield argument


def unite_axes(one: Axis | None, other: Axis | None, call: Call, why: str) -> Axis | None:
    """The axis of what treats two maps channel by channel.

    What cannot be one stays fixed, and is noted.
    """
    if one is None or other is None or not align(one, other):
        call.fix(one, other, why=why)
        return None
    for a, b in zip(one.segments, other.segments, strict=True):
        unite(a.group, b.group)
    return one
