"""Elastic group normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import join, split
from boundnas.elastic.groups import check_whole
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.normalization import check_eps, hold_affine
from boundnas.elastic.width import active, others
from boundnas.space import Architecture, Width, check_sizes, largest
from boundnas.space.polynomial import Polynomial, amount


class GroupNorm(ElasticLayer):
    """Group normalization over a searchable width, of which whole groups are active.

    A group sees nothing of the others, so that those not chosen change nothing.

    Args:
        channels: Number of channels, in every choice a multiple of ``group_width``.
        group_width: Channels that are normalized together: ``nn.GroupNorm``'s ``channels //
            groups`` at the largest width. One makes it an instance normalization.
        eps: Added to the variance.
        affine: Whether channels are scaled and shifted by weights.

    Shape:
        ``(N, C, …)`` to the same.
    """

    takes = "(N, C, ...)"

    weight: Tensor
    bias: Tensor

    def __init__(
        self, channels: Width, group_width: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        super().__init__()
        check_sizes("GroupNorm", channels=channels, group_width=group_width)
        check_whole("GroupNorm", channels, group_width)
        check_eps("GroupNorm", eps)
        self.channels, self.group_width, self.eps = channels, group_width, eps
        hold_affine(self, largest(channels), affine)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Normalize every group of every sample by itself, ghosts likewise."""
        x, ghost = split(x)
        self.check_width(x, arch.size(self.channels))
        y = self._normalize(x, *(active(p, self.channels, arch) for p in (self.weight, self.bias)))
        if ghost is not None:
            with torch.no_grad():
                rest = (others(p, self.channels, arch) for p in (self.weight, self.bias))
                ghost = self._normalize(ghost, *rest)
        return join(y, ghost)

    def _normalize(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if not self._parameters:  # ones and zeros would round otherwise
            weight = bias = None
        return F.group_norm(x, x.shape[1] // self.group_width, weight, bias, self.eps)

    def macs(self, positions: int) -> Polynomial:
        """None: no products of weights and sums."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """A scale and a shift per channel, if it has them."""
        return 2 * amount(self.channels) if self._parameters else amount(0)

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.GroupNorm`` of the active groups."""
        channels, affine = arch.size(self.channels), bool(self._parameters)
        plain = nn.GroupNorm(channels // self.group_width, channels, self.eps, affine)
        if affine:
            plain.weight = frozen(active(self.weight, self.channels, arch))
            plain.bias = frozen(active(self.bias, self.channels, arch))
        return plain
