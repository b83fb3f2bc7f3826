"""Dropout, drop-connect and RReLU: they draw only in passes whose architecture brings noise."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import Ghosted, alone, join
from boundnas.elastic.layer import ElasticLayer
from boundnas.elastic.varied import Varied
from boundnas.errors import SpaceError
from boundnas.nested import sent
from boundnas.space import Architecture
from boundnas.space.polynomial import Polynomial, amount


class Draw(ElasticLayer):
    """A function of the input and of numbers that are drawn for its entries."""

    varied = True
    draws = True
    """Whether it draws at all."""

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Draw, where there is noise, and apply the function, to ghosts that of the same draw."""
        if not self.draws or (arch.noise is None and arch.carried.drawn is None):
            return self._still(x)
        if arch.carried.drawn is not None:
            draw, there = arch.carried.drawn(self, self._draw_shape(x, 0))
            return torch.where(there, self._applied(x, self._values(draw, x.dtype)), self._still(x))
        assert arch.noise is not None
        active, (more, few) = alone(x), self._unchosen(x)
        values = self._values(self._drawn(active, more, arch.noise), active.dtype)
        return self._applied(x, self._parted(values, more, few))

    @abstractmethod
    def _still(self, x: Tensor) -> Tensor:
        """What it gives without noise."""

    @abstractmethod
    def _values(self, draw: Tensor, dtype: torch.dtype) -> Tensor:
        """What uniform numbers in ``[0, 1)`` stand for."""

    @abstractmethod
    def _applied(self, x: Tensor, values: Tensor) -> Tensor:
        """What it gives with them."""

    def _drawn(self, active: Tensor, more: int, generator: torch.Generator) -> Tensor:
        """Numbers in ``[0, 1)`` for a map's entries, and for those of ``more`` channels."""
        shape = self._draw_shape(active, more)
        return sent(torch.rand(shape, generator=generator, dtype=torch.float32), active.device)

    def _parted(self, values: Tensor, more: int, few: int) -> Tensor:
        """Active channels and ghosts, as of a map; ``few`` samples have ghosts."""
        if more == 0:
            return values
        axis = self.axis or 0  # 0: all channels are treated together
        active, ghost = values.split([values.shape[axis] - more, more], axis)
        return join(active, ghost[:few])

    def _unchosen(self, x: Tensor) -> tuple[int, int]:
        """Channels that were not chosen and are dropped by themselves, and their samples."""
        if self.axis is None or not isinstance(x, Ghosted):
            return 0, 0
        if isinstance(x, Varied):
            whole = x.options.whole
            return whole[self.axis] - x.active.shape[self.axis], whole[0]
        return x.ghost.shape[self.axis], len(x.ghost)

    @abstractmethod
    def _draw_shape(self, x: Tensor, more: int) -> list[int]:
        """What is drawn independently, of a map whose ghost has so many channels more."""

    def macs(self, positions: int) -> Polynomial:
        """None."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """None."""
        return amount(0)


class _Drop(Draw):
    """Zero a random part of the input and scale the rest up; nothing without noise.

    Args:
        probability: Of being dropped, in ``[0, 1)``.
    """

    def __init__(self, probability: float = 0.2) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise SpaceError(f"a drop probability lies in [0, 1), found {probability}")
        self.probability = probability

    @property
    def draws(self) -> bool:  # type: ignore[override]
        """Whether the probability is above zero."""
        return self.probability > 0

    def _still(self, x: Tensor) -> Tensor:
        return x

    def _values(self, draw: Tensor, dtype: torch.dtype) -> Tensor:
        return (draw >= self.probability).to(dtype) / (1 - self.probability)

    def _applied(self, x: Tensor, values: Tensor) -> Tensor:
        return x * values

    def plain(self, arch: Architecture) -> nn.Module | None:
        """Nothing: it acts in training only."""
        return None


class Dropout(_Drop):
    """Drop each channel of each sample by itself.

    Args:
        probability: Of being dropped, in ``[0, 1)``.
        axis: Where channels lie. 1, as after convolutions: a channel is dropped with all of its
            pixels. -1, as after linear layers on tokens: each feature of each token by itself.
        pixels: Whether each pixel of a channel on axis 1 is dropped by itself, as ``nn.Dropout``
            does.
    """

    def __init__(self, probability: float = 0.2, axis: int = 1, pixels: bool = False) -> None:
        super().__init__(probability)
        if axis not in (1, -1):
            raise SpaceError(f"Dropout: channels lie on axis 1 or -1, found {axis}")
        self.axis, self.pixels = axis, pixels

    def _draw_shape(self, x: Tensor, more: int) -> list[int]:
        if self.axis == -1:
            return [*x.shape[:-1], x.shape[-1] + more]
        apart = x.shape[2:] if self.pixels else [1] * (x.dim() - 2)
        return [len(x), x.shape[1] + more, *apart]


class AlphaDropout(Dropout):
    """Drop as `Dropout`, to the value that SELU comes to far below zero.

    The rest is scaled and shifted so that mean and variance stay 0 and 1, as of
    ``nn.AlphaDropout``: ``a (x m + s (1 - m)) + b`` with ``m`` of zeros and ones, ``s = -1.7581``,
    ``a = ((1 - p) (1 + p s^2))^(-1/2)`` and ``b = -a s p``.
    """

    _SATURATED = -1.7580993408473766

    def _applied(self, x: Tensor, values: Tensor) -> Tensor:
        p, s = self.probability, self._SATURATED
        a = ((1 - p) * (1 + p * s * s)) ** -0.5
        mask = values * (1 - p)
        return (x * mask + s * (1 - mask)) * a - a * s * p


class DropConnect(_Drop):
    """Drop a whole residual branch, per sample, wherever channels lie."""

    axis = None

    def _draw_shape(self, x: Tensor, more: int) -> list[int]:
        return [len(x), *[1] * (x.dim() - 1)]


class RReLU(Draw):
    """``max(0, x) + r min(0, x)`` with a slope ``r`` that is drawn for each entry.

    Without noise, and in what is extracted, all slopes are their mean.

    Args:
        lower: The smallest slope.
        upper: The largest.
        axis: Where channels lie: 1, as after convolutions, or -1, as after linear layers on tokens.

    Shape:
        Any, to the same.
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, axis: int = 1) -> None:
        super().__init__()
        if axis not in (1, -1):
            raise SpaceError(f"RReLU: channels lie on axis 1 or -1, found {axis}")
        if not 0 <= lower <= upper <= 1:
            raise SpaceError(f"RReLU: slopes ascend in [0, 1], found {lower} and {upper}")
        self.lower, self.upper, self.axis = lower, upper, axis

    def _still(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self._mean)

    def _values(self, draw: Tensor, dtype: torch.dtype) -> Tensor:
        return self.lower + (self.upper - self.lower) * draw.to(dtype)

    def _applied(self, x: Tensor, values: Tensor) -> Tensor:
        return F.relu(x) - values * F.relu(-x)

    @property
    def _mean(self) -> float:
        return (self.lower + self.upper) / 2

    def _draw_shape(self, x: Tensor, more: int) -> list[int]:
        shape = list(x.shape)
        shape[self.axis or 0] += more
        return shape

    def plain(self, arch: Architecture) -> nn.Module:
        """A leaky ReLU of the mean slope."""
        return nn.LeakyReLU(self._mean)
