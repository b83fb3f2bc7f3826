"""What the families of networks have in common: choices of channels, and a convolution's layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from boundnas import elastic
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Setting, check_sizes
from boundnas.supernet.supernet import Supernet


def eighths(largest: int) -> tuple[int, ...]:
    """One to eight eighths of a number of channels, rounded down."""
    return tuple(largest * k // 8 for k in range(1, 9))


def scaled(choices: Sequence[int], width: float) -> tuple[int, ...]:
    """Channel choices times a width multiplier: at least one channel, ascending, no repetitions.

    Raises:
        SpaceError: The multiplier is no finite number above zero.

    Examples:
        >>> scaled((2, 4, 6, 8), 0.25)
        (1, 2)
    """
    if not (isinstance(width, int | float) and 0 < width < math.inf):
        raise SpaceError(f"a width multiplier is a finite number above zero, found {width!r}")
    check_sizes("a table of widths", **{f"choice {i}": c for i, c in enumerate(choices, 1)})
    return tuple(sorted({max(1, int(c * width + 0.5)) for c in choices}))


def rising(probability: float, number: int) -> list[float]:
    """Drop-connect of each of so many layers: linear, from none at the first one."""
    return [probability * i / max(1, number - 1) for i in range(number)]


class Searched:
    """Creates the dimensions of one part of the network; a single choice is a constant."""

    def __init__(self, net: Supernet, prefix: str) -> None:
        self.net, self.prefix = net, prefix

    def __call__(self, name: str, choices: Sequence, kind: str) -> Setting:
        """A new dimension named after the part, or the only choice."""
        if len(choices) == 1:
            return choices[0]
        return self.net.dimension(f"{self.prefix}.{name}", choices, kind)


_NORMS: tuple[type[elastic.BatchNorm], ...] = (
    elastic.BatchNorm1d, elastic.BatchNorm1d, elastic.BatchNorm2d, elastic.BatchNorm3d
)  # fmt: skip
"""By the number of spatial axes."""


class ConvNorm(nn.Module):
    """A convolution, its normalization, and the activation if there is one."""

    def __init__(
        self,
        conv: elastic.Convolution,
        channels: Setting,
        activation: Setting | None = None,
    ) -> None:
        super().__init__()
        norm = _NORMS[len(conv.kernel.largest)]
        self.conv, self.norm = conv, norm(channels, activation=activation)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Convolve, normalize, activate: where the architecture folds, in one convolution."""
        if arch.folds:
            return self.norm.folded(self.conv, x, arch)
        return self.norm(self.conv(x, arch), arch)
