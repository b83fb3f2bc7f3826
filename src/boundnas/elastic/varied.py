"""Maps of which every option is a map of its own: what a norm over a searched width gives.

Layer normalization takes mean and deviation over the channels of a width, so that option ``j`` has
its own in every channel, the active ones too: ``y_j = f(LN_j(x[:c_j]))``, where ``f`` is whatever
stands between the norm and the layers that take its map. These see ``sum_j z_j y_j``, each option
padded to the whole width, so that ``dL/dz_j = <G, y_j>`` with ``G`` the gradient that their weights
send back to all channels. Normalizing a masked map would be another, wrong relaxation.

A norm gives a `Varied` map: the chosen option, with a graph, and beside it what each would be,
without one, on the part of the batch that serves ghosts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from boundnas.elastic.exact import exact, summing
from boundnas.elastic.ghost import (
    PARTS,
    SIZED,
    Ghosted,
    alone,
    leading,
    left_open,
    replaced,
    resized,
)
from boundnas.elastic.masks import mask_of, weighted_sum
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Setting


class Options:
    """Every option of a map, of its own width each, without a graph.

    Args:
        setting: Whose options they are.
        maps: On the leading part of the batch, in the order of its choices.
    """

    def __init__(self, setting: Setting, maps: Sequence[Tensor]) -> None:
        self.setting, self._maps = setting, maps

    @property
    def maps(self) -> Sequence[Tensor]:
        """See the class."""
        return self._maps

    @property
    def whole_map(self) -> Tensor:
        """The option that has all channels."""
        return max(self.maps, key=Tensor.numel)

    @property
    def whole(self) -> torch.Size:
        """Its shape."""
        return self.whole_map.shape

    @property
    def axis(self) -> int:
        """Where their channels lie, counted from the end."""
        few, many = min(self.maps, key=Tensor.numel).shape, self.whole
        differ = [i for i, (a, b) in enumerate(zip(few, many, strict=True)) if a != b]
        return differ[0] - len(few) if differ else -1

    @property
    def sizes(self) -> list[int]:
        """How many entries each has along that axis, as heads are fewer than their channels."""
        return [y.shape[self.axis] for y in self.maps]

    def products(self, gradient: Tensor) -> Tensor:
        """``<G, y_j>`` of every option, shape ``(d,)``; ``G`` is of the shape of all channels."""
        axis, maps = self.axis, self.maps
        cuts = [gradient.narrow(axis, 0, y.shape[axis]) for y in maps]
        return torch.stack([(g * y).sum() for g, y in zip(cuts, maps, strict=True)])


class Varied(Ghosted):
    """The chosen option of a map, which carries them all; functions act on each by itself."""

    options: Options

    @property
    def ghost(self) -> Tensor:  # type: ignore[override]
        """There is none.

        Raises:
            SpaceError: What asks for it would take channels that were not chosen for a part of the
                map.
        """
        raise SpaceError(f"a map that was normalized over a searched width {_WANTS}")

    def beside(self, active: Tensor) -> Tensor:
        """Another tensor of the active channels with the same options."""
        return vary(active, self.options)

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Apply ``func`` to the chosen option and, without a graph, to every one."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*replaced(args, alone), **replaced(kwargs, alone))
            if not isinstance(result, PARTS) or isinstance(result, torch.Size):
                return result  # what is read off: sizes, types
            call = _Call(func, args, kwargs)
            with torch.no_grad():
                each = [call.of(j, result) for j in range(len(call.first.options.maps))]
            return call.joined(result, each)


_WANTS = (
    "has other values for every option of it; let elastic.Linear, a convolution, a norm, "
    "elastic.Activation or a function of this map alone take it"
)

_ALIGNED = {
    "add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div", "truediv",
    "rtruediv", "itruediv", "true_divide", "where", "maximum", "minimum", "lerp", "cat", "concat",
}  # fmt: skip
"""Functions of several maps whose channels lie on the same axis, counted from the end."""

_OF_MATRICES = {"matmul", "scaled_dot_product_attention"}
"""Likewise, of axes before the last two, as that of heads."""


class _Call:
    """A function of a varied map, and maybe of others that are searched by the same dimension."""

    def __init__(self, func: Callable, args: Any, kwargs: Any) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        found: list[Tensor] = []
        replaced((args, kwargs), found.append)
        self.first = next(x for x in found if isinstance(x, Varied))
        self.name = getattr(func, "__name__", str(func)).strip("_")
        self.axis = self.first.options.axis
        others = any(isinstance(x, Ghosted) and not isinstance(x, Varied) for x in found)
        before = self.axis < -2 and not self.kwargs.get("enable_gqa")
        self.aligned = self.name in _ALIGNED or (before and self.name in _OF_MATRICES)
        if (others and not self.aligned) or self._joins_channels():
            raise SpaceError(
                f"{self.name} of a map that was normalized over a searched width, with others: "
                f"the former {_WANTS}; sums and products of such maps may stand"
            )

    def _joins_channels(self) -> bool:
        if self.name not in ("cat", "concat"):
            return False
        axis = self.kwargs.get("dim", self.args[1] if len(self.args) > 1 else 0)
        return axis in (self.axis, self.axis + self.first.active.dim())

    def of(self, option: int, result: Any) -> Any:
        """What it gives for an option; ``result`` is that of the chosen one."""
        y = self.first.options.maps[option]
        if self.func in SIZED and result.dtype is self.first.active.dtype:
            shapes = self.first.active.shape, y.shape, result.shape
            return y.reshape(resized(*shapes, left_open(self.args)))

        def part(x: Tensor) -> Tensor:
            return x.options.maps[option] if isinstance(x, Varied) else self._cut(x, y)

        return self.func(*replaced(self.args, part), **replaced(self.kwargs, part))

    def _cut(self, x: Tensor, y: Tensor) -> Tensor:
        """Of another map the samples and the channels that an option has."""
        whole, size = leading(alone(x), self.first.active, len(y)), y.shape[self.axis]
        if isinstance(x, Ghosted):
            return torch.cat((whole, x.ghost), self.axis).narrow(self.axis, 0, size)
        largest = self.first.options.whole[self.axis]
        chosen = self.first.active.shape[self.axis]
        has_all = self.aligned and chosen == largest and x.dim() >= -self.axis
        # Where all channels are active a searched map is a plain one.
        if has_all and x.shape[self.axis] == largest:
            return whole.narrow(self.axis, 0, size)
        return whole

    def joined(self, result: Any, each: Sequence[Any]) -> Any:
        """The chosen option of what it gives, with all of them."""
        if isinstance(result, Tensor):
            return vary(result, Options(self.first.options.setting, each))
        if isinstance(result, list | tuple):
            parts = zip(result, zip(*each, strict=True), strict=True)
            return type(result)(self.joined(part, options) for part, options in parts)
        return result


def vary(active: Tensor, options: Options) -> Varied:
    """Attach the options of a map to the chosen one."""
    varied: Varied = active.as_subclass(Varied)
    varied.active, varied.options = active, options
    return varied


def each_option(layer: Any, x: Varied, arch: Architecture) -> Varied:
    """A layer that treats channels separately, of every option of a map."""
    y, setting = layer.forward(x.active, arch), x.options.setting
    other = arch.settled if arch.masked else arch.with_option
    with torch.no_grad():
        maps = [layer.forward(each, other(setting, j)) for j, each in enumerate(x.options.maps)]
    return vary(y, Options(setting, maps))


class _Tap(torch.autograd.Function):
    """Identity on the chosen option; backward adds ``<G, y_j>`` of every option.

    The gradient of the active channels arrives by itself; that of the others is that of a second
    output without values, which `sent_back` gives one.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor, options: Options, axis: int
    ) -> tuple[Tensor, Tensor]:
        ctx.options, ctx.axis = options, axis
        shape = list(options.whole)
        shape[axis] -= x.shape[axis]
        return x.detach(), x.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_others: Tensor) -> Any:
        shared = gradient[: len(of_others)]
        whole = torch.cat((shared, of_others), ctx.axis)
        with summing(whole):
            products = ctx.options.products(exact(whole)) * (len(gradient) / len(shared))
        return gradient, products, None, None


class _SentBack(torch.autograd.Function):
    """Identity on a layer's output; backward sends a gradient to channels that it did not get."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, unchosen: Tensor, send: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.samples, ctx.send = len(unchosen), send
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, ctx.send(gradient[: ctx.samples]), None


def tapped(x: Varied, arch: Architecture, axis: int) -> tuple[Tensor, Tensor]:
    """The chosen option for a layer that takes it, and a stand-in for all other channels.

    Layers that take the same map share both, so that their gradients are summed before the products
    with the options are taken.

    Args:
        x: The map.
        arch: The architecture, with gates.
        axis: Where channels lie.
    """
    held: dict[int, tuple[Tensor, Tensor]] = x.__dict__.setdefault("tapped", {})
    if axis not in held:
        gate = arch.gate(x.options.setting)
        assert gate is not None, "options were made for a gate"
        held[axis] = _Tap.apply(chosen_of(x, arch), gate, x.options, axis)
    return held[axis]


def chosen_of(x: Varied, arch: Architecture) -> Tensor:
    """The chosen option for a layer that takes it; by masks, zero where it has no channels."""
    gate = arch.gate(x.options.setting)
    if gate is None or not arch.masked:
        return x.active
    mask = mask_of(gate.detach(), _contained(tuple(x.options.sizes), gate.device))
    return x.active * mask.to(x.active.dtype).view(-1, *[1] * (-1 - x.options.axis))


@cache
def _contained(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Which options have which entries, shape ``(d, entries)``."""
    return (
        torch.arange(max(sizes), device=device) < torch.tensor(sizes, device=device)[:, None]
    ).float()


def combined(gate: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """``sum_j z_j y_j`` as it stands, of alternatives that all have a graph.

    Args:
        gate: Shape ``(d,)``.
        maps: As many; varied ones are summed option by option.

    Raises:
        SpaceError: Some are varied and others are not.
    """
    y = weighted_sum(gate, [alone(x) for x in maps])
    varied = [x.options for x in maps if isinstance(x, Varied)]
    if not varied:
        return y
    if len(varied) < len(maps):
        raise SpaceError(f"of alternatives some give a map that {_WANTS}")
    with torch.no_grad():
        each = zip(*(options.maps for options in varied), strict=True)
        return vary(y, Options(varied[0].setting, [weighted_sum(gate, own) for own in each]))


def sent_back(y: Tensor, unchosen: Tensor, send: Callable[[Tensor], Tensor]) -> Tensor:
    """Let the stand-in of `tapped` have the gradient that the layer would send there.

    Args:
        y: Output of the layer, from the active channels.
        unchosen: The stand-in.
        send: From ``dL/dy`` of leading samples to that of the other channels.
    """
    return _SentBack.apply(y, unchosen, send) if unchosen.numel() else y
