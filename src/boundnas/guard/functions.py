"""The law of what stands between elastic layers, checked function by function as they are called.

A searched map travels as its active channels and, apart from them, those that were not chosen
(`boundnas.elastic.ghost`). What is called on both apart and joined again must be what it is on
both together, ``f(cat(active, ghost)) = cat(f(active), f(ghost))``: else the function mixes
channels, the policies would learn from another network, and a width would share its weights
wrongly. Likewise it must give for a part of the samples what it gives for all, as ghosts are
computed on a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from boundnas.elastic import (
    ElasticLayer,
    ElasticModule,
    Parameter,
    Shortcut,
    Split,
    SqueezeExcite,
    Stage,
)
from boundnas.elastic.choice import Choice, Wholes
from boundnas.elastic.ghost import Ghosted, maps, replaced
from boundnas.elastic.varied import Varied
from boundnas.elastic.width import GIVES
from boundnas.errors import BoundNASError, SpaceError
from boundnas.guard import segments
from boundnas.guard.call import SIZES, Call, Trace, name_of, trace_of
from boundnas.guard.counts import Count, counts
from boundnas.guard.state import random_states
from boundnas.guard.varied import agree, follow, stand_ins
from boundnas.space import Architecture, Width
from boundnas.supernet import place
from boundnas.supernet.place import first_line

_HARMLESS = {
    "requires_grad", "grad_fn", "is_leaf", "grad", "output_nr", "_version",
    "is_contiguous", "stride", "storage_offset", "data_ptr", "__repr__", "__format__", "__hash__",
    "retains_grad", "element_size", "nbytes", "itemsize", "names",
}  # fmt: skip
"""What is read off a map and changes no network."""

_INSTEAD = {
    "cat": "put maps side by side along the axis of their channels, and build the layer that takes "
    "them with boundnas.space.Joined of their widths",
    "split": "give the layer before it the width boundnas.space.Joined((width, width)), which is "
    "split into whole maps, or take maps of other widths apart with elastic.Split",
    "glu": "give the layer before it the width boundnas.space.Joined((width, width)) and take "
    "a, b = x.chunk(2, 1), a * b.sigmoid()",
    "squeeze": "name the axes, squeeze((2, 3)), or use flatten(1): without them an axis of one "
    "channel or one sample is lost too",
    "reshape": "keep the channels on an axis of their own, x.reshape(x.shape[0], x.shape[1], -1), "
    "or use flatten(1)",
}
_SAME = {
    "concat": "cat", "concatenate": "cat", "hstack": "cat", "chunk": "split", "view": "reshape",
    "unflatten": "reshape",
}  # fmt: skip
_OTHERWISE = (
    "between elastic layers use functions that treat channels alike and separately and samples "
    "likewise (sums of maps, activations, poolings, means over pixels), elastic.BatchNorm2d to "
    "normalize, elastic.DepthwiseConv2d(width, 1) for a weight of each channel, or do this after "
    "an elastic layer that gives a fixed number of channels"
)


class Watch(TorchFunctionMode):
    """Within it every function of `forward` is checked as it is called.

    Args:
        model: The supernet; its elastic layers say where maps come from and go to.
        arch: What it is called with.
        draws: Whether to look after every function for draws from global generators, too.
    """

    def __init__(self, model: nn.Module, arch: Architecture, draws: bool) -> None:
        super().__init__()
        self.arch, self.hooks = arch, []
        self.last: dict[nn.Module, Trace] = {}
        """Of a stage or a choice, what is known of its last layer's output."""
        self.names = {module: name for name, module in model.named_modules()}
        self.device = next(model.parameters()).device
        self.before, self.draws = random_states(self.device), draws
        for module in model.modules():
            if isinstance(module, ElasticModule):
                self.hooks.append(module.register_forward_pre_hook(self._enters, with_kwargs=True))
                self.hooks.append(module.register_forward_hook(self._leaves, with_kwargs=True))
        for module in model.modules():  # what leaves a layer is noted before it leaves its stage
            if isinstance(module, Stage | Wholes):
                of_layer = partial(self._leaves_layer, module)
                self.hooks += [m.register_forward_hook(of_layer) for m in module.children()]

    def close(self) -> None:
        """Take the hooks off the model's layers."""
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call ``func`` and check it.

        Raises:
            SpaceError: It breaks the law; names it, where it is called and what to do.
        """
        kwargs = kwargs or {}
        if place.is_elastic():  # the library's own tests answer for these
            return func(*args, **kwargs)
        searched = list(maps(args, kwargs))
        if searched:
            return self._checked(func, args, kwargs, searched)
        if Count in counts((args, kwargs)):
            raise self.refusal(
                func, "makes a tensor of the number of a map's active channels, and those that are "
                "not chosen would not have theirs",
            )  # fmt: skip
        result = func(*args, **kwargs)
        if self.draws:
            self._drew(func)
        return result

    def refusal(self, func: Callable, what: str, searched: Sequence[Ghosted] = ()) -> SpaceError:
        """The error that says what a function does, to what, where, and what to do instead."""
        name = name_of(func)
        of = f" of the output of {trace_of(searched[0]).source}" if searched else ""
        instead = _INSTEAD.get(_SAME.get(name, name), _OTHERWISE)
        return SpaceError(f"{place.here()}: {name}{of} {what}. Instead {instead}")

    def _drew(self, func: Callable) -> None:
        if random_states(self.device) != self.before:
            raise SpaceError(
                f"{place.here()}: {name_of(func)} draws from torch's global generator, so that a "
                "resumed run, and each of several processes, would train another network; use "
                "elastic.Dropout or elastic.DropConnect, whose draws follow from seed and step"
            )

    def _checked(self, func: Callable, args: Any, kwargs: Any, searched: list[Ghosted]) -> Any:
        """The result of a function of searched maps, if it may stand there."""
        for x in searched:
            self._own_gradient(x)
        if name_of(func) == "squeeze" and len(args) == 1 and not kwargs:
            raise self.refusal(func, "names no axis", searched)
        if any(isinstance(x, Varied) for x in searched):
            return self._checked_options(func, args, kwargs, searched)
        call = Call(func, args, kwargs, searched)
        result = self._called(func, args, kwargs, searched)
        name = name_of(func)
        if name in _HARMLESS:
            return result
        if what := call.fault(result):
            self._drew(func)  # of which the fault comes, then
            raise self.refusal(func, what, searched)
        return call.known if name in SIZES else result

    def _checked_options(
        self, func: Callable, args: Any, kwargs: Any, searched: list[Ghosted]
    ) -> Any:
        """Likewise where maps among them were normalized over their width."""
        found = stand_ins(searched)
        result = self._called(func, args, kwargs, searched)
        if name_of(func) in _HARMLESS:
            return result
        if not found:  # all channels are active
            follow(result, searched[0])
            return result
        args, kwargs = replaced((args, kwargs), lambda x: found.get(id(x), x))
        known = self._checked(func, args, kwargs, list(maps(args, kwargs)))
        if name_of(func) in SIZES:
            return known
        if not agree(result, known):
            raise self.refusal(func, "takes maps whose channels lie on different axes", searched)
        return result

    def _called(self, func: Callable, args: Any, kwargs: Any, searched: list[Ghosted]) -> Any:
        """The result as in training."""
        try:
            result = func(*args, **kwargs)
        except BoundNASError as error:
            raise self.refusal(func, f"cannot be: {error}", searched) from error
        except Exception as error:
            raise self.refusal(
                func, f"fails in the architecture {self.arch}: {first_line(error)}", searched
            ) from error
        if self.draws:
            self._drew(func)
        return result

    def _own_gradient(self, x: Ghosted) -> None:
        """Refuse what a user's autograd function gave: it knows nothing of the parts."""
        with torch._C.DisableTorchFunctionSubclass():
            grad_fn = x.grad_fn
        if isinstance(grad_fn, BackwardCFunction):
            raise SpaceError(
                f"{place.here()}: {type(grad_fn).__name__.removesuffix('Backward')}, a "
                f"torch.autograd.Function, of the output of {trace_of(x).source}: its gradient "
                f"would be lost. Instead {_OTHERWISE}"
            )

    def _enters(self, layer: ElasticModule, args: Any, kwargs: Any) -> None:
        """Check the maps that arrive at an elastic layer."""
        if not isinstance(layer, ElasticLayer | SqueezeExcite | Split | Shortcut):
            return
        x, arch = _input(args, kwargs), self._of(args, kwargs)
        setting = _setting(layer, "in_channels", "in_features", "channels", "features")
        if isinstance(layer, Shortcut):
            self._arrives(layer, args[1] if len(args) > 1 else kwargs["x"], layer.inputs, arch)
            x = args[0] if args else kwargs["y"]
        self._arrives(layer, x, setting, arch)

    def _arrives(
        self, layer: ElasticModule, x: object, setting: Width | None, arch: Architecture
    ) -> None:
        """Check a map that arrives where a layer is built for a width."""
        anywhere = getattr(layer, "axis", 1) is None or isinstance(layer, Parameter)
        if not isinstance(x, Ghosted) or anywhere:
            return
        self._own_gradient(x)
        known = "trace" in x.__dict__  # not of what an elastic layer computed inside
        trace, name = trace_of(x), f"{self.names[layer]} ({type(layer).__name__})"
        where = f"{place.here()}: {name} gets the output of {trace.source}"
        with torch._C.DisableTorchFunctionSubclass():
            axis = _axis(layer) % x.dim()
        if known and (trace.channels, trace.samples) != (axis, 0):
            raise SpaceError(
                f"{where} with channels on axis {trace.channels} and samples on axis "
                f"{'none' if trace.samples is None else trace.samples}; it takes samples on axis "
                f"0 and channels on {'axis 1' if _axis(layer) == 1 else 'the last axis'}"
            )
        if isinstance(x, Varied) and not getattr(layer, "varied", False):
            raise SpaceError(
                f"{where}, a map that was normalized over a searched width: every option of it has "
                "values of its own, which this layer has no gradient for; let elastic.Linear, a "
                "convolution or elastic.Activation take it, or normalize after this layer"
            )
        if setting is None:
            return
        built = segments.of_width(setting, arch)
        with torch._C.DisableTorchFunctionSubclass():
            given = segments.as_built(x, axis, built) if trace.segments is None else trace.segments
        if built != given:
            raise SpaceError(
                f"{where}, whose channels are {segments.shown(given)} here, and is built for "
                f"{segments.shown(built)}; give it the width of what it gets, of maps side by side "
                "boundnas.space.Joined of theirs"
            )

    def _leaves(self, layer: ElasticModule, args: Any, kwargs: Any, output: object) -> None:
        """Note where a map comes from, or that one ends here."""
        if isinstance(layer, Split) and isinstance(output, tuple):
            self._leaves_split(layer, output, self._of(args, kwargs))
            return
        if not isinstance(output, Ghosted):
            self._ends(layer, _input(args, kwargs), output)
            return
        setting = _setting(layer, *GIVES)
        x, arch = _input(args, kwargs), self._of(args, kwargs)
        own = None if setting is None else segments.of_width(setting, arch)
        trace = Trace(_axis(layer) % output.active.dim(), segments=own)
        if isinstance(layer, Stage | Wholes):
            last = self.last.pop(layer, None)
            if isinstance(layer, Choice) and isinstance(x, Ghosted) and layer.passes(arch):
                last = x.__dict__.get("trace")
            if last is None:
                return
            trace = replace(last)
        elif isinstance(x, Ghosted) and setting is None:
            if "trace" not in x.__dict__:
                return
            trace = replace(trace_of(x))
        trace.source = f"{self.names[layer]} ({type(layer).__name__})"
        output.__dict__["trace"] = trace

    def _leaves_split(self, layer: Split, output: tuple[Tensor, ...], arch: Architecture) -> None:
        for part, x in zip(layer.channels.parts, output, strict=True):
            if isinstance(x, Ghosted):
                source = f"{self.names[layer]} (Split)"
                own = segments.of_width(part, arch)
                axis = layer.axis % x.active.dim()
                x.__dict__["trace"] = Trace(axis, source=source, segments=own)

    def _of(self, args: Any, kwargs: Any) -> Architecture:
        """What a layer was called with: around it, options may be computed as wholes."""
        given = (each for each in (*args, *kwargs.values()) if isinstance(each, Architecture))
        return next(given, self.arch)

    def _ends(self, layer: ElasticModule, x: object, output: object) -> None:
        """Refuse a user's layer that leaves the gradient of its input's width out."""
        own = isinstance(layer, ElasticLayer) and not place.is_librarys(type(layer).forward)
        if not own or not isinstance(x, Ghosted) or not isinstance(output, Tensor):
            return
        with torch._C.DisableTorchFunctionSubclass():
            before, after = x.active.grad_fn, output.grad_fn  # what `split` gives of it
        gates = [self.arch.gate(dimension) for dimension in trace_of(x).dimensions]
        if any(gate is not None and not reaches(after, gate, but_for=before) for gate in gates):
            raise SpaceError(
                f"{self.names[layer]} ({type(layer).__name__}) takes the output of "
                f"{trace_of(x).source}, whose width is searched, and its own forward gives the "
                "options of this width no gradient; derive it from elastic.Conv2d or "
                "elastic.Linear, whose forward does (boundnas.elastic.ghost says how)"
            )

    def _leaves_layer(self, stage: nn.Module, _: nn.Module, __: Any, output: object) -> None:
        if isinstance(output, Ghosted) and "trace" in output.__dict__:
            self.last[stage] = trace_of(output)


def _input(args: Any, kwargs: Any) -> object:
    """What an elastic module was called with, but for the architecture."""
    return args[0] if args else kwargs.get("x")


def reaches(node: Any, leaf: Tensor, but_for: Any) -> bool:
    """Whether a graph of autograd gets to a leaf without passing a certain node."""
    seen, todo = {None, but_for}, [node]
    while todo:
        if (node := todo.pop()) in seen:
            continue
        if getattr(node, "variable", None) is leaf:
            return True
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
    return False


def _axis(layer: ElasticModule) -> int:
    """Where a layer's channels lie."""
    return getattr(layer, "axis", 1) or 1


def _setting(layer: nn.Module, *names: str) -> Width | None:
    if isinstance(layer, SqueezeExcite):
        layer = layer.reduce
        names = ("in_features",)
    return next((getattr(layer, name) for name in names if hasattr(layer, name)), None)
