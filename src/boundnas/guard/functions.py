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
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from boundnas.elastic import Activation, ElasticLayer, ElasticModule, SqueezeExcite, Stage
from boundnas.elastic.ghost import SIZED, Ghosted, leading, maps, replaced, resized
from boundnas.errors import BoundNASError, SpaceError
from boundnas.guard import place
from boundnas.guard.counts import Count, counted, counts, wholes
from boundnas.guard.state import random_states
from boundnas.space import Architecture, Derived, Dimension, Setting, largest

_SIZES = {"shape", "size", "numel", "nelement", "__len__"}
"""What is read off a map and known for all its channels."""

_HARMLESS = {
    "requires_grad", "grad_fn", "is_leaf", "grad", "output_nr", "_version",
    "is_contiguous", "stride", "storage_offset", "data_ptr", "__repr__", "__format__", "__hash__",
    "retains_grad", "element_size", "nbytes", "itemsize", "names",
}  # fmt: skip
"""What is read off a map and changes no network."""

_INSTEAD = {
    "cat": "give each map an elastic layer of its own and add what they give: a convolution of "
    "maps side by side is the sum of one of each",
    "squeeze": "name the axes, squeeze((2, 3)), or use flatten(1): without them an axis of one "
    "channel or one sample is lost too",
    "reshape": "keep the channels on an axis of their own, x.reshape(x.shape[0], x.shape[1], -1), "
    "or use flatten(1)",
}
_SAME = {
    "concat": "cat", "concatenate": "cat", "stack": "cat", "hstack": "cat", "view": "reshape",
    "unflatten": "reshape",
}  # fmt: skip
_OTHERWISE = (
    "between elastic layers use functions that treat channels alike and separately and samples "
    "likewise (sums of maps, activations, poolings, means over pixels), elastic.BatchNorm2d to "
    "normalize, or do this after an elastic layer that gives a fixed number of channels"
)


@dataclass
class Trace:
    """What the watch knows of a searched map.

    Args:
        channels: Axis of its channels.
        samples: Axis of its samples; none where they were averaged over.
        source: The layer it comes from.
        dimension: Whose choice its width is; none where that is not known.
    """

    channels: int = 1
    samples: int | None = 0
    source: str = "an elastic layer"
    dimension: Dimension | None = None


def trace_of(x: Ghosted) -> Trace:
    """What is known of a map; one that nothing is known of came out of an elastic layer."""
    found: Trace = x.__dict__.setdefault("trace", Trace())
    return found


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
        self.inside = 0
        """How deep in elastic layers, whose functions the library's own tests answer for."""
        self.last: dict[nn.Module, Trace] = {}
        """Of a stage, what is known of its last layer's output."""
        self.names = {module: name for name, module in model.named_modules()}
        self.device = next(model.parameters()).device
        self.before = random_states(self.device) if draws else None
        for module in model.modules():
            if isinstance(module, ElasticModule):
                self.hooks.append(module.register_forward_pre_hook(self._enters))
                self.hooks.append(module.register_forward_hook(self._leaves))
            if isinstance(module, Stage):
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
        if self.inside:
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
        self._drew(func)
        return result

    def refusal(self, func: Callable, what: str, searched: Sequence[Ghosted] = ()) -> SpaceError:
        """The error that says what a function does, to what, where, and what to do instead."""
        name = name_of(func)
        of = f" of the output of {trace_of(searched[0]).source}" if searched else ""
        instead = _INSTEAD.get(_SAME.get(name, name), _OTHERWISE)
        return SpaceError(f"{place.here()}: {name}{of} {what}. Instead {instead}")

    def _drew(self, func: Callable) -> None:
        if self.before is not None and random_states(self.device) != self.before:
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
        call = _Call(func, args, kwargs, searched)
        try:
            result = call.apart()
        except BoundNASError as error:
            raise self.refusal(func, f"cannot be: {error}", searched) from error
        except Exception as error:
            raise self.refusal(
                func, f"fails in the architecture {self.arch}: {_first_line(error)}", searched
            ) from error
        self._drew(func)
        name = name_of(func)
        if name in _HARMLESS:
            return result
        if what := call.fault(result):
            raise self.refusal(func, what, searched)
        return call.known if name in _SIZES else result

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

    def _enters(self, layer: ElasticModule, inputs: tuple[Any, ...]) -> None:
        """Check a map that arrives at an elastic layer."""
        if not isinstance(layer, ElasticLayer | SqueezeExcite):
            return
        self.inside += 1
        x = inputs[0] if inputs else None
        if not isinstance(x, Ghosted) or isinstance(layer, Activation):
            return
        self._own_gradient(x)
        trace, name = trace_of(x), f"{self.names[layer]} ({type(layer).__name__})"
        setting = _setting(layer, "in_channels", "in_features", "channels")
        where = f"{place.here()}: {name} gets the output of {trace.source}"
        if trace.channels != 1 or trace.samples != 0:
            raise SpaceError(
                f"{where} with channels on axis {trace.channels} and samples on axis "
                f"{'none' if trace.samples is None else trace.samples}; elastic layers take "
                "samples on axis 0 and channels on axis 1"
            )
        if setting is None:
            return
        dimension = _dimension(setting)
        if dimension is None or trace.dimension not in (None, dimension):
            built = "a fixed number" if dimension is None else f"the dimension {dimension.name}"
            follows = "" if trace.dimension is None else f", which follows {trace.dimension.name}"
            raise SpaceError(f"{where}{follows}, and is built with {built}; give it the former")
        with torch._C.DisableTorchFunctionSubclass():
            width = x.active.shape[1] + x.ghost.shape[1]
        if width != largest(setting):
            raise SpaceError(
                f"{where}, which has at most {width} channels, and is built for {largest(setting)}"
            )

    def _leaves(self, layer: ElasticModule, inputs: tuple[Any, ...], output: object) -> None:
        """Note where a map comes from."""
        self.inside -= isinstance(layer, ElasticLayer | SqueezeExcite)
        if not isinstance(output, Ghosted):
            return
        setting = _setting(layer, "out_channels", "out_features", "channels")
        dimension = None if setting is None else _dimension(setting)
        x = inputs[0] if inputs else None
        trace = Trace(dimension=dimension)
        if isinstance(layer, Stage):
            trace = replace(self.last.get(layer, trace))
        elif isinstance(x, Ghosted) and setting is None:
            trace = replace(trace_of(x))
        trace.source = f"{self.names[layer]} ({type(layer).__name__})"
        output.__dict__["trace"] = trace

    def _leaves_layer(self, stage: Stage, _: nn.Module, __: Any, output: object) -> None:
        if isinstance(output, Ghosted):
            self.last[stage] = trace_of(output)


class _Call:
    """A function called on searched maps, and on the same maps whole and in part."""

    def __init__(self, func: Callable, args: Any, kwargs: Any, searched: Sequence[Ghosted]) -> None:
        self.func, self.args, self.kwargs, self.searched = func, args, kwargs, searched
        self.traces = [trace_of(x) for x in searched]
        self.whole = {id(x): _whole(x, trace_of(x)) for x in searched}
        self.plain = [(t, t._version) for t in _plain_tensors((args, kwargs))]
        first, trace = searched[0], self.traces[0]
        self.samples = 1 if trace.samples is None else first.active.shape[trace.samples]
        """Of the maps."""
        self.few = max(1, self.samples - 1)
        """As many in a part."""
        self.part = {id(x): _few(x, trace_of(x), self.few) for x in searched}
        self.known: Any = None

    def apart(self) -> Any:
        """The result as in training."""
        return self.func(*self.args, **self.kwargs)

    def fault(self, result: Any) -> str | None:
        """What is wrong with a result, as a verb and its objects."""
        if any(t._version != version for t, version in self.plain):
            return "writes into a tensor that is no searched map"
        self.known = result
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            try:
                expected = self._on_whole(result)
            except BoundNASError as error:
                return f"cannot be: {error}"
            except Exception as error:
                return (
                    "can be called on the active channels only, with all of them it fails "
                    f"({_first_line(error)})"
                )
            if self.func_name in _SIZES:
                self.known = counted(result, expected)
                return None
            try:
                part = None if self.mutates else self._on_part(result)
            except Exception as error:
                return f"cannot be called on a part of the samples ({_first_line(error)})"
            return self._compared(result, expected, part) or self._changed()

    @property
    def func_name(self) -> str:
        """How users call it."""
        return name_of(self.func)

    def _on_whole(self, result: Any) -> Any:
        replace = lambda x: self.whole.get(id(x), x)  # noqa: E731
        if self.func in SIZED and not counts((self.args, self.kwargs)):
            x = self.searched[0]
            if isinstance(result, Ghosted) and result.active.dtype is x.active.dtype:
                whole = self.whole[id(x)]
                return whole.reshape(resized(x.active.shape, whole.shape, result.active.shape))
        arguments = replaced((self.args, self.kwargs), replace)
        args, kwargs = wholes(arguments, sized=self.func in SIZED)
        return self.func(*args, **kwargs)

    def _compared(self, result: Any, expected: Any, part: Any) -> str | None:
        """What is wrong with a result beside that of all channels together."""
        if isinstance(result, Ghosted):
            return self._traced(result, expected, part)
        if isinstance(result, list | tuple):
            if len(result) != len(expected):
                return "splits the channels"
            each = zip(result, expected, part, strict=True)
            return next(filter(None, (self._compared(*three) for three in each)), None)
        if result is None or isinstance(result, Tensor):
            return None
        same = type(result) is type(expected) and not isinstance(result, float)
        try:
            same = same and bool(result == expected)
        except (ValueError, RuntimeError):
            same = False
        return None if same else "reads values of active channels off, which no gradient follows"

    def _traced(self, result: Ghosted, expected: Tensor, part: Tensor | None) -> str | None:
        """Find the axes of channels and samples of a result, and compare its values."""
        active, ghost = result.active.detach(), result.ghost
        channels = _axis(active.shape, ghost.shape, expected.shape)
        if channels is None:
            return (
                "mixes channels: of active ones and those not chosen apart it gives the shapes "
                f"{tuple(active.shape)} and {tuple(ghost.shape)}, of both together "
                f"{tuple(expected.shape)}"
            )
        if not _near(torch.cat([active, ghost], channels), expected):
            return (
                "mixes channels: of active ones and those not chosen apart it gives other values "
                "than of both together"
            )
        samples, fault = self._samples(result.ghost, part)
        first = self.traces[0]
        dimensions = {t.dimension for t in self.traces if t.dimension is not None}
        if len(dimensions) > 1:
            names = " and ".join(sorted(d.name for d in dimensions))
            return f"takes maps of two widths that are searched by themselves, {names}"
        dimension = next(iter(dimensions), None)
        result.__dict__["trace"] = Trace(channels, samples, first.source, dimension)
        return fault

    def _samples(self, ghost: Tensor, part: Tensor | None) -> tuple[int | None, str | None]:
        """The axis of a result's samples, and what is wrong with it.

        Args:
            ghost: The result, of the channels that were not chosen.
            part: The same of the leading samples; none where the function works in place.
        """
        if part is None:
            return self.traces[0].samples, None
        if part.shape == ghost.shape:
            return None, None
        differ = [
            i for i, (a, b) in enumerate(zip(part.shape, ghost.shape, strict=False)) if a != b
        ]
        axis = differ[0]
        if part.dim() == ghost.dim() and len(differ) == 1:
            few, many = part.shape[axis], ghost.shape[axis]
            if few * self.samples == many * self.few and _near(part, ghost.narrow(axis, 0, few)):
                return axis, None
        return None, (
            "mixes samples: those that serve options not chosen would not be the leading ones of "
            "the batch any more"
        )

    def _on_part(self, result: Any) -> Any:
        """The function of the leading samples' channels that were not chosen."""
        first = self.searched[0]

        def few(x: Tensor) -> Tensor:
            return self.part[id(x)] if id(x) in self.part else leading(x, first.ghost, self.few)

        if self.func in SIZED and isinstance(result, Ghosted):
            x = self.part[id(first)]
            if result.ghost.dtype is x.dtype:
                return x.reshape(resized(first.ghost.shape, x.shape, result.ghost.shape))
        return self.func(*replaced(self.args, few), **replaced(self.kwargs, few))

    @property
    def mutates(self) -> bool:
        """Whether the function may work in place."""
        name = self.func_name
        return name.startswith(("__set", "__i")) or (name[-1:] == "_" and name[-2:] != "__")

    def _changed(self) -> str | None:
        """What is wrong with maps that the function changed in place."""
        for x, trace in zip(self.searched, self.traces, strict=True):
            together = torch.cat([x.active.detach(), x.ghost], trace.channels)
            if together.shape != self.whole[id(x)].shape or not _near(together, self.whole[id(x)]):
                return "changes channels in place, active ones and those not chosen differently"
        return None


def name_of(func: Callable) -> str:
    """How users call a function of torch: ``relu``, ``shape``."""
    name = str(getattr(func, "__name__", func))
    return str(func.__self__.__name__) if name == "__get__" else name  # type: ignore[attr-defined]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _whole(x: Ghosted, trace: Trace) -> Tensor:
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        return torch.cat([x.active.detach(), x.ghost], trace.channels)


def _few(x: Ghosted, trace: Trace, few: int) -> Tensor:
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        if trace.samples is None:
            return x.ghost.clone()
        size = x.ghost.shape[trace.samples]
        return x.ghost.narrow(trace.samples, 0, min(few, size)).clone()


def _plain_tensors(argument: Any) -> list[Tensor]:
    found: list[Tensor] = []
    replaced(argument, lambda x: None if isinstance(x, Ghosted) else found.append(x))
    return found


def _axis(active: torch.Size, ghost: torch.Size, whole: torch.Size) -> int | None:
    """The axis along which two shapes join to a third."""
    if not len(active) == len(ghost) == len(whole):
        return None
    differ = [i for i, (a, w) in enumerate(zip(active, whole, strict=True)) if a != w]
    if len(differ) != 1 or active[differ[0]] + ghost[differ[0]] != whole[differ[0]]:
        return None
    rest = [i for i in range(len(active)) if i != differ[0]]
    return differ[0] if all(active[i] == ghost[i] for i in rest) else None


def _near(found: Tensor, expected: Tensor) -> bool:
    """Whether two results are equal but for rounding."""
    if not (found.is_floating_point() or found.is_complex()):
        return torch.equal(found, expected)
    finite = expected.abs().nan_to_num(0, 0, 0)
    scale = float(finite.max()) if finite.numel() else 0.0
    tolerance = torch.finfo(found.dtype).eps ** 0.5
    return torch.allclose(found, expected, tolerance, tolerance * scale, equal_nan=True)


def _setting(layer: nn.Module, *names: str) -> Setting | None:
    if isinstance(layer, SqueezeExcite):
        layer = layer.reduce
        names = ("in_features",)
    return next((getattr(layer, name) for name in names if hasattr(layer, name)), None)


def _dimension(setting: Setting) -> Dimension | None:
    if isinstance(setting, Derived):
        return setting.dimension
    return setting if isinstance(setting, Dimension) else None
