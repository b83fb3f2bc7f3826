"""What changes the weights, as values: any optimizer and schedule of torch (default: App. A.2)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from boundnas.errors import TrainingError
from boundnas.fit import identity
from boundnas.fit.identity import Identity
from boundnas.fit.schedule import WarmUpCosine
from boundnas.fit.told import digest
from boundnas.settings import TrainSettings

Groups = list[dict[str, Any]]
MakeOptimizer = Callable[[Groups], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]

TRIED = 1000
"""So many first steps of a schedule are part of a run's identity."""


@dataclass(frozen=True)
class Recipe:
    """An optimizer of the weights and a schedule of its step sizes.

    A resumed run asks the schedule again from the first step on, so it must depend on the number of
    steps alone.

    Args:
        optimizer: From parameter groups, of which the second, biases and norms, has no weight
            decay; none is SGD as the settings say.
        schedule: From the optimizer and the number of steps; none is a linear warm-up, then cosine
            decay to zero, of each group's own step size.
    """

    optimizer: MakeOptimizer | None = None
    schedule: MakeSchedule | None = None

    def optimizer_of(
        self, parameters: Iterable[nn.Parameter], settings: TrainSettings
    ) -> Optimizer:
        """The optimizer of some parameters."""
        each = list(parameters)
        groups: Groups = [
            {"params": [p for p in each if p.dim() > 1]},
            # Biases and the scales and shifts of norms do not decay (App. A.2).
            {"params": [p for p in each if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return self.optimizer(groups) if self.optimizer else _sgd(groups, settings)

    def schedule_of(self, optimizer: Optimizer, settings: TrainSettings, steps: int) -> LRScheduler:
        """The schedule of an optimizer."""
        if self.schedule:
            return self.schedule(optimizer, steps)
        return WarmUpCosine(optimizer, steps, settings)

    def tried(self, settings: TrainSettings, steps: int) -> Identity:
        """What it is, found by a trial on two small tensors; empty by default.

        Raises:
            TrainingError: The optimizer or the schedule cannot be trained with, or settings that it
                replaces are given too.
        """
        if self.optimizer is None and self.schedule is None:
            return {}
        self._check_settings(settings)
        first, again = (list(self._trial(settings, steps)) for _ in range(2))
        if first[1:] != again[1:]:
            raise TrainingError(
                "schedule gives other step sizes when it is asked again, so that a resumed run "
                "would train otherwise; let it depend on the number of steps alone"
            )
        found, rates = first[0], first[1:]
        return {**found, "step sizes": digest(str(rates))}

    def _check_settings(self, settings: TrainSettings) -> None:
        replaced = {
            "optimizer": (self.optimizer, ("learning_rate", "momentum", "weight_decay")),
            "schedule": (self.schedule, ("warmup_start", "warmup_fraction")),
        }
        for name, (value, fields) in replaced.items():
            given = [f for f in fields if getattr(settings, f) != _default(settings, f)]
            if value is not None and given:
                raise TrainingError(
                    f"{name} was given, and so were settings that it takes the place of: "
                    f"{', '.join(given)}; leave these out"
                )

    def _trial(self, settings: TrainSettings, steps: int) -> Iterator[Any]:
        """The identity of both, then the step sizes of the first steps."""
        given = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
        optimizer = self.optimizer_of(given, settings)
        _check_optimizer(optimizer, given)
        schedule = self.schedule_of(optimizer, settings, steps)
        if not isinstance(schedule, LRScheduler) or isinstance(schedule, ReduceLROnPlateau):
            raise TrainingError(
                "schedule must make a torch.optim.lr_scheduler.LRScheduler that follows the number "
                f"of steps alone, found {type(schedule).__name__}"
            )
        groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        code = identity.of_code([type(optimizer), type(schedule)])
        yield {
            "optimizer": f"{type(optimizer).__name__} {groups}",
            "schedule": type(schedule).__name__,
            **{f"optimizer or schedule: {k}": v for k, v in code.items()},
        }
        _check_step(optimizer, given)
        for _ in range(min(steps, TRIED)):
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
                raise TrainingError(f"schedule gives step sizes of {rates}; they are 0 or more")
            yield rates
            schedule.step()


def advance(schedule: LRScheduler, steps: int) -> None:
    """Bring a new schedule to where it was after so many steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer stepped
        for _ in range(steps):
            schedule.step()


def _sgd(groups: Groups, settings: TrainSettings) -> Optimizer:
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )


def _default(settings: TrainSettings, name: str) -> object:
    return type(settings).model_fields[name].default


def _check_optimizer(optimizer: object, given: list[nn.Parameter]) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TrainingError(
            f"optimizer must make a torch.optim.Optimizer of the groups that it is given, found "
            f"{type(optimizer).__name__}"
        )
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if sorted(held) != sorted(map(id, given)):
        raise TrainingError(
            "optimizer must take all tensors of the groups that it is given, and no others, as "
            "lambda groups: torch.optim.AdamW(groups, lr=1e-3)"
        )


def _check_step(optimizer: Optimizer, given: list[nn.Parameter]) -> None:
    """Refuse an optimizer that needs more than gradients, or keeps what is no tensor."""
    for parameter in given:
        parameter.grad = torch.ones_like(parameter)
    name = type(optimizer).__name__
    try:
        optimizer.step()
    except (TypeError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"optimizer {name} cannot make a step from gradients alone ({error}); choose another"
        ) from error
    for state in optimizer.state.values():
        odd = [key for key, value in state.items() if not isinstance(value, Tensor | None)]
        if odd:
            raise TrainingError(
                f"optimizer {name} keeps {', '.join(odd)}, which are no tensors, so that a "
                "checkpoint could not hold them; choose another"
            )
