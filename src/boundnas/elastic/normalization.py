"""Elastic batch normalization, with the ReLU that may follow it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic import native
from boundnas.elastic.convolution import Conv2d, DepthwiseConv2d
from boundnas.elastic.ghost import join, split
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.errors import CalibrationError
from boundnas.polynomial import Polynomial, amount
from boundnas.space import Architecture, Setting, largest


class BatchNorm2d(ElasticLayer):
    """Batch normalization over a searchable width.

    It has no running statistics: a supernet's would belong to no network in it. In training every
    pass is normalized by its own batch; for evaluation the statistics travel with the
    architecture (see `boundnas.calibrate`).

    Args:
        channels: Number of channels.
        eps: Added to the variance.
        relu: Whether a ReLU follows. As part of this layer it costs no time of its own in
            training.

    Shape:
        ``(N, C, H, W)`` to the same.
    """

    def __init__(self, channels: Setting, eps: float = 1e-5, relu: bool = False) -> None:
        super().__init__()
        self.channels, self.eps, self.relu = channels, eps, relu
        self.weight = nn.Parameter(torch.ones(largest(channels)))
        self.bias = nn.Parameter(torch.zeros(largest(channels)))

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Normalize the active channels, and ghosts with their own statistics.

        Raises:
            CalibrationError: In evaluation, with an architecture that carries no statistics.
        """
        c = arch.size(self.channels)
        x, ghost = split(x)
        self.check_width(x, c)
        statistics = arch.statistics(self.name, x)
        if statistics is None and not self.training:
            raise CalibrationError(
                f"{self.name}: evaluation needs BatchNorm statistics of this very architecture, "
                "and it carries none; use the one that calibrate(model, arch, images) returns"
            )
        y = self._normalize(x, self.weight[:c], self.bias[:c], statistics)
        if ghost is not None:
            with torch.no_grad():
                ghost = self._normalize(ghost, self.weight[c:], self.bias[c:], None)
        return join(y, ghost)

    def folded(self, conv: Conv2d | DepthwiseConv2d, x: Tensor, arch: Architecture) -> Tensor:
        """``self(conv(x, arch), arch)`` in evaluation as one convolution, equal but for rounding.

        Args:
            conv: The convolution before, of this layer's channels.
            x: Its input.
            arch: An architecture that carries statistics.
        """
        c = arch.size(self.channels)
        statistics = arch.statistics(self.name, x)
        assert statistics is not None, f"{self.name}: nothing to fold"
        mean, var = statistics
        scale = self.weight[:c] * (var + self.eps).rsqrt()
        y = conv.scaled(x, arch, scale, self.bias[:c] - mean * scale)
        return y.relu_() if self.relu else y

    def _normalize(
        self, x: Tensor, weight: Tensor, bias: Tensor, statistics: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        if statistics is None and native.takes(x) and x.numel() > x.shape[1]:
            if not torch.is_grad_enabled():
                return _normalized(x, weight, bias, self.eps, self.relu)[0]
            y: Tensor = _BatchNorm.apply(x, weight, bias, self.eps, self.relu)
            return y
        mean, var = statistics or (None, None)
        y = F.batch_norm(x, mean, var, weight, bias, training=mean is None, eps=self.eps)
        return y.relu_() if self.relu else y

    def macs(self, positions: int) -> Polynomial:
        """None: it folds into the layer before."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """A scale and a shift per channel."""
        return 2 * amount(self.channels)

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.BatchNorm2d`` with the statistics the architecture carries."""
        c = arch.size(self.channels)
        statistics = arch.statistics(self.name, self.weight)
        if statistics is None:
            raise CalibrationError(
                f"{self.name}: a network with BatchNorm can be extracted only with its statistics; "
                "use the architecture that calibrate(model, arch, images) returns"
            )
        plain = nn.BatchNorm2d(c, eps=self.eps)
        plain.weight, plain.bias = frozen(self.weight[:c]), frozen(self.bias[:c])
        plain.running_mean, plain.running_var = (s.clone() for s in statistics)
        return nn.Sequential(plain, nn.ReLU(inplace=True)).eval() if self.relu else plain.eval()


def batch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel of a batch, shape ``(C,)`` each, no gradient.

    Args:
        x: Shape ``(N, C, H, W)``; of half precision, as under autocast, it is taken to float32.
    """
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if not native.takes(x):
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        return mean, var
    c = x.shape[1]
    mean, var = torch.empty(c), torch.empty(c)
    native.call("batch_moments", x, mean, var, x.numel() // c, c)
    return mean, var


def _normalized(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalized by the batch; each channel's mean and inverse deviation, by the kernels."""
    c = x.shape[1]
    y, mean, inverse = torch.empty_like(x), torch.empty(c), torch.empty(c)
    native.call(
        "batch_norm_forward", x, weight, bias, y, mean, inverse, x.numel() // c, c, eps, relu
    )
    return y, mean, inverse


class _BatchNorm(torch.autograd.Function):
    """Normalize by the batch, and the ReLU, by the compiled kernels."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool
    ) -> Tensor:
        y, mean, inverse = _normalized(x, weight, bias, eps, relu)
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.relu = relu
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, bias, mean, inverse = ctx.saved_tensors
        c = x.shape[1]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        dx, dweight, dbias = torch.empty_like(x), torch.empty(c), torch.empty(c)
        native.call(
            "batch_norm_backward", x, gradient, weight, bias, mean, inverse, dx, dweight, dbias,
            x.numel() // c, c, ctx.relu,
        )  # fmt: skip
        return dx, dweight, dbias, None, None
