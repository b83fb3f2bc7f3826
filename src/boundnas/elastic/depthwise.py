"""Depthwise convolutions: of 5x5 with a backward pass that does not dominate a training step.

PyTorch's weight gradient of it runs at a twentieth of what the forward pass reaches
(docs/lab-log.md). Where the small C kernel beside this file was built, it takes its place,
and the gradient of the input is a forward convolution with the kernel turned around. Everything
else goes to PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.elastic import native
from boundnas.elastic.strided import strided
from boundnas.elastic.window import Window

KERNEL = 5

_FEW = 1 << 22
"""Multiplications up to which the compiled forward pass is the quicker one (2 threads, AVX-512)."""


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """A convolution of each channel by itself.

    Args:
        x: Shape ``(N, C, …)``.
        weight: Contiguous, shape ``(C, 1, …)``.
        bias: Shape ``(C,)``.
        window: How the kernel moves.
    """
    stride = window.usual_stride(weight.shape[2:])
    if (
        stride is not None
        and native.takes(x)
        and weight.shape[-1] == KERNEL
        and bias is None
        and torch.is_grad_enabled()
        and weight.requires_grad
        and weight.dtype == x.dtype
    ):
        return _Depthwise.apply(x, weight, stride)
    return strided(x, weight, bias, window, groups=len(weight))


def depthwise_apart(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The same but for rounding, without a graph.

    On a few images, as for ghosts, the compiled kernel is quicker than PyTorch's way to its own.

    Args:
        x: Shape ``(N, C, …)``.
        weight: Contiguous, shape ``(C, 1, …)``.
        bias: Shape ``(C,)``.
        window: How the kernel moves.
    """
    stride = window.usual_stride(weight.shape[2:])
    few = x.numel() * weight[0].numel() <= _FEW
    if stride is None or bias is not None or not few or not native.takes(x):
        return depthwise(x, weight, bias, window)
    (n, c, h, w), k = x.shape, weight.shape[-1]
    size = (n, c, -(-h // stride), -(-w // stride))
    y = native.empty(size, torch.channels_last)
    native.call("depthwise", x, weight, y, n, h, w, c, stride, k)
    return y


def weight_gradient(x: Tensor, gradient: Tensor, stride: int) -> Tensor:
    """``dL/dweight`` by the compiled kernel.

    Args:
        x: float32, channels-last, shape ``(N, C, H, W)``.
        gradient: ``dL/dy``, likewise, shape ``(N, C, ceil(H / stride), ceil(W / stride))``.
        stride: Of the convolution.

    Returns:
        Shape ``(C, 1, 5, 5)``.
    """
    n, c, h, w = x.shape
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    result = native.empty((c, 1, KERNEL, KERNEL))
    native.call("depthwise_weight_gradient", x, gradient, result, n, h, w, c, stride)
    return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, KERNEL // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return (
            _input_gradient(x, weight, gradient, ctx.stride),
            weight_gradient(x, gradient, ctx.stride),
            None,
        )


def _input_gradient(x: Tensor, weight: Tensor, gradient: Tensor, stride: int) -> Tensor:
    if stride == 1:
        # The transpose of a same-padded convolution is one with the kernel turned around.
        turned = weight.flip(2, 3)
        return F.conv2d(gradient, turned, None, 1, KERNEL // 2, groups=len(weight))
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, [KERNEL // 2] * 2, [1, 1], False, [0, 0],
        len(weight), [True, False, False],
    )[0]  # fmt: skip
