"""The order of the training images: a function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from boundnas.data.source import Source
from boundnas.errors import DataError
from boundnas.randomness import stream


@dataclass(frozen=True)
class TrainingOrder:
    """Which images each training step sees.

    Every epoch is a new permutation, cut into full batches; the tail that fills no batch is left
    out. The order has no state: a resumed run asks for its step, and a rank that wants its
    share of a step slices ``indices(step)``.

    Args:
        length: Number of training images.
        batch_size: Images per step.
        seed: The run's seed; epoch ``e`` is its stream ``"shuffle"`` at ``e``.

    Raises:
        DataError: ``batch_size`` below 1 or above ``length``.

    Examples:
        >>> order = TrainingOrder(length=5, batch_size=2, seed=0)
        >>> order.steps_per_epoch
        2
        >>> len(set(order.indices(0).tolist() + order.indices(1).tolist()))
        4
    """

    length: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.length:
            raise DataError(
                f"batch_size must lie in 1 to {self.length}, the number of training images, "
                f"found {self.batch_size}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the images."""
        return self.length // self.batch_size

    def indices(self, step: int) -> Tensor:
        """Positions of the images of global step ``step``, int64, shape ``(batch_size,)``."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        # A copy, so that no caller can change the cached permutation.
        return _permutation(self.length, self.seed, epoch)[start : start + self.batch_size].clone()


def training_batch(source: Source, seed: int, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """The images and labels of global training step ``step``; see ``TrainingOrder``.

    Args:
        source: The training images.
        seed: The run's seed.
        step: Steps done before this one, over all epochs.
        batch_size: Images per step.

    Returns:
        Images, uint8, shape ``(batch_size, C, H, W)``, and labels, int64, shape
        ``(batch_size,)``.

    Raises:
        DataError: ``batch_size`` below 1 or above ``len(source)``.
    """
    return source.take(TrainingOrder(len(source), batch_size, seed).indices(step))


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(length, generator=stream(seed, "shuffle", epoch))
