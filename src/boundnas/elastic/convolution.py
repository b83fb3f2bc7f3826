"""Elastic convolutions in one, two and three spatial axes.

Shapes: N batch, C channels, L, H, W and D pixels along an axis; ``ci`` and ``co`` active input and
output channels, ``k`` active kernel size. A smaller kernel is the centre of the largest and sees
the same pixels at its own entries, so a kernel's size never changes the resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from boundnas.elastic import native
from boundnas.elastic.depthwise import depthwise, depthwise_apart
from boundnas.elastic.ghost import gate_weight, ghost_inputs, join, mix, part, split
from boundnas.elastic.groups import groups_of
from boundnas.elastic.kernel import KernelSize, kernel
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.pointwise import input_products, pointwise, weight_products
from boundnas.elastic.strided import concerned, strided
from boundnas.elastic.varied import Varied, chosen_of, each_option
from boundnas.elastic.width import active, ghosts_of, membership, others
from boundnas.elastic.window import Numbers, Window, window
from boundnas.space import Architecture, Width, check_sizes, largest
from boundnas.space.polynomial import Polynomial, amount


class Convolution(ElasticLayer):
    """A convolution with searchable input width, output width and kernel size.

    Args:
        in_channels: Input channels: a number, the dimension of the layer before, or the
            `boundnas.space.Joined` widths of several.
        out_channels: Output channels.
        kernel_size: Of every spatial axis, or one for all; a searched one is odd, and a smaller
            kernel is the centre of the largest.
        stride: As in torch.
        padding: As in torch; none keeps the resolution where there is no stride. That of a smaller
            kernel shrinks with it.
        dilation: As in torch.
        groups: As in torch, of widths that are fixed.
        bias: Whether to add one.
        padding_mode: As in torch.
        group_width: Input channels of a group, in place of ``groups``: whole groups are active,
            and both widths follow one dimension.
    """

    plain_layer: ClassVar[Callable[..., nn.modules.conv._ConvNd]]
    """Of torch, with as many spatial axes."""
    varied = True
    rows_axis, columns_axis = 0, 1
    """Axes of the weight that range over output and input channels."""

    def __init__(
        self,
        in_channels: Width,
        out_channels: Width,
        kernel_size: KernelSize = 1,
        stride: Numbers = 1,
        padding: Numbers | str | None = None,
        dilation: Numbers = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        *,
        group_width: int | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        check_sizes(owner, in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = kernel(owner, kernel_size, self.takes.count(",") - 1)
        self.groups = groups_of(owner, in_channels, out_channels, groups, group_width)
        sizes = self.kernel.largest
        self.window = window(owner, sizes, stride, padding, dilation, padding_mode)
        self.window.shrunk(sizes, self.kernel.smallest)
        self._initialize(bias)
        moves = math.prod(sizes) * max(self.window.stride) > 1 or any(self.window.padding)
        self._is_product = not moves and not self.groups.apart
        """Whether every pixel of the output is the weight times a pixel of the input."""

    def _initialize(self, bias: bool) -> None:
        """Normal weights of variance ``2 / fan`` of the outputs, and zero bias."""
        inputs, outputs = largest(self.in_channels), largest(self.out_channels)
        number, taps = self.groups.number(inputs), math.prod(self.kernel.largest)
        channels = self._channels(inputs, outputs, number)
        weight = torch.randn(*channels, *self.kernel.largest)
        self.weight = nn.Parameter(weight * (2 / (outputs // number * taps)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._is_depthwise = self.groups.apart and number == inputs == outputs
        """Whether every channel is convolved by itself."""

    def _channels(self, inputs: int, outputs: int, groups: int) -> tuple[int, int]:
        """The first two axes of the weight."""
        return outputs, inputs // groups

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Convolve with the active slice; see the class for shapes."""
        if isinstance(x, Varied):
            return each_option(self, x, arch) if self.groups.apart else self._of_options(x, arch)
        x, ghost = split(x)
        self.check_width(x, arch.size(self.in_channels))
        if self.groups.apart:
            return self._by_groups(x, ghost, arch)
        weight = self._cropped(arch)
        rows = active(weight, self.out_channels, arch, self.rows_axis)
        y = self._across(x, ghost, rows, arch)
        y = self._mix_larger_kernels(y, x, arch)
        return join(y, self._ghost(x, weight, arch))

    def _across(self, x: Tensor, ghost: Tensor | None, rows: Tensor, arch: Architecture) -> Tensor:
        """Every output sees every input, so that the gates of the input width sit here."""
        columns = active(rows, self.in_channels, arch, self.columns_axis)
        weight, bias = self.kernel.gated(columns, arch), self._bias(arch)
        gate = arch.gate(self.in_channels)
        if gate is None:
            return self._convolved(x, weight, bias)
        self.check_ghost(ghost, self.in_channels, arch)
        table, ghost_table = membership(self.in_channels, arch, weight.device)
        weight = gate_weight(weight.contiguous(), gate, table, (self.columns_axis,), arch.masked)
        y = self._convolved(x, weight, bias)
        if ghost is None:
            return y
        unchosen = others(rows, self.in_channels, arch, self.columns_axis)
        return ghost_inputs(y, gate, ghost, unchosen, ghost_table, self._products)

    def _of_options(self, x: Varied, arch: Architecture) -> Tensor:
        """The same of a map that was normalized over its width, whose gates sit there."""
        self.check_width(x.active, arch.size(self.in_channels))
        weight, options = self._cropped(arch), x.options
        if arch.masked:  # the options' maps meet the chosen kernel too
            weight = self.kernel.gated(weight, arch)
        rows = active(weight, self.out_channels, arch, self.rows_axis)
        columns = active(rows, self.in_channels, arch, self.columns_axis)
        if not arch.masked:
            columns = self.kernel.gated(columns, arch)
        y = self._convolved(chosen_of(x, arch), columns, self._bias(arch))

        def convolved(*maps: Tensor, option: int) -> Tensor:
            own = arch.with_option(options.setting, option)
            columns = active(rows.detach(), self.in_channels, own, self.columns_axis)
            return self._convolve_apart(maps[option], columns, None)

        alternatives = {j: partial(convolved, option=j) for j in range(len(options.maps))}
        y = mix(y, arch.gate(options.setting), alternatives, arch.ghost_fraction, options.maps)
        y = self._mix_larger_kernels(y, x.active, arch)
        return join(y, self._ghost(x.active, weight, arch))

    def _ghost(self, x: Tensor, weight: Tensor, arch: Architecture) -> Tensor | None:
        if not ghosts_of(self.out_channels, arch):
            return None
        with torch.no_grad():
            rows = others(weight, self.out_channels, arch, self.rows_axis)
            columns = active(rows, self.in_channels, arch, self.columns_axis)
            shared = part(x, arch.ghost_fraction)
            return self._convolve_apart(shared, columns, self._other_bias(arch))

    def _by_groups(self, x: Tensor, ghost: Tensor | None, arch: Architecture) -> Tensor:
        """Every group by itself, those that were not chosen included."""
        weight = self._cropped(arch)
        own = self.kernel.gated(active(weight, self._first, arch), arch)
        y = self._mix_larger_kernels(self._convolved(x, own, self._bias(arch)), x, arch)
        if ghost is not None:
            with torch.no_grad():
                unchosen = others(weight, self._first, arch)
                ghost = self._convolve_apart(ghost, unchosen, self._other_bias(arch))
        return join(y, ghost)

    @property
    def _first(self) -> Width:
        """The width that the first axis of the weight ranges over."""
        return self.out_channels if self.rows_axis == 0 else self.in_channels

    def _cropped(self, arch: Architecture) -> Tensor:
        return self.kernel.crop(self.weight, self.kernel.size(arch))

    def _active(self, weight: Tensor, arch: Architecture) -> Tensor:
        """The part of a weight that belongs to active channels on both sides."""
        if self.groups.apart:
            return active(weight, self._first, arch)
        rows = active(weight, self.out_channels, arch, self.rows_axis)
        return active(rows, self.in_channels, arch, self.columns_axis)

    def _bias(self, arch: Architecture) -> Tensor | None:
        return None if self.bias is None else active(self.bias, self.out_channels, arch)

    def _other_bias(self, arch: Architecture) -> Tensor | None:
        return None if self.bias is None else others(self.bias, self.out_channels, arch)

    def _mix_larger_kernels(self, y: Tensor, x: Tensor, arch: Architecture) -> Tensor:
        """Add the gradient of kernels beyond the chosen one; the others' comes with the weights."""
        if not self.kernel.learned(arch):
            return y
        weight = self._active(self.weight, arch)
        return self.kernel.mixed(y, x, weight, arch, lambda x, w: self._convolve_apart(x, w, None))

    def scaled(self, x: Tensor, arch: Architecture, scale: Tensor, shift: Tensor) -> Tensor:
        """``scale * self(x, arch) + shift`` of every channel as one convolution, no gradient.

        Args:
            x: As for ``forward``.
            arch: The architecture; its gates are ignored.
            scale: Shape ``(co,)``.
            shift: Likewise.
        """
        if (bias := self._bias(arch)) is not None:
            shift = shift + scale * bias
        return self._convolve(x, self._times(self._active(self._cropped(arch), arch), scale), shift)

    def _times(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale.view(-1, *[1] * (weight.dim() - 1))

    def _window(self, weight: Tensor) -> Window:
        return self.window.shrunk(self.kernel.largest, tuple(weight.shape[2:]))

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve all of ``x`` with all of ``weight``."""
        where = self._window(weight)
        if self._is_depthwise:
            return depthwise(x, weight.contiguous(), bias, where)
        return strided(x, weight.contiguous(), bias, where, self.groups.number(x.shape[1]))

    def _convolve_apart(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same but for rounding, without a graph: for what only gates get a gradient of."""
        if self._is_product and bias is None and native.takes(x):
            return pointwise(x, weight)
        if self._is_depthwise:
            return depthwise_apart(x, weight.contiguous(), bias, self._window(weight))
        return self._convolve(x, weight, bias)

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer gives: in evaluation bit for bit what its plain form does."""
        apart = self.training and not torch.is_grad_enabled()
        return (self._convolve_apart if apart else self._convolve)(x, weight, bias)

    def _products(
        self, gradient: Tensor, x: Tensor, weight: Tensor, table: Tensor, scale: float
    ) -> Tensor:
        x, where = self._window(weight).padded(x)
        if self._is_product or concerned(weight, where):
            return input_products(gradient, where.seen(x), weight, table, scale)
        found = self._weight_gradient(gradient, x, weight, where)
        return weight_products(weight, found, table, (self.columns_axis,)) * scale

    def _weight_gradient(
        self, gradient: Tensor, x: Tensor, weight: Tensor, where: Window
    ) -> Tensor:
        x, weight = x.to(gradient.dtype), weight.to(gradient.dtype)  # under autocast they differ
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, where.stride, where.padding, where.dilation, False,
            [0] * len(where.stride), 1, [False, True, False],
        )[1]  # fmt: skip
        return found

    def macs(self, positions: int) -> Polynomial:
        """``positions * ci * co / groups * taps``."""
        inputs = self.groups.inputs(self.in_channels)
        return positions * inputs * amount(self.out_channels) * self.kernel.taps

    def parameter_count(self) -> Polynomial:
        """``co * (ci / groups * taps + bias)``."""
        taps = self.groups.inputs(self.in_channels) * self.kernel.taps
        return amount(self.out_channels) * (taps + int(self.bias is not None))

    def _further(self, where: Window) -> dict[str, Any]:
        """What torch's layer of this kind takes besides."""
        return {"padding_mode": where.mode}

    def plain(self, arch: Architecture) -> nn.Module:
        """The layer of torch of the active slice."""
        weight = self._active(self._cropped(arch), arch)
        inputs, outputs = arch.size(self.in_channels), arch.size(self.out_channels)
        where = self._window(weight)
        with torch.device("meta"):
            plain = self.plain_layer(
                inputs, outputs, tuple(weight.shape[2:]), where.stride, where.padding,
                dilation=where.dilation, groups=self.groups.number(inputs),
                bias=self.bias is not None, **self._further(where),
            )  # fmt: skip
        plain.weight = frozen(weight)
        if (bias := self._bias(arch)) is not None:
            plain.bias = frozen(bias)
        return plain


class Conv1d(Convolution):
    """A `Convolution` of sequences, of shape ``(N, ci, L)`` to ``(N, co, …)``."""

    takes, plain_layer = "(N, C, L)", nn.Conv1d


class Conv2d(Convolution):
    """A `Convolution` of images, of shape ``(N, ci, H, W)`` to ``(N, co, …)``."""

    plain_layer = nn.Conv2d


class Conv3d(Convolution):
    """A `Convolution` of volumes, of shape ``(N, ci, D, H, W)`` to ``(N, co, …)``."""

    takes, plain_layer = "(N, C, D, H, W)", nn.Conv3d


class DepthwiseConv2d(Conv2d):
    """A convolution of every channel of an image by itself, with searchable width and kernel size.

    Args:
        channels: Input and output channels.
        kernel_size: As of `Convolution`, like all that follows.
        stride: As in torch.
        padding: As in torch; none keeps the resolution where there is no stride.
        dilation: As in torch.
        bias: Whether to add one.
        padding_mode: As in torch.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, …)``.
    """

    def __init__(
        self,
        channels: Width,
        kernel_size: KernelSize = 3,
        stride: Numbers = 1,
        padding: Numbers | str | None = None,
        dilation: Numbers = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
    ) -> None:
        check_sizes(type(self).__name__, channels=channels)
        super().__init__(
            channels, channels, kernel_size, stride, padding, dilation, 1, bias, padding_mode,
            group_width=1,
        )  # fmt: skip
