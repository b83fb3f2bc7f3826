"""What travels with an architecture through a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Statistics(ABC):
    """Where BatchNorm takes mean and variance from, if not from its batch alone."""

    @abstractmethod
    def of(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance ``layer`` normalizes ``x`` with, shape ``(c,)`` each.

        Of shape ``(parts, c)`` each they are of equal parts of the batch, one after the other.
        """

    def check(self, arch: Any, model: nn.Module, surely: bool) -> None:
        """Refuse an `Architecture`, or a model, that they are not of.

        Args:
            arch: The architecture that carries them.
            model: The supernet that is about to compute with them.
            surely: Compare the weights' values, not only whether they were written since.
        """
        return


@dataclass(frozen=True, eq=False)
class Pass:
    """How a model computes with an architecture; by default as nothing but that architecture.

    Every part stands for itself, so that any of them may be given together.

    Args:
        gates: One-hot samples, shape ``(d_i,)`` per dimension, through which the gradient of every
            option flows; none when nothing is learned.
        noise: Source of dropout's and drop-connect's randomness; none switches them off.
        ghost_fraction: Part of the batch on which the gradient of options that were not chosen is
            computed, from 0 to 1.
        statistics: What BatchNorm normalizes by; none means the batch itself. With gates, channels
            and layers that were not chosen go by the batch, as they have none.
        settled: Dimensions whose options are computed as wholes around what is being computed, so
            that within it they have no gates.
        folds: Whether normalizations that follow a convolution are folded into it, for evaluation
            at speed: then statistics are not compared with the weights by value at every pass.
        masked: Whether the gates are multiplied in: ``y = sum_j z_j y_j`` is computed as it stands,
            so that one form of the model, that of its largest architecture, serves all of them.
        drawn: In place of noise, from a layer and a shape to numbers in ``[0, 1)`` and whether they
            are to be used.
        recomputes: Whether the layers of stages are computed again in the backward pass, so that
            what is inside of them is not kept (`boundnas.elastic.recomputed`).
    """

    gates: tuple[Tensor, ...] | None = None
    noise: torch.Generator | None = None
    ghost_fraction: float = 1.0
    statistics: Statistics | None = None
    settled: frozenset[Any] = frozenset()
    folds: bool = False
    masked: bool = False
    drawn: Callable[[Any, list[int]], tuple[Tensor, Tensor]] | None = None
    recomputes: bool = False


NOTHING = Pass()
