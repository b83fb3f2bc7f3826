"""Numbers for each sample, measured by R² or by their error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.errors import DataError, TaskError
from boundnas.task import Meter, Task
from boundnas.typed import checked


@checked
@dataclass(frozen=True)
class Regression(Task):
    """Numbers: mean squared error, R² or an error in their own unit.

    Targets are float32 of shape ``(N,)`` or ``(N, D)``; outputs of the same shape, or
    ``(N, 1)`` for targets ``(N,)``. The networks learn ``(target - mean) / std`` with mean and
    standard deviation of the training targets, so that a loss of 1 is that of answering with the
    mean; scores are in the targets' own unit.

    Args:
        metric: ``"R²"`` (over all samples; of several numbers the mean of theirs), ``"MAE"`` or
            ``"RMSE"``.
        unit: Of the targets, shown with an error.
        mean: Of the training targets, one for each number; found by `fitted` where not given.
        std: Likewise.

    Raises:
        ArgumentError: Another metric, or an argument of another type.
        TaskError: A unit of R², which has none, or moments that cannot be.
    """

    metric: Literal["R²", "MAE", "RMSE"] = "R²"
    unit: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float = field(init=False, default=1.0)
    output_name = "standardized"

    def __post_init__(self) -> None:
        if self.metric == "R²" and self.unit:
            raise TaskError(f"R² has no unit, found {self.unit!r}; leave it out, or take MAE")
        self._check_moments()
        object.__setattr__(self, "scale", 1.0 if self.metric == "R²" else -1.0)

    def _check_moments(self) -> None:
        mean, std = self.mean, self.std
        if (mean is None) != (std is None):
            raise TaskError(f"give mean and std, or neither; found mean {mean} and std {std}")
        if mean is None or std is None:
            return
        finite = all(map(math.isfinite, (*mean, *std)))
        if not mean or len(mean) != len(std) or not finite or min(std) <= 0:
            raise TaskError(
                "mean and std hold a finite number for each that is learned, std above 0; "
                f"found mean {mean} and std {std}"
            )

    def fitted(self, targets: Iterable[Tensor]) -> Regression:
        """The task with mean and standard deviation of the training targets.

        Raises:
            DataError: A number that is the same in all of them, or is not finite.
        """
        if self.mean is not None and self.std is not None:
            return self
        whole = torch.cat([_columns(batch).double() for batch in targets])
        mean, std = whole.mean(0), whole.std(0, correction=0)
        if not bool(mean.isfinite().all() and (std > 0).all()):
            raise DataError(
                f"training targets have the means {_some(mean)} and the deviations {_some(std)}; "
                "they must be finite and differ from one another"
            )
        return replace(self, mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of standardized numbers."""
        mean, std = self._moments(outputs)
        return F.mse_loss(_columns(outputs), (_columns(targets) - mean) / std)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean squared difference of the standardized answers."""
        return F.mse_loss(student, teacher.detach())

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The negative absolute error, averaged over the numbers of a sample."""
        return -(self.answers(outputs) - _columns(targets)).abs().mean(1)

    def meter(self) -> Meter | None:
        """R² or the negative RMSE; none for MAE, which is a mean over samples."""
        return None if self.metric == "MAE" else Errors(self)

    def answers(self, outputs: Tensor) -> Tensor:
        """Outputs in the targets' own unit, shape ``(N, D)``."""
        mean, std = self._moments(outputs)
        return _columns(outputs) * std + mean

    def check(self, outputs: Tensor, targets: Tensor, where: str) -> None:
        """Refuse targets that are no finite numbers, or of another shape than the outputs."""
        shapes = {tuple(targets.shape), (*targets.shape, 1) if targets.dim() == 1 else None}
        if targets.dim() not in (1, 2) or tuple(outputs.shape) not in shapes:
            raise DataError(
                f"{where}: the model gives {tuple(outputs.shape)} for {len(outputs)} samples, and "
                f"their targets are {tuple(targets.shape)}; both are (N, D), or targets (N,)"
            )
        learned = targets.shape[1] if targets.dim() == 2 else 1
        if self.mean is not None and len(self.mean) != learned:
            raise DataError(
                f"{where}: targets hold {learned} numbers, and the task has mean and std of "
                f"{len(self.mean)}; give one of each for each, or leave both out"
            )
        if targets.dtype != torch.float32 or not bool(targets.isfinite().all()):
            kind = str(targets.dtype).removeprefix("torch.")
            bad = int((~targets.isfinite()).sum())
            raise DataError(
                f"{where}: targets are finite numbers as float32; found {kind}"
                + (f", of which {bad} not finite; leave those samples out" if bad else "")
                + ("" if bad else "; give float(target)")
            )

    @property
    def output(self) -> str:
        """What the outputs mean."""
        return (
            f"standardized numbers: the answer is output * std + mean, with std {list(self.std)} "
            f"and mean {list(self.mean)}{f' (in {self.unit})' if self.unit else ''}"
            if self.mean and self.std
            else "standardized numbers"
        )

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.mean or (0.0,), self.std or (1.0,)
        return like.new_tensor(mean), like.new_tensor(std)


class Errors:
    """R², or the negative root of the mean squared error; of several numbers the mean."""

    def __init__(self, task: Regression) -> None:
        self.task, self.count = task, 0
        self.sums = torch.zeros(3, 1, dtype=torch.float64)
        """Of errors squared, of targets less their training mean, and of these squared."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch."""
        mean, _ = self.task._moments(targets)
        centred = (_columns(targets) - mean).double().cpu()
        error = (self.task.answers(outputs) - _columns(targets)).double().cpu()
        self.count += len(targets)
        self.sums = self.sums + torch.stack([error.square(), centred, centred.square()]).sum(1)

    def compute(self) -> float:
        """The metric; NaN where an answer was.

        Raises:
            DataError: R² of targets that are all the same.
        """
        squared, total, squares = self.sums / self.count
        if self.task.metric == "RMSE":
            return -math.sqrt(float(squared.mean()))
        variance = squares - total.square()
        if not bool((variance > 1e-12 * squares).all()):
            raise DataError(
                f"R² is not defined where all {self.count} targets are the same; add samples to "
                "this split, or take MAE"
            )
        return float((1 - squared / variance).mean())


def _columns(numbers: Tensor) -> Tensor:
    """As shape ``(N, D)``."""
    return numbers.reshape(len(numbers), -1)


def _some(numbers: Tensor) -> str:
    return ", ".join(f"{n:.4g}" for n in numbers.flatten().tolist()[:5])
