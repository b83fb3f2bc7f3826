"""How step sizes follow the steps of a run (App. A.2)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from boundnas.data import TrainingOrder
from boundnas.settings import TrainSettings

POLICY_PATH = 45.0
"""How far Adam may carry a logit in a whole run, by default. The paper's step size of 5e-4 comes to
10 on CIFAR and 75 on ImageNet; in short runs it leaves the boundaries where they start."""


def learning_rate(step: int, steps: int, peak: float, settings: TrainSettings) -> float:
    """Linear warm-up to ``peak``, then cosine decay to zero (App. A.2)."""
    warmup = round(settings.warmup_fraction * steps)
    if step < warmup:
        start = settings.warmup_start
        return start + (peak - start) * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


class WarmUpCosine(LRScheduler):
    """`learning_rate` of every group, each with its own peak."""

    def __init__(self, optimizer: Optimizer, steps: int, settings: TrainSettings) -> None:
        self.steps, self.settings = steps, settings
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Step sizes at the step that comes next."""
        return [
            learning_rate(self.last_epoch, self.steps, float(peak), self.settings)
            for peak in self.base_lrs
        ]


def steps_of(settings: TrainSettings, samples: int) -> int:
    """Training steps of a run on so many samples.

    Raises:
        DataError: They are fewer than a batch.
    """
    order = TrainingOrder(samples, settings.batch_size, 0)
    return settings.steps or math.ceil(float(settings.epochs or 0) * order.steps_per_epoch)


def policy_learning_rate(steps: int, settings: TrainSettings) -> float:
    """The step size asked for, or one that lets Adam carry a logit by `POLICY_PATH` in a run."""
    if settings.policy_learning_rate is not None:
        return settings.policy_learning_rate
    return settings.policy_every * min(POLICY_PATH / steps, 0.05)
