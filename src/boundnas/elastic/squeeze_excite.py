"""Squeeze-and-excite that can be searched on or off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.elastic import native
from boundnas.elastic.ghost import join, part, split
from boundnas.elastic.layer import ElasticModule
from boundnas.elastic.linear import Linear
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
    """Scale each channel by ``sigmoid(W2 relu(W1 mean(x)))`` (Hu et al., 2018), or do nothing.

    Args:
        channels: Number of channels.
        enabled: ``True``, ``False`` or a dimension over ``(False, True)``.
        reduction: The squeezed width is ``max(1, channels // reduction)``; of maps side by side,
            of the most channels.

    Shape:
        ``(N, C, H, W)`` to the same.
    """

    def __init__(self, channels: Width, enabled: Setting = True, reduction: int = 4) -> None:
        super().__init__()
        check_sizes("SqueezeExcite", channels=channels, reduction=reduction)
        if not all(isinstance(choice, bool) for choice in choices(enabled)):
            raise SpaceError(
                "SqueezeExcite: enabled is True, False or a dimension over (False, True), found "
                f"{', '.join(map(repr, choices(enabled)))}"
            )
        self.enabled = enabled

        def squeeze(c: int) -> int:
            return max(1, c // reduction)

        hidden: Setting = squeeze(largest(channels))
        if isinstance(channels, Dimension | Derived):
            hidden = channels.map(squeeze)
        self.reduce = Linear(channels, hidden)
        self.expand = Linear(hidden, channels)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Scale the channels where the architecture has this switched on."""
        on, gate = bool(arch.value(self.enabled)), arch.gate(self.enabled)
        if on and (self.training or gate is not None):
            return self._excited(x, gate, arch)
        if on:  # evaluation, which extraction follows
            return x * self._scale(x.mean((2, 3)), arch)[:, :, None, None]
        if gate is None:
            return x

        def scale(inputs: Tensor) -> Tensor:
            return self._scale(inputs.mean((2, 3)), arch.plain)

        x, ghost = split(x)
        return join(_Bypass.apply(x, gate, scale, arch.ghost_fraction), ghost)

    def _excited(self, x: Tensor, gate: Tensor | None, arch: Architecture) -> Tensor:
        """The same in training, with a backward pass of its own for what is as large as ``x``."""
        x, ghost = split(x)
        x, mean = _Squeeze.apply(x)
        mean = join(mean, None if ghost is None else ghost.mean((2, 3)))
        scale, ghost_scale = split(self._scale(mean, arch))
        y = _Excite.apply(x, scale, gate, arch.ghost_fraction)
        if ghost is not None:
            ghost = None if ghost_scale is None else ghost * ghost_scale[:, :, None, None]
        return join(y, ghost)

    def _scale(self, mean: Tensor, arch: Architecture) -> Tensor:
        return self.expand(F.relu(self.reduce(mean, arch)), arch).sigmoid()

    def presence(self, child: str) -> Polynomial:
        """Both layers are in use exactly where it is switched on."""
        return amount(self.enabled)


class _Squeeze(torch.autograd.Function):
    """A map for `_Excite`, and the mean of each image's channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.pixels = x.shape[2:].numel()
        return x.detach(), x.mean((2, 3))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_mean: Tensor) -> Tensor:
        # In place: `_Excite` made this tensor, and nobody else has it.
        return gradient.add_((of_mean / ctx.pixels)[:, :, None, None])


class _Excite(torch.autograd.Function):
    """Scale each image's channels; backward adds the gradients of the switch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, gate: Tensor | None, fraction: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.gated, ctx.fraction = gate is not None, fraction
        return x * scale[:, :, None, None]

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
        x: Shape ``(N, C, H, W)``.
        scale: Of each image's channels, shape ``(N, C)``.
        gradient: ``dL/dy``, shaped like ``x``.

    Returns:
        Those by ``x`` and ``scale``, shaped like them.
    """
    if not (native.takes(x) and native.takes(scale)):
        return gradient * scale[:, :, None, None], (gradient * x).sum((2, 3))
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    n, c, h, w = x.shape
    dx, dscale = torch.empty_like(x), torch.empty_like(scale)
    native.call("scale_gradients", x, gradient, scale, dx, dscale, n, h * w, c)
    return dx, dscale
