"""What one pass of ``forward`` does: layers it calls, functions, and what it looks up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode, resolve_name
from torch.utils._python_dispatch import _get_current_dispatch_mode

from boundnas.elastic import ElasticLayer, ElasticModule
from boundnas.space import Architecture, Dimension, Pass, Setting, Value, choices, followed
from boundnas.supernet import place
from boundnas.supernet.calibrate import Seen
from boundnas.supernet.held import holds, parts, reads
from boundnas.supernet.inputs import zeros
from boundnas.supernet.modes import evaluating
from boundnas.supernet.products import Products
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.tracing import read_by_functions

_RESHAPES = {
    "reshape", "view", "expand", "unflatten", "flatten", "reshape_as", "view_as", "split",
}  # fmt: skip
"""Functions whose numbers follow the shape of a map without changing what is computed."""


@dataclass(frozen=True)
class Trail:
    """What one pass did.

    Args:
        positions: Output positions of every elastic layer, summed over its calls, and the calls of
            every other module; zero where it was not called. Of the functions that its own
            ``forward`` calls, under its name and ``()``, the multiply-accumulates of one image; of
            a graph, which always calls the same, of each, with its number in the brackets. Of every
            parameter that functions compute with, one; see `read_by_functions`.
        products: Of functions, by the same names, those of the whole batch.
        steps: For every module that is no elastic one, the functions and modules that its own
            ``forward`` called, with their numbers.
        looked_up: Where ``forward`` itself, not an elastic layer, looked a dimension up.
        asked: Dimensions that anything looked up, by the innermost module that did.
    """

    positions: Mapping[str, int]
    products: Mapping[str, int]
    steps: Mapping[str, frozenset[tuple[object, ...]]]
    looked_up: Mapping[Dimension, str]
    asked: Mapping[str, frozenset[Dimension]]

    def uses(self, name: str) -> bool:
        """Whether a layer is called, or functions that multiply are."""
        return name in self.products or self.positions.get(name, 0) > 0

    @property
    def used(self) -> frozenset[Dimension]:
        """Dimensions that anything looked up."""
        return frozenset().union(*self.asked.values())


class _Recorder(TorchFunctionMode):
    """Watches one pass."""

    def __init__(self, model: Supernet, images: int) -> None:
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.parameters = {id(p): name for name, p in read_by_functions(model).items()}
        self.images = images
        self.read: set[str] = set()
        self.products: dict[str, int] = {}
        self.stack: list[tuple[nn.Module, list[object]]] = []
        self.positions: dict[str, int] = {}
        self.steps: dict[str, set[tuple[object, ...]]] = {}
        self.looked_up: dict[Dimension, str] = {}
        self.asked: dict[str, set[Dimension]] = {}
        self.counting = Products(self.multiply, self.counted)

    def unwatched(self, layer: ElasticLayer) -> Callable[..., Tensor]:
        """The ``forward`` of a layer, with nothing watched that it calls: none of it counts here.

        To watch it takes longer than to compute it.
        """
        forward = layer.forward

        def alone(*args: Any, **kwargs: Any) -> Tensor:
            modes: list[Any] = []
            if _get_current_dispatch_mode() is self.counting:
                modes.append(self.counting)
            if not self.parameters and _get_current_function_mode() is self:
                modes.append(self)
            for mode in modes:
                mode.__exit__(None, None, None)
            try:
                return forward(*args, **kwargs)
            finally:
                for mode in modes:
                    mode.__enter__()

        return alone

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.parameters and reads(func, result):
            self._read((args, kwargs))
        if self.stack and not self._elastic and holds(Tensor, result):
            name = resolve_name(func) or getattr(func, "__name__", str(func))
            numbers = () if name.rpartition(".")[2] in _RESHAPES else _numbers((args, kwargs))
            self.stack[-1][1].append((name, *numbers))
        return result

    def _read(self, arguments: object) -> None:
        given = (self.parameters.get(id(part)) for part in parts(arguments))
        self.read.update(name for name in given if name is not None)

    @property
    def _elastic(self) -> bool:
        """Whether what is running is an elastic module's own ``forward``."""
        return isinstance(self.stack[-1][0], ElasticModule)

    def enter(self, module: nn.Module, args: object) -> None:
        if self.stack and not self._elastic:
            self.stack[-1][1].append(self.names[module])
        self.stack.append((module, []))

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: object) -> None:
        _, steps = self.stack.pop()
        name = self.names[module]
        if not isinstance(module, ElasticModule):
            self.steps.setdefault(name, set()).add(tuple(steps))
        self.positions[name] = self.positions.get(name, 0) + _pixels(
            module, args[0] if args else kwargs.get("x"), output, self.images
        )

    def multiply(self, name: str, macs: int) -> None:
        module, steps = self.stack[-1]
        name += f"({len(steps)})" if isinstance(module, fx.GraphModule) else "()"
        self.products[name] = self.products.get(name, 0) + macs

    def counted(self) -> str | None:
        """The module whose own functions are counted; none for layers that say what they cost."""
        module = self.stack[-1][0] if self.stack else None
        return None if module is None or isinstance(module, ElasticLayer) else self.names[module]

    def look_up(self, settings: Sequence[Setting]) -> None:
        dimensions = [d for setting in settings for d in followed(setting)]
        where = self.names[self.stack[-1][0]] if self.stack else ""
        self.asked.setdefault(where, set()).update(dimensions)
        if self.stack and not self._elastic:
            for dimension in dimensions:
                self.looked_up.setdefault(dimension, _caller())

    def trail(self) -> Trail:
        steps = {name: frozenset(found) for name, found in self.steps.items()}
        each = {name: macs // self.images for name, macs in self.products.items()}
        positions = {**self.positions, **each, **dict.fromkeys(self.read, 1)}
        asked = {name: frozenset(found) for name, found in self.asked.items()}
        return Trail(positions, self.products, steps, self.looked_up, asked)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Watched(Architecture):
    """An architecture that tells what is looked up in it; read whole, all dimensions are."""

    tell: Callable[[Sequence[Setting]], None]
    """Called at every look with the settings whose values were asked for."""

    @classmethod
    def of(cls, arch: Architecture, tell: Callable[[Sequence[Setting]], None]) -> Watched:
        """``arch``, which normalizes by its batch and tells of every look."""
        return cls(arch.space, arch.indices, Pass(statistics=Seen()), tell=tell)

    def _look_up(self, setting: Setting | None = None) -> None:
        if setting is None:
            self.tell(self.space.dimensions)
        elif followed(setting):
            self.tell((setting,))

    def __getitem__(self, dimension: Dimension) -> Value:
        self._look_up(dimension)
        return super().__getitem__(dimension)

    def value(self, setting: Setting) -> Value:
        """As of any architecture."""
        self._look_up(setting)
        return choices(setting)[super().option(setting)]

    def option(self, setting: Setting) -> int:
        """As of any architecture; options of equal values are told apart by it."""
        for dimension in followed(setting):
            self._look_up(dimension)
        return super().option(setting)

    def with_option(self, setting: Setting, option: int) -> Watched:
        """As of any architecture, and watched too."""
        return replace(self, indices=super().with_option(setting, option).indices)

    @property
    def plain(self) -> Architecture:
        """Itself, so that what is passed on is watched too."""
        return self

    @property
    def values(self) -> dict[str, Value]:
        """As of any architecture."""
        self._look_up()
        return super().values

    def __eq__(self, other: object) -> bool:
        self._look_up()
        return super().__eq__(other)

    def __hash__(self) -> int:
        self._look_up()
        return super().__hash__()

    def __getattribute__(self, name: str) -> Any:
        if name == "indices" and sys._getframe(1).f_globals["__name__"] not in _MAKERS:
            object.__getattribute__(self, "_look_up")()
        return object.__getattribute__(self, name)


def follow(model: Supernet, arch: Architecture, number: int = 2) -> Trail:
    """Run one architecture on empty images, so many of them, and tell what it did."""
    recorder = _Recorder(model, number)
    watched = Watched.of(arch, recorder.look_up)
    images = zeros(model, number)
    with ExitStack() as stack:
        for module in recorder.names:
            stack.callback(module.register_forward_pre_hook(recorder.enter).remove)
            stack.callback(module.register_forward_hook(recorder.leave, with_kwargs=True).remove)
            if isinstance(module, ElasticLayer) and not module._modules:
                stack.enter_context(_with_forward(module, recorder.unwatched(module)))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(evaluating(model))
        stack.enter_context(recorder)
        stack.enter_context(recorder.counting)
        stack.enter_context(place.failing(model, watched))
        model(images, watched)
    return recorder.trail()


@contextmanager
def _with_forward(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Within it a module has another ``forward``."""
    before = dict(vars(module))
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if "forward" in before:  # its own, and no class's
            vars(module)["forward"] = before["forward"]


def _pixels(module: nn.Module, x: object, output: object, images: int) -> int:
    """Positions of one call for one image; one of what is no elastic layer, whose functions count.

    A map may have more along its first axis than images, as windows of each of them.
    """
    if isinstance(module, ElasticLayer) and isinstance(x, Tensor) and isinstance(output, Tensor):
        found = module.positions(x, output)
        return found if module.axis is None else max(1, found * len(output) // images)
    return 1


def _numbers(argument: object) -> Iterator[object]:
    """Numbers and text among arguments, however nested."""
    if isinstance(argument, Mapping):
        argument = list(argument.items())
    if isinstance(argument, slice):
        argument = [argument.start, argument.stop, argument.step]
    if isinstance(argument, list | tuple):
        for part in argument:
            yield from _numbers(part)
    elif isinstance(argument, int | float | str):
        yield argument


def _caller() -> str:
    """File and line of what looks an architecture up."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"] in _OURS:
        frame = frame.f_back
    return f"{File(frame.f_code.co_filename).name}, line {frame.f_lineno}"


_OURS = {__name__, Architecture.__module__}
_MAKERS = {Architecture.__module__, "dataclasses"}
