"""1x1 convolutions with a stride, as of a shortcut, with a backward pass that is safe.

On AVX2 machines oneDNN's weight gradient of them, of maps in channels-last layout with few
channels, writes beyond its memory (PyTorch 2.13). Where only every second pixel counts, the
gradients are those of a convolution without a stride of these pixels alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def strided(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
    """``F.conv2d`` with half the kernel as padding; bit for bit so in what it gives.

    Args:
        x: Shape ``(N, ci, H, W)``.
        weight: Shape ``(co, ci / groups, k, k)``.
        bias: Shape ``(co,)``.
        stride: Same in both directions.
        groups: One, or as many as channels.
    """
    if concerned(weight, stride) and x.is_cpu and torch.is_grad_enabled() and weight.requires_grad:
        y: Tensor = _Strided.apply(x, weight, bias, stride, groups)
        return y
    return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)


def concerned(weight: Tensor, stride: int) -> bool:
    """Whether a convolution leaves out pixels and sees no neighbours."""
    return weight.shape[-1] == 1 and stride > 1


class _Strided(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.groups = stride, groups
        return F.conv2d(x, weight, bias, stride, groups=groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        every = ctx.stride
        seen = x[..., ::every, ::every].to(gradient.dtype)  # of another type under autocast
        dseen, dweight, dbias = torch.ops.aten.convolution_backward(
            gradient, seen, weight.to(gradient.dtype), [len(weight)], [1, 1], [0, 0], [1, 1], False,
            [0, 0], ctx.groups, ctx.needs_input_grad[:3],
        )  # fmt: skip
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.zeros_like(x)
            dx[..., ::every, ::every] = dseen
        return dx, dweight.to(weight.dtype), dbias, None, None
