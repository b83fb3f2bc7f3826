"""Dropout and drop-connect: they act only in passes whose architecture brings noise."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from boundnas.elastic.ghost import Ghosted, alone, join
from boundnas.elastic.layer import ElasticLayer
from boundnas.elastic.varied import Varied
from boundnas.errors import SpaceError
from boundnas.space import Architecture
from boundnas.space.polynomial import Polynomial, amount


class _Drop(ElasticLayer):
    """Zero a random part of the input and scale the rest up; nothing without noise.

    Args:
        probability: Of being dropped, in ``[0, 1)``.
    """

    varied = True

    def __init__(self, probability: float = 0.2) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise SpaceError(f"a drop probability lies in [0, 1), found {probability}")
        self.probability = probability

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Drop and rescale, ghosts by the same draw."""
        if arch.noise is None or self.probability == 0:
            return x
        active, axis = alone(x), self.axis or 0  # 0: all channels are dropped together
        more, few = self._unchosen(x)
        draw = torch.rand(self._draw_shape(active, more), generator=arch.noise)
        if active.is_cuda:
            draw = draw.pin_memory()  # else the host would wait here for all work before
        draw = draw.to(active.device, non_blocking=True)
        keep = (draw >= self.probability).to(active) / (1 - self.probability)
        if more == 0:
            return x * keep
        kept, others = keep.split([keep.shape[axis] - more, more], axis)
        return x * join(kept, others[:few])

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


class DropConnect(_Drop):
    """Drop a whole residual branch, per sample, wherever channels lie."""

    axis = None

    def _draw_shape(self, x: Tensor, more: int) -> list[int]:
        return [len(x), *[1] * (x.dim() - 1)]
