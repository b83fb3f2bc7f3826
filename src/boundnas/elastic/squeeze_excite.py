"""Squeeze-and-excite that can be searched on or off."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from boundnas.elastic.ghost import mix, part, split
from boundnas.elastic.layer import ElasticModule
from boundnas.elastic.linear import Linear
from boundnas.polynomial import Polynomial, amount
from boundnas.space import Architecture, Dimension, Setting, largest


class SqueezeExcite(ElasticModule):
    """Scale each channel by ``sigmoid(W2 relu(W1 mean(x)))`` (Hu et al., 2018), or do nothing.

    Args:
        channels: Number of channels.
        enabled: ``True``, ``False`` or a dimension over ``(False, True)``.
        reduction: The squeezed width is ``max(1, channels // reduction)``.

    Shape:
        ``(N, C, H, W)`` to the same.
    """

    def __init__(self, channels: Setting, enabled: Setting = True, reduction: int = 4) -> None:
        super().__init__()
        self.enabled = enabled

        def squeeze(c: int) -> int:
            return max(1, c // reduction)

        hidden: Setting = squeeze(largest(channels))
        if isinstance(channels, Dimension):
            hidden = channels.map(squeeze)
        self.reduce = Linear(channels, hidden)
        self.expand = Linear(hidden, channels)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Scale the channels where the architecture has this switched on."""
        on = bool(arch.value(self.enabled))
        y = x * self._scale(x, arch) if on else x
        gate = arch.gate(self.enabled)
        if gate is None:
            return y
        inputs, plain = part(split(x)[0], arch.ghost_fraction), arch.plain
        # A searched switch has exactly the options (False, True).
        return mix(
            y,
            gate,
            {0: lambda: inputs, 1: lambda: inputs * self._scale(inputs, plain)},
            arch.ghost_fraction,
        )

    def _scale(self, x: Tensor, arch: Architecture) -> Tensor:
        squeezed = F.relu(self.reduce(x.mean((2, 3)), arch))
        return self.expand(squeezed, arch).sigmoid()[:, :, None, None]

    def presence(self, child: str) -> Polynomial:
        """Both layers are in use exactly where it is switched on."""
        return amount(self.enabled)
