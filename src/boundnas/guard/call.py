"""A function of searched maps, called on their parts and on the whole, and what is wrong there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boundnas.elastic.ghost import SIZED, SPLITS, Ghosted, leading, left_open, replaced, resized
from boundnas.errors import BoundNASError
from boundnas.guard.counts import counted, counts, wholes
from boundnas.guard.segments import (
    Segment,
    Segments,
    along,
    merged,
    parted,
    scaled,
    shown,
    side_by_side,
    width_of,
)
from boundnas.space import Dimension
from boundnas.supernet.place import first_line

SAMPLES = 3
"""In a batch of the check: two of them are a part."""

SIZES = {"shape", "size", "numel", "nelement", "__len__"}
"""What is read off a map and known for all its channels."""


@dataclass
class Trace:
    """What the watch knows of a searched map.

    Args:
        channels: Axis of its channels.
        samples: Axis of its samples; none where they were averaged over.
        source: The layer it comes from.
        segments: Which channels lie where; none where nothing was noted, empty where a function
            left it unclear.
    """

    channels: int = 1
    samples: int | None = 0
    source: str = "an elastic layer"
    segments: Segments | None = None

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Whose choices its width is."""
        return tuple(dict.fromkeys(d for part in self.segments or () for d in part.dimensions))


def trace_of(x: Ghosted) -> Trace:
    """What is known of a map; one that nothing is known of came out of an elastic layer."""
    found: Trace | None = x.__dict__.get("trace")
    return found or Trace()


class Call:
    """A function called on searched maps, and on the same maps whole and in part."""

    def __init__(self, func: Callable, args: Any, kwargs: Any, searched: Sequence[Ghosted]) -> None:
        self.func, self.args, self.kwargs, self.searched = func, args, kwargs, searched
        self.traces = [trace_of(x) for x in searched]
        self.whole = {id(x): _whole(x, trace_of(x)) for x in searched}
        self.plain = [(t, t._version) for t in _plain_tensors((args, kwargs))]
        pairs = zip(searched, self.traces, strict=True)
        counts = (x.active.shape[t.samples] for x, t in pairs if t.samples is not None)
        self.samples = next(counts, 1)
        """Of the maps."""
        whole = self.samples // SAMPLES if self.samples % SAMPLES == 0 else 1
        self.few = max(1, self.samples - whole)
        """As many in a part: those of all images but one, where a map has several of each."""
        self.part = {id(x): self._leading(x, trace_of(x)) for x in searched}
        self.known: Any = None

    def _leading(self, x: Ghosted, trace: Trace) -> Tensor:
        """A part of the ghost; of a map with other numbers of each image, as many images."""
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            if trace.samples is None:
                return x.ghost.clone()
            few = x.active.shape[trace.samples] * self.few // self.samples
            size = min(max(1, few), x.ghost.shape[trace.samples])
            return x.ghost.narrow(trace.samples, 0, size).clone()

    def apart(self) -> Any:
        """The result as in training."""
        return self.func(*self.args, **self.kwargs)

    def fault(self, result: Any) -> str | None:
        """What is wrong with a result, as a verb and its objects."""
        if any(t._version != version for t, version in self.plain):
            return "writes into a tensor that is no searched map"
        self.known = result
        if along(self.func, self.args, self.kwargs) in {t.channels for t in self.traces}:
            return self._arranged(result)
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            try:
                expected = self._on_whole(result)
            except BoundNASError as error:
                return f"cannot be: {error}"
            except Exception as error:
                return (
                    "can be called on the active channels only, with all of them it fails "
                    f"({first_line(error)})"
                )
            if self.func_name in SIZES:
                self.known = counted(result, expected)
                return None
            try:
                part = None if self.mutates else self._on_part(result)
            except Exception as error:
                return f"cannot be called on a part of the samples ({first_line(error)})"
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
                shapes = x.active.shape, whole.shape, result.active.shape
                return whole.reshape(resized(*shapes, left_open(self.args)))
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
            if part is not None and len(part) != len(result):
                return "takes samples apart, of which some only serve options not chosen"
            each = zip(result, expected, part or [None] * len(result), strict=True)
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
        if not near(torch.cat([active, ghost], channels), expected):
            return (
                "mixes channels: of active ones and those not chosen apart it gives other values "
                "than of both together"
            )
        samples, fault = self._samples(result.ghost, part)
        widths = width_of(result, channels)
        known = [t.segments for t in self.traces if t.segments is not None]
        found = {scaled(segments, *widths) for segments in known}
        if len(found) > 1:
            names = " and ".join(sorted({shown(segments) for segments in known}))
            return f"takes maps of two widths that are searched by themselves, {names}"
        segments = next(iter(found), None)
        result.__dict__["trace"] = Trace(channels, samples, self.traces[0].source, segments)
        return fault

    def _arranged(self, result: Any) -> str | None:
        """What is wrong with maps that are put side by side, or taken apart, along channels."""
        first = self.traces[0]
        if any((t.channels, t.samples) != (first.channels, first.samples) for t in self.traces):
            return "takes maps whose channels or samples lie on different axes"
        if not all(t.segments for t in self.traces):
            return "takes a map of which it is not known any more which channels lie where"
        if isinstance(result, Ghosted):
            maps = side_by_side(self.func, self.args, self.kwargs)
            segments = merged(part for x in maps for part in self._segments(x))
            source = first.source if len(maps) == 1 else f"{first.source} with others beside it"
            result.__dict__["trace"] = replace(first, source=source, segments=segments)
            return None
        sizes = [width_of(x, first.channels) for x in result]
        found = parted(first.segments or (), sizes)
        if found is None or not self._means(sizes):
            return f"splits the channels within a map, here {shown(first.segments or ())}"
        for x, segments in zip(result, found, strict=True):
            x.__dict__["trace"] = replace(first, segments=segments)
        return None

    def _means(self, sizes: Sequence[tuple[int, int]]) -> bool:
        """Whether the sizes that a map is split into are, for all its channels, those it got."""
        if self.func not in SPLITS:
            return True
        given = wholes(self.args[1] if len(self.args) > 1 else next(iter(self.kwargs.values())))
        each = given if isinstance(given, list | tuple) else [given] * len(sizes)
        return list(each) == [active + ghost for active, ghost in sizes]

    def _segments(self, x: Tensor) -> Segments:
        if isinstance(x, Ghosted):
            return trace_of(x).segments or ()
        return (Segment((), x.shape[self.traces[0].channels], 0),)

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
            if few * self.samples == many * self.few and near(part, ghost.narrow(axis, 0, few)):
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
                shapes = first.ghost.shape, x.shape, result.ghost.shape
                return x.reshape(resized(*shapes, left_open(self.args)))
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
            if together.shape != self.whole[id(x)].shape or not near(together, self.whole[id(x)]):
                return "changes channels in place, active ones and those not chosen differently"
        return None


def name_of(func: Callable) -> str:
    """How users call a function of torch: ``relu``, ``shape``."""
    name = str(getattr(func, "__name__", func))
    return str(func.__self__.__name__) if name == "__get__" else name  # type: ignore[attr-defined]


def _whole(x: Ghosted, trace: Trace) -> Tensor:
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        return torch.cat([x.active.detach(), x.ghost], trace.channels)


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


def near(found: Tensor, expected: Tensor) -> bool:
    """Whether two results are equal but for rounding."""
    if not (found.is_floating_point() or found.is_complex()):
        return torch.equal(found, expected)
    finite = expected.abs().nan_to_num(0, 0, 0)
    scale = float(finite.max()) if finite.numel() else 0.0
    tolerance = torch.finfo(found.dtype).eps ** 0.5
    return torch.allclose(found, expected, tolerance, tolerance * scale, equal_nan=True)
