"""Dropout and drop-connect: they act only in passes whose architecture brings noise."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from boundnas.elastic.ghost import join, split
from boundnas.elastic.layer import ElasticLayer
from boundnas.errors import SpaceError
from boundnas.space import Architecture
from boundnas.space.polynomial import Polynomial, amount


class _Drop(ElasticLayer):
    """Zero a random part of the input and scale the rest up; nothing without noise.

    Args:
        probability: Of being dropped, in ``[0, 1)``.
    """

    def __init__(self, probability: float = 0.2) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise SpaceError(f"a drop probability lies in [0, 1), found {probability}")
        self.probability = probability

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Drop and rescale, ghosts by the same draw."""
        if arch.noise is None or self.probability == 0:
            return x
        active, ghost = split(x)
        c = active.shape[1]
        width = c + (0 if ghost is None else ghost.shape[1])
        draw = torch.rand(self._draw_shape(len(active), width), generator=arch.noise)
        if active.is_cuda:
            draw = draw.pin_memory()  # else the host would wait here for all work before
        draw = draw.to(active.device, non_blocking=True)
        keep = (draw >= self.probability).to(active) / (1 - self.probability)
        keep = keep.expand(-1, width).reshape(len(active), width, *[1] * (active.dim() - 2))
        if ghost is not None:
            ghost = ghost * keep[: len(ghost), c:]
        return join(active * keep[:, :c], ghost)

    @abstractmethod
    def _draw_shape(self, batch: int, channels: int) -> tuple[int, int]:
        """What is drawn independently."""

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
    """Drop each channel (or feature) of each sample by itself."""

    def _draw_shape(self, batch: int, channels: int) -> tuple[int, int]:
        return batch, channels


class DropConnect(_Drop):
    """Drop a whole residual branch, per sample."""

    def _draw_shape(self, batch: int, channels: int) -> tuple[int, int]:
        return batch, 1
