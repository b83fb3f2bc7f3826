"""A task of functions, and of metrics that other libraries have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from boundnas.errors import TaskError
from boundnas.task import Meter, Task

Function = Callable[[Tensor, Tensor], Tensor]


class Own(Task):
    """A task of three functions; for more than that subclass `Task`.

    Args:
        loss: Of outputs and targets: a scalar, the mean over the batch.
        distance: Of a student's outputs and its teacher's, which are detached: a scalar, zero where
            they agree.
        score: Of outputs and targets: how good each answer is, shape ``(N,)``.
        metric: In place of ``score`` a metric over all samples, with ``update(outputs, targets)``
            and ``compute()``, one number, as those of torchmetrics. It is copied for every network
            and stays in its process, as others measure other networks.
        name: What is reported; by default the name of ``score`` or ``metric``.
        unit: Its unit as it is shown.
        lower_is_better: Whether it is an error. Of a metric that says so itself, as those of
            torchmetrics by ``higher_is_better``, it need not be given.

    Raises:
        TaskError: Both or neither of ``score`` and ``metric``, or a metric that does not say
            whether higher is better.

    Examples:
        >>> from torch.nn import functional as F
        >>> task = Own(F.l1_loss, F.l1_loss, score=lambda o, t: (o - t).abs().mean(1),
        ...            name="error", unit="mm", lower_is_better=True)
        >>> task.shown(-0.25)
        '0.25 mm'
    """

    def __init__(
        self,
        loss: Function,
        distance: Function,
        score: Function | None = None,
        *,
        metric: Any = None,
        name: str | None = None,
        unit: str = "",
        lower_is_better: bool | None = None,
    ) -> None:
        if (score is None) == (metric is None):
            raise TaskError("give score, a function of each sample, or metric, one over all")
        measured = metric if score is None else score
        _check_parts(loss, distance, metric)
        self._lower = _is_lower(measured, lower_is_better)
        self._loss, self._distance, self._score, self._metric = loss, distance, score, metric
        self.metric = name or str(getattr(measured, "__name__", type(measured).__name__))
        self.unit, self.scale = unit, -1.0 if self._lower else 1.0

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As given."""
        return self._loss(outputs, targets)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """As given."""
        return self._distance(student, teacher.detach())

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As given; negative where lower is better."""
        if self._score is None:
            return super().score(outputs, targets)
        return self.scale * self._score(outputs, targets)

    def meter(self) -> Meter | None:
        """A copy of the metric; none where samples have scores."""
        return None if self._metric is None else _Signed(copy.deepcopy(self._metric), self.scale)

    def check(self, outputs: Tensor, targets: Tensor, where: str) -> None:
        """Nothing is known of targets but what the functions make of them, which is tried."""


class _Signed:
    """A metric by which higher is better."""

    def __init__(self, metric: Any, sign: float) -> None:
        self.metric, self.sign = metric, sign
        if callable(getattr(metric, "reset", None)):
            metric.reset()
        for part in metric.modules() if isinstance(metric, nn.Module) else ():
            if hasattr(part, "distributed_available_fn"):  # torchmetrics' would mix the processes
                vars(part)["distributed_available_fn"] = _never

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch."""
        if isinstance(self.metric, nn.Module):
            self.metric.to(outputs.device)
        self.metric.update(outputs, targets)

    def compute(self) -> float:
        """The metric, negative where lower is better.

        Raises:
            TaskError: It is several numbers, or none.
        """
        found = self.metric.compute()
        try:
            if isinstance(found, str | bool) or (isinstance(found, Tensor) and found.is_complex()):
                raise TypeError
            return self.sign * float(found)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TaskError(
                f"{type(self.metric).__name__}.compute must give one number, found {found!r:.80}; "
                "let it average over classes or outputs, or take one of several metrics"
            ) from error


def _check_parts(loss: Any, distance: Any, metric: Any) -> None:
    """Refuse a metric that is none, and functions that are one.

    Raises:
        TaskError: Says what to give in its place.
    """
    for name, function in (("loss", loss), ("distance", distance)):
        if all(callable(getattr(function, part, None)) for part in ("update", "compute")):
            raise TaskError(
                f"{name} is the metric {function!r:.60}, which keeps what it was called with, and "
                "may be higher where a network is better; give a function, as "
                "torch.nn.functional.mse_loss"
            )
    for part in ("update", "compute") if metric is not None else ():
        if isinstance(metric, type) or not callable(getattr(metric, part, None)):
            found = "is a class" if isinstance(metric, type) else f"has no {part}"
            raise TaskError(
                f"metric must have update(outputs, targets) and compute(), {metric!r:.60} {found}; "
                "give an instance, as torchmetrics.R2Score()"
            )


def _never() -> bool:
    return False


def _is_lower(measured: Any, given: bool | None) -> bool:
    """Whether lower is better.

    Raises:
        TaskError: The metric says otherwise, or nothing is said.
    """
    higher = getattr(measured, "higher_is_better", None)
    if given is None and higher is None and hasattr(measured, "update"):
        raise TaskError(
            f"{type(measured).__name__} does not say whether a higher value is better; give "
            "lower_is_better=True or False"
        )
    if given is not None and higher is not None and given == higher:
        raise TaskError(
            f"{type(measured).__name__} says higher_is_better = {higher}, and lower_is_better is "
            f"{given}; leave it out"
        )
    return not higher if given is None and higher is not None else bool(given)
