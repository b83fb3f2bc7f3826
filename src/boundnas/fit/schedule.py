"""How step sizes follow the steps of a run (App. A.2)."""

from __future__ import annotations

import math

from boundnas.settings import TrainSettings

POLICY_PATH = 45.0
"""How far Adam may carry a logit in a whole run, by default. The paper's step size of 5e-4 comes to
10 on CIFAR and 75 on ImageNet; in short runs it leaves the boundaries where they start."""


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """Linear warm-up, then cosine decay to zero (App. A.2)."""
    warmup = round(settings.warmup_fraction * steps)
    if step < warmup:
        start, peak = settings.warmup_start, settings.learning_rate
        return start + (peak - start) * step / warmup
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def policy_learning_rate(steps: int, settings: TrainSettings) -> float:
    """The step size asked for, or one that lets Adam carry a logit by `POLICY_PATH` in a run."""
    if settings.policy_learning_rate is not None:
        return settings.policy_learning_rate
    return settings.policy_every * min(POLICY_PATH / steps, 0.05)
