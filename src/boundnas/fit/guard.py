"""Losses and gradients that are not finite are refused before any optimizer sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.errors import TrainingError
from boundnas.method.sandwich import ROLES, Sandwich

_UNCHANGED = "the weights and policies are those before this step"


class Guard:
    """Looks at what a step added up, cuts it off, and finds the network where it went wrong.

    Args:
        sandwich: Whose steps.
        limit: Where gradients of weights and policies are cut off, if anywhere.
    """

    def __init__(self, sandwich: Sandwich, limit: float | None) -> None:
        self.sandwich, self.limit = sandwich, limit
        self.parameters: dict[str, nn.Parameter] = dict(sandwich.model.named_parameters())
        """All that optimizers may change, by name: the weights, and what the policies are made of.
        """
        for boundary, policy in sandwich.boundaries.items():
            self.parameters |= {f"{boundary}_policy": p for p in policy.parameters()}

    @property
    def gradients(self) -> list[Tensor]:
        """All gradients there are, of weights and policies; no step reaches every weight."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def cut(self) -> None:
        """Cut off every number of the gradients at the limit.

        A sub-network of one or two channels may have dead, constant ones, whose BatchNorm
        multiplies gradients by up to 1 / sqrt(eps) = 316 in every layer. One such step would hold a
        policy back for a thousand, as Adam divides by what it remembers.
        """
        if self.limit is not None:
            nn.utils.clip_grad_value_(self.parameters.values(), self.limit)

    def check(self, inputs: Any, targets: Tensor, step: int, scalars: Mapping[str, Tensor]) -> None:
        """Refuse a step whose losses or gradients are not finite.

        Args:
            inputs: As given to `Sandwich.step`, which was called before.
            targets: Likewise.
            step: Likewise.
            scalars: What it returned.

        Raises:
            TrainingError: Names the network and the first tensor. Weights and policies are as
                before the step, and all gradients are cleared.
        """
        losses = [scalars[f"loss_{role}"] for role in ROLES]
        largest = nn.utils.get_total_norm(self.gradients, norm_type=math.inf)
        if torch.stack([*losses, self._left(largest).to(losses[0])]).isfinite().all():
            return
        self._clear()
        try:
            self.sandwich.step(inputs, targets, step, after=partial(self._refuse, step))
        finally:
            self._clear()
        raise TrainingError(
            f"step {step}: a loss or gradient was not finite, and it was finite when computed "
            f"again; {_UNCHANGED}. Look for a fault of the machine, or what other ranks say"
        )

    def _refuse(self, step: int, role: str, loss: Tensor) -> None:
        if not loss.isfinite():
            raise TrainingError(
                f"step {step}: the loss of the {role} network is {loss.item()}; {_UNCHANGED}. "
                "Lower train.learning_rate, or check the data"
            )
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            largest = parameter.grad.abs().max()
            if not self._left(largest).isfinite():
                raise TrainingError(
                    f"step {step}: the {role} network has a gradient of {largest.item()} at "
                    f"{name}; {_UNCHANGED}. Lower train.learning_rate, or give the space "
                    "wider smallest layers: gradients explode in deep networks of few channels"
                )

    def _left(self, largest: Tensor) -> Tensor:
        """What of a gradient reaches the optimizers; without a limit, what it may come to there."""
        return largest * 1e8 if self.limit is None else largest.clamp(max=self.limit)

    def _clear(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None
