"""Elastic convolutions.

Shapes: N batch, C channels, H and W pixels; ``ci`` and ``co`` active input and output channels,
``k`` active kernel size. Padding is ``k // 2``, so a kernel's size never changes the resolution.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.elastic import native
from boundnas.elastic.depthwise import depthwise, depthwise_apart
from boundnas.elastic.ghost import (
    crops,
    gate_weight,
    ghost_inputs,
    ghosts_of,
    join,
    membership,
    mix,
    part,
    split,
)
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.pointwise import input_products, pointwise, weight_products
from boundnas.elastic.strided import concerned, strided
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Setting, Value, check_sizes, choices, largest
from boundnas.space.polynomial import Polynomial, amount


def _square(kernel: Value) -> int:
    return int(kernel) ** 2


def _check_kernels(kernel_size: Setting) -> None:
    check_sizes("a convolution", kernel_size=kernel_size)
    even = [k for k in choices(kernel_size) if int(k) % 2 == 0]
    if even:
        raise SpaceError(f"kernel sizes must be odd so that they share a centre, found {even}")


class _Convolution(ElasticLayer):
    """What the two kinds share: the kernel crop and its gate."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    kernel_size: Setting
    stride: int

    def _initialize(self, shape: tuple[int, ...], fan: int, bias: bool) -> None:
        """Normal weights of variance ``2 / fan`` and zero bias."""
        self.weight = nn.Parameter(torch.randn(shape) * (2 / fan) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None

    def _crop(self, weight: Tensor, k: int) -> Tensor:
        margin = (weight.shape[-1] - k) // 2
        return weight[..., margin : margin + k, margin : margin + k] if margin else weight

    def scaled(self, x: Tensor, arch: Architecture, scale: Tensor, shift: Tensor) -> Tensor:
        """``scale * self(x, arch) + shift`` of every channel as one convolution, no gradient.

        Args:
            x: As for ``forward``.
            arch: The architecture; its gates are ignored.
            scale: Shape ``(co,)``.
            shift: Likewise.
        """
        weight = self._crop(self.weight, arch.size(self.kernel_size))
        weight = weight[: len(scale), : x.shape[1]]
        if self.bias is not None:
            shift = shift + scale * self.bias[: len(scale)]
        return self._convolve(x, weight * scale[:, None, None, None], shift)

    @abstractmethod
    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve all of ``x`` with all of ``weight``."""

    def _convolve_apart(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same but for rounding, without a graph: for what only gates get a gradient of."""
        return self._convolve(x, weight, bias)

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer gives: in evaluation bit for bit what its plain form does."""
        apart = self.training and not torch.is_grad_enabled()
        return (self._convolve_apart if apart else self._convolve)(x, weight, bias)

    def _gate_kernel(self, weight: Tensor, arch: Architecture) -> Tensor:
        gate = arch.gate(self.kernel_size)
        if gate is None:
            return weight
        table = crops(self.kernel_size, weight.shape[-1], weight.device)
        return gate_weight(weight.contiguous(), gate, table, (2, 3))

    def _mix_larger_kernels(
        self, y: Tensor, x: Tensor, weight: Tensor, arch: Architecture
    ) -> Tensor:
        """Add the gradient of kernels beyond the chosen one; the others' comes with the weights."""
        gate = arch.gate(self.kernel_size)
        if gate is None:
            return y
        k = arch.size(self.kernel_size)
        larger = {j: int(c) for j, c in enumerate(choices(self.kernel_size)) if int(c) > k}
        if not larger:
            return y
        x, weight = part(x, arch.ghost_fraction), weight.detach()

        def convolved(size: int) -> Any:
            return lambda: self._convolve_apart(x, self._crop(weight, size), None)

        alternatives = {j: convolved(size) for j, size in larger.items()}
        return mix(y, gate, alternatives, arch.ghost_fraction, [x])


class Conv2d(_Convolution):
    """A convolution with searchable input width, output width and kernel size.

    Args:
        in_channels: Input channels: a number, or the dimension of the layer before.
        out_channels: Output channels.
        kernel_size: Odd; a smaller kernel is the centre of the largest.
        stride: Same in both directions.
        bias: Whether to add one.

    Shape:
        ``(N, ci, H, W)`` to ``(N, co, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(
        self,
        in_channels: Setting,
        out_channels: Setting,
        kernel_size: Setting = 1,
        stride: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_sizes("Conv2d", in_channels=in_channels, out_channels=out_channels, stride=stride)
        _check_kernels(kernel_size)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = kernel_size, stride
        k = largest(kernel_size)
        shape = (largest(out_channels), largest(in_channels), k, k)
        self._initialize(shape, fan=shape[0] * k * k, bias=bias)
        self._is_product = k == 1 and stride == 1
        """Whether every pixel of the output is the weight times a pixel of the input."""

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Convolve with the active slice; see the class for shapes."""
        ci, co = arch.size(self.in_channels), arch.size(self.out_channels)
        k = arch.size(self.kernel_size)
        x, ghost = split(x)
        self.check_width(x, ci)
        weight = self._crop(self.weight, k)
        active = self._gate_kernel(weight[:co, :ci], arch)
        gate = arch.gate(self.in_channels)
        if gate is not None:
            self.check_ghost(ghost, self.in_channels, ci)
            table, ghost_table = membership(self.in_channels, ci, weight.device)
            active = gate_weight(active.contiguous(), gate, table, (1,))
        bias = None if self.bias is None else self.bias[:co]
        y = self._convolved(x, active, bias)
        if gate is not None and ghost is not None:
            y = ghost_inputs(y, gate, ghost, weight[:co, ci:], ghost_table, self._products)
        y = self._mix_larger_kernels(y, x, self.weight[:co, :ci], arch)
        return join(y, self._ghost(x, weight[co:, :ci], co, arch))

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return strided(x, weight.contiguous(), bias, self.stride, groups=1)

    def _ghost(self, x: Tensor, weight: Tensor, co: int, arch: Architecture) -> Tensor | None:
        if not ghosts_of(self.out_channels, arch.gate(self.out_channels), co):
            return None
        with torch.no_grad():
            bias = None if self.bias is None else self.bias[co:]
            return self._convolve_apart(part(x, arch.ghost_fraction), weight, bias)

    def _convolve_apart(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._is_product and bias is None and native.takes(x):
            return pointwise(x, weight)
        return super()._convolve_apart(x, weight, bias)

    def _products(
        self, gradient: Tensor, x: Tensor, weight: Tensor, table: Tensor, scale: float
    ) -> Tensor:
        if self._is_product:
            return input_products(gradient, x, weight, table, scale)
        if concerned(weight, self.stride):
            x = x[..., :: self.stride, :: self.stride]
            return input_products(gradient, x, weight, table, scale)
        padding = weight.shape[-1] // 2
        found = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [self.stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
            [False, True, False],
        )[1]  # fmt: skip
        return weight_products(weight, found, table, (1,)) * scale

    def macs(self, positions: int) -> Polynomial:
        """``positions * ci * co * k^2``."""
        taps = amount(self.kernel_size, _square)
        return positions * amount(self.in_channels) * amount(self.out_channels) * taps

    def parameter_count(self) -> Polynomial:
        """``co * (ci * k^2 + bias)``."""
        taps = amount(self.in_channels) * amount(self.kernel_size, _square)
        return amount(self.out_channels) * (taps + int(self.bias is not None))

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.Conv2d`` of the active slice."""
        ci, co = arch.size(self.in_channels), arch.size(self.out_channels)
        weight = self._crop(self.weight, arch.size(self.kernel_size))[:co, :ci]
        return _plain_convolution(weight, self.bias, self.stride, groups=1)


class DepthwiseConv2d(_Convolution):
    """A depthwise convolution with searchable width and kernel size.

    Args:
        channels: Input and output channels.
        kernel_size: Odd; a smaller kernel is the centre of the largest.
        stride: Same in both directions.
        bias: Whether to add one.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(
        self, channels: Setting, kernel_size: Setting = 3, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        check_sizes("DepthwiseConv2d", channels=channels, stride=stride)
        _check_kernels(kernel_size)
        self.channels, self.kernel_size, self.stride = channels, kernel_size, stride
        k = largest(kernel_size)
        self._initialize((largest(channels), 1, k, k), fan=k * k, bias=bias)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Convolve every channel by itself, ghosts included; see the class for shapes."""
        c, k = arch.size(self.channels), arch.size(self.kernel_size)
        x, ghost = split(x)
        self.check_width(x, c)
        weight = self._crop(self.weight, k)
        active = self._gate_kernel(weight[:c], arch)
        bias = self.bias
        y = self._convolved(x, active, None if bias is None else bias[:c])
        y = self._mix_larger_kernels(y, x, self.weight[:c], arch)
        if ghost is not None:
            with torch.no_grad():
                ghost_bias = None if bias is None else bias[c:]
                ghost = self._convolve_apart(ghost, weight[c:], ghost_bias)
        return join(y, ghost)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return depthwise(x, weight.contiguous(), bias, self.stride)

    def _convolve_apart(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return depthwise_apart(x, weight.contiguous(), bias, self.stride)

    def macs(self, positions: int) -> Polynomial:
        """``positions * c * k^2``."""
        return positions * amount(self.channels) * amount(self.kernel_size, _square)

    def parameter_count(self) -> Polynomial:
        """``c * (k^2 + bias)``."""
        taps = amount(self.kernel_size, _square)
        return amount(self.channels) * (taps + int(self.bias is not None))

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.Conv2d`` with one group per channel."""
        c = arch.size(self.channels)
        weight = self._crop(self.weight, arch.size(self.kernel_size))[:c]
        return _plain_convolution(weight, self.bias, self.stride, groups=c)


def _plain_convolution(weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> nn.Conv2d:
    co, ci, k, _ = weight.shape
    with torch.device("meta"):
        plain = nn.Conv2d(ci * groups, co, k, stride, k // 2, groups=groups, bias=bias is not None)
    plain.weight = frozen(weight)
    if bias is not None:
        plain.bias = frozen(bias[:co])
    return plain
