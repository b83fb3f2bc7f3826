"""Squeeze-and-excite that can be searched on or off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from boundnas.elastic import native
from boundnas.elastic.activation import activated, check_functions
from boundnas.elastic.ghost import join, part, split
from boundnas.elastic.layer import ElasticModule
from boundnas.elastic.linear import Linear
from boundnas.elastic.masks import constant
from boundnas.errors import SpaceError
from boundnas.space import (
    Architecture,
    Derived,
    Dimension,
    Setting,
    Width,
    check_sizes,
    choices,
    largest,
)
from boundnas.space.polynomial import Polynomial, amount


class SqueezeExcite(ElasticModule):
    """Scale each channel by ``gate(W2 activation(W1 mean(x)))`` (Hu et al., 2018), or do nothing.

    Args:
        channels: Number of channels.
        enabled: ``True``, ``False`` or a dimension over ``(False, True)``.
        reduction: The squeezed width is ``max(1, channels // reduction)``; of maps side by side,
            of the most channels.
        squeezed: The squeezed width itself, in place of ``reduction``.
        activation: Of the squeezed channels, as of `Activation`.
        gate: What makes a scale of each channel, likewise.
        axes: Number of spatial axes: two of images.

    Shape:
        ``(N, C, …)`` to the same.
    """

    def __init__(
        self,
        channels: Width,
        enabled: Setting = True,
        reduction: int = 4,
        squeezed: Width | None = None,
        activation: Setting = "relu",
        gate: Setting = "sigmoid",
        axes: int = 2,
    ) -> None:
        super().__init__()
        check_sizes("SqueezeExcite", channels=channels, reduction=reduction, axes=axes)
        if not all(isinstance(choice, bool) for choice in choices(enabled)):
            raise SpaceError(
                "SqueezeExcite: enabled is True, False or a dimension over (False, True), found "
                f"{', '.join(map(repr, choices(enabled)))}"
            )
        for function in (activation, gate):
            check_functions(function)
        self.enabled, self.activation, self.gate = enabled, activation, gate
        self.axes = tuple(range(2, 2 + axes))
        if squeezed is None:
            squeezed = _reduced(channels, reduction)
        self.reduce = Linear(channels, squeezed)
        self.expand = Linear(squeezed, channels)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Scale the channels where the architecture has this switched on."""
        on, gate = bool(arch.value(self.enabled)), self._switch(arch)
        if gate is not None and arch.masked:
            scale = self._scale(x.mean(self.axes), arch)
            return x * _over(gate[0] + gate[1] * scale, x)
        if on and (self.training or gate is not None):
            return self._excited(x, gate, arch)
        if on:  # evaluation, which extraction follows
            scale = self._scale(x.mean(self.axes), arch)
            return x * scale[:, :, *[None] * len(self.axes)]
        if gate is None:
            return x

        def scaled(inputs: Tensor) -> Tensor:
            return self._scale(inputs.mean(self.axes), arch.plain)

        x, ghost = split(x)
        return join(_Bypass.apply(x, gate, scaled, arch.ghost_fraction), ghost)

    def _switch(self, arch: Architecture) -> Tensor | None:
        """The gate of being off and on, whatever the switch follows."""
        gate, values = arch.gate(self.enabled), choices(self.enabled)
        if gate is None or values == (False, True):
            return gate
        return gate @ constant(tuple((not on, on) for on in values), gate)

    def _excited(self, x: Tensor, gate: Tensor | None, arch: Architecture) -> Tensor:
        """The same in training, with a backward pass of its own for what is as large as ``x``."""
        x, ghost = split(x)
        x, mean = _Squeeze.apply(x)
        mean = join(mean, None if ghost is None else _mean(ghost))
        scale, ghost_scale = split(self._scale(mean, arch))
        y = _Excite.apply(x, scale, gate, arch.ghost_fraction)
        if ghost is not None:
            ghost = None if ghost_scale is None else ghost * _over(ghost_scale, ghost)
        return join(y, ghost)

    def _scale(self, mean: Tensor, arch: Architecture) -> Tensor:
        squeezed = activated(self.reduce(mean, arch), self.activation, arch)
        return activated(self.expand(squeezed, arch), self.gate, arch)

    def presence(self, child: str) -> Polynomial:
        """Both layers are in use exactly where it is switched on."""
        return amount(self.enabled)


def _reduced(channels: Width, reduction: int) -> Setting:
    def squeeze(c: int) -> int:
        return max(1, c // reduction)

    if isinstance(channels, Dimension | Derived):
        return channels.map(squeeze)
    return squeeze(largest(channels))


def _mean(x: Tensor) -> Tensor:
    """Of the pixels of each channel."""
    return x.mean(tuple(range(2, x.dim())))


def _over(scale: Tensor, x: Tensor) -> Tensor:
    """Numbers of channels, for all pixels of a map."""
    return scale[(..., *[None] * (x.dim() - 2))]


class _Squeeze(torch.autograd.Function):
    """A map for `_Excite`, and the mean of each image's channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.pixels = x.shape[2:].numel()
        return x.detach(), _mean(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_mean: Tensor) -> Tensor:
        # In place: `_Excite` made this tensor, and nobody else has it.
        return gradient.add_(_over(of_mean / ctx.pixels, gradient))


class _Excite(torch.autograd.Function):
    """Scale each image's channels; backward adds the gradients of the switch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, gate: Tensor | None, fraction: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.gated, ctx.fraction = gate is not None, fraction
        return x * _over(scale, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, scale = ctx.saved_tensors
        dx, dscale = scale_gradients(x, scale, gradient)
        products = None
        if ctx.gated:
            shared = part(dscale, ctx.fraction)
            scale = part(scale, ctx.fraction)
            products = _switch_gradient(shared, scale, len(x) / len(shared))
        return dx, dscale, products, None


class _Bypass(torch.autograd.Function):
    """Identity while it is switched off; backward adds the gradients of the switch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor, scale: Callable[[Tensor], Tensor], fraction: float
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.scale, ctx.fraction = scale, fraction
        return x.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs, shared = (part(t, ctx.fraction) for t in (*ctx.saved_tensors, gradient))
        scale = ctx.scale(inputs)
        _, dscale = scale_gradients(inputs, scale, shared)
        products = _switch_gradient(dscale, scale, len(gradient) / len(shared))
        return gradient, products, None, None


def _switch_gradient(dscale: Tensor, scale: Tensor, factor: float) -> Tensor:
    """``factor * <dL/dy, x>`` and ``factor * <dL/dy, x * scale>``, of the options off and on.

    A searched switch has exactly these two, in this order; ``dscale`` is ``dL/dy * x`` summed over
    pixels.
    """
    return torch.stack((dscale.sum(), (dscale * scale).sum())) * factor


def scale_gradients(x: Tensor, scale: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``y = x * scale`` by both factors.

    Args:
        x: Shape ``(N, C, …)``.
        scale: Of each image's channels, shape ``(N, C)``.
        gradient: ``dL/dy``, shaped like ``x``.

    Returns:
        Those by ``x`` and ``scale``, shaped like them.
    """
    if not (native.takes(x) and native.takes(scale)):
        return gradient * _over(scale, x), (gradient * x).sum(tuple(range(2, x.dim())))
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    n, c, h, w = x.shape
    dx, dscale = torch.empty_like(x), torch.empty_like(scale)
    native.call("scale_gradients", x, gradient, scale, dx, dscale, n, h * w, c)
    return dx, dscale
