"""1x1 convolutions with a stride, as of a shortcut, with a backward pass that is safe.

On AVX2 machines oneDNN's weight gradient of them, of maps in channels-last layout with few
channels, writes beyond its memory (PyTorch 2.13). Where only every second pixel counts, the
gradients are those of a convolution without a stride of these pixels alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.window import Window, window

_CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def strided(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    """A convolution; bit for bit PyTorch's in what it gives.

    Args:
        x: Shape ``(N, ci, …)``, of one to three spatial axes.
        weight: Shape ``(co, ci / groups, …)``, as many.
        bias: Shape ``(co,)``.
        window: How the kernel moves.
        groups: Of channels.
    """
    x, window = window.padded(x)
    if concerned(weight, window) and x.is_cpu and torch.is_grad_enabled() and weight.requires_grad:
        y: Tensor = _Strided.apply(x, weight, bias, window, groups)
        return y
    return _convolved(x, weight, bias, window, groups)


def concerned(weight: Tensor, window: Window) -> bool:
    """Whether a convolution leaves out pixels and sees no neighbours."""
    return weight.shape[2:].numel() == 1 and max(window.stride) > 1


@contextmanager
def spared(model: nn.Module) -> Iterator[None]:
    """Within it plain layers of a model that are concerned compute as `strided` does.

    Args:
        model: Holds them, as `boundnas.elasticize` leaves layers that stay fixed.
    """
    found = [m for m in model.modules() if isinstance(m, _PLAIN) and _is_concerned(m)]
    for module in found:
        module._conv_forward = _convolution(module)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        for module in found:
            del module._conv_forward


_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _is_concerned(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    return {*module.kernel_size} == {1} and max(module.stride) > 1


def _convolution(
    module: nn.Conv1d | nn.Conv2d | nn.Conv3d,
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    numbers = module.kernel_size, module.stride, module.padding, module.dilation
    where = window(type(module).__name__, *numbers, module.padding_mode)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.dim() < weight.dim():  # one sample without the batch axis
            return strided(x[None], weight, bias, where, module.groups)[0]
        return strided(x, weight, bias, where, module.groups)

    return convolve


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int
) -> Tensor:
    convolve = _CONVOLVE[weight.dim()]
    return convolve(x, weight, bias, window.stride, window.padding, window.dilation, groups)


class _Strided(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.window, ctx.groups = window, groups
        return _convolved(x, weight, bias, window, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        axes = weight.dim() - 2
        seen = ctx.window.seen(x).to(gradient.dtype)  # of another type under autocast
        dseen, dweight, dbias = torch.ops.aten.convolution_backward(
            gradient, seen, weight.to(gradient.dtype), [len(weight)], [1] * axes, [0] * axes,
            [1] * axes, False, [0] * axes, ctx.groups, ctx.needs_input_grad[:3],
        )  # fmt: skip
        dx = ctx.window.back(dseen, x) if ctx.needs_input_grad[0] else None
        return dx, dweight.to(weight.dtype), dbias, None, None
