"""The weights that a training ends with where they are averaged: a moving average over its steps.

Late steps of a training carry the weights around what they tend to. The average is nearer to it,
and it is what is calibrated, searched and extracted; the steps themselves never see it.

The policies of the boundaries are not averaged. What lies between the boundaries of the last step
is what was trained last; those of an average lag behind and would allow networks that training has
left already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Average:
    """``a <- a + (1 - d) (w - a)`` after each step ``n``, with ``d = min(decay, (1+n) / (10+n))``.

    The decay grows to its value, so that the weights of the first steps do not weigh on a short
    training: after ``n`` steps the average reaches back a tenth of them at most.

    Args:
        model: Whose weights are averaged, where they are.
        decay: Share of the average that a step leaves, in ``(0, 1)``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.held = AveragedModel(model, multi_avg_fn=self._blend)
        """A copy of the model with the average, buffers as the model has them now."""

    def update(self) -> None:
        """Take the weights of a step."""
        self.held.update_parameters(self.model)

    def _blend(
        self,
        averages: tuple[Tensor, ...] | list[Tensor],
        weights: tuple[Tensor, ...] | list[Tensor],
        number: Tensor | int,
    ) -> None:
        n = int(number)
        decay = min(self.decay, (1 + n) / (10 + n))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, 1 - decay)

    def settle(self) -> None:
        """Give the model the average, for good."""
        _write(self.model, list(self.held.module.parameters()))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within it the model has the average, then its own weights again, bit for bit."""
        own = [p.detach().clone() for p in self.model.parameters()]
        self.settle()
        try:
            yield
        finally:
            _write(self.model, own)


@torch.no_grad()
def _write(model: nn.Module, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)
