"""Elastic transposed convolutions, in one, two and three spatial axes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.convolution import Convolution
from boundnas.elastic.kernel import KernelSize
from boundnas.elastic.window import Numbers, Window, numbers
from boundnas.errors import SpaceError
from boundnas.space import Width

_CONVOLVE = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


class TransposedConvolution(Convolution):
    """A transposed convolution with searchable input width, output width and kernel size.

    Args:
        in_channels: As of `Convolution`, like all that follows but for ``output_padding``.
        out_channels: Output channels.
        kernel_size: Of every spatial axis, or one for all; with a stride, more than one pixel.
        stride: As in torch.
        padding: As in torch; none keeps the resolution where there is no stride.
        output_padding: As in torch.
        groups: As in torch, of widths that are fixed.
        bias: Whether to add one.
        dilation: As in torch.
        group_width: Input channels of a group, in place of ``groups``.
    """

    rows_axis, columns_axis = 1, 0

    def __init__(
        self,
        in_channels: Width,
        out_channels: Width,
        kernel_size: KernelSize = 1,
        stride: Numbers = 1,
        padding: Numbers | None = None,
        output_padding: Numbers = 0,
        groups: int = 1,
        bias: bool = False,
        dilation: Numbers = 1,
        *,
        group_width: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            group_width=group_width,
        )  # fmt: skip
        owner, where = type(self).__name__, self.window
        more = numbers(owner, "output_padding", output_padding, len(where.stride), smallest=0)
        if any(m >= max(pair) for m, *pair in zip(more, where.stride, where.dilation, strict=True)):
            raise SpaceError(
                f"{owner}: output_padding is below the stride or the dilation, found {more} with "
                f"{where.stride} and {where.dilation}"
            )
        if max(where.stride) > 1 and max(self.kernel.smallest) == 1:
            raise SpaceError(
                f"{owner}: a kernel of one pixel with a stride of {where.stride} leaves the pixels "
                "between empty; let every kernel size be above one"
            )
        self.output_padding = more
        self._is_depthwise = self._is_product = False  # of which others compute the transpose

    def _channels(self, inputs: int, outputs: int, groups: int) -> tuple[int, int]:
        return inputs, outputs // groups

    def _times(self, weight: Tensor, scale: Tensor) -> Tensor:
        groups = len(scale) // weight.shape[1]
        each = scale.view(groups, 1, -1, *[1] * (weight.dim() - 2))
        return (weight.unflatten(0, (groups, -1)) * each).flatten(0, 1)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        where, groups = self._window(weight), self.groups.number(x.shape[1])
        convolve: Any = _CONVOLVE[weight.dim()]
        y: Tensor = convolve(
            x, weight.contiguous(), bias, where.stride, where.padding, self.output_padding, groups,
            where.dilation,
        )  # fmt: skip
        return y

    def _weight_gradient(
        self, gradient: Tensor, x: Tensor, weight: Tensor, where: Window
    ) -> Tensor:
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, where.stride, where.padding, where.dilation, True,
            self.output_padding, 1, [False, True, False],
        )[1]  # fmt: skip
        return found

    def _further(self, where: Window) -> dict[str, Any]:
        return {"output_padding": self.output_padding}

    def positions(self, x: Tensor, y: Tensor) -> int:
        """Those of its input, whose every pixel meets the whole kernel."""
        return x.shape[2:].numel()


class ConvTranspose1d(TransposedConvolution):
    """A `TransposedConvolution` of sequences, of shape ``(N, ci, L)`` to ``(N, co, …)``."""

    takes, plain_layer = "(N, C, L)", nn.ConvTranspose1d


class ConvTranspose2d(TransposedConvolution):
    """A `TransposedConvolution` of images, of shape ``(N, ci, H, W)`` to ``(N, co, …)``."""

    plain_layer = nn.ConvTranspose2d


class ConvTranspose3d(TransposedConvolution):
    """A `TransposedConvolution` of volumes, of shape ``(N, ci, D, H, W)`` to ``(N, co, …)``."""

    takes, plain_layer = "(N, C, D, H, W)", nn.ConvTranspose3d
