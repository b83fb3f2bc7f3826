"""What a network is to do: its loss, how students follow their teacher, and how good an answer is.

A task is a value, given to `fit` and kept with the run. Inputs and architectures are no business of
it: it sees what the model gives for a batch, and the targets.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.errors import DataError, TaskError
from boundnas.typed import check_argument


class Meter(Protocol):
    """A metric over all samples, with the interface of ``torchmetrics.Metric``."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch."""

    def compute(self) -> Tensor | float:
        """The metric over all batches taken; higher is better."""


class Task(ABC):
    """What the networks are trained for and measured by; subclass it for a task of your own.

    Override `loss`, `distance`, `check`, and `score` or, for a metric that is no mean over samples,
    `meter`. Tensors are on the model's device.

    Attributes:
        metric: What is reported, as ``"accuracy"``.
        unit: Its unit as it is shown, as ``"%"``; none by default.
        scale: What a score is multiplied by where it is shown: 100 for per cent, -1 for an error,
            whose score is negative, as a higher score is always better.
        output_name: What exported networks call their output, a Python name, as ``"logits"``.
        mixes: Whether two samples may be mixed for training (``train.mixup``): the loss of a mixed
            one is then the mean of its losses for both targets. False by default.
    """

    metric: str
    unit: str = ""
    scale: float = 1.0
    output_name: str = "output"
    mixes: bool = False

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the max network is trained by: a scalar, the mean over the batch."""

    @abstractmethod
    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """How far a student's outputs are from the max network's: a scalar, zero where they agree.

        No gradient may flow into the teacher: ``teacher.detach()``.
        """

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How good each answer is, shape ``(N,)``; their mean is the metric, higher is better."""
        raise TaskError(
            f"{type(self).__name__} gives samples no scores; write its method score, or meter for "
            "a metric over all samples"
        )

    def meter(self) -> Meter | None:
        """A new and empty metric over all samples; none where it is the mean of the scores."""
        return None

    @abstractmethod
    def check(self, outputs: Tensor, targets: Tensor, where: str) -> None:
        """Refuse targets that do not fit the model or the task, before anything is trained.

        Args:
            outputs: What the model gives for as many samples.
            targets: Some of the targets.
            where: Data set and split, for messages.

        Raises:
            DataError: Says what was found, what is allowed and what to do.
        """

    def fitted(self, targets: Iterable[Tensor]) -> Self:
        """The task with what it takes from the training targets, such as their mean; by default
        itself.
        """
        return self

    def checked_score(self, score: float, of: str) -> float:
        """A score that is a number.

        Args:
            score: The metric.
            of: What was measured, for the message.

        Raises:
            TaskError: It is not finite, so that it would be compared with nothing.
        """
        if math.isfinite(score):
            return score
        raise TaskError(
            f"{self.metric} of {of} is {score}; look for samples or targets that it is not defined "
            f"for, and see that {type(self).__name__} gives a number for these too"
        )

    @property
    def output(self) -> str:
        """What the outputs of an exported network mean, for its card."""
        return f"as {type(self).__name__}.loss takes it"

    def shown(self, score: float) -> str:
        """A score as people read it.

        Examples:
            >>> Classification().shown(0.9786)
            '97.86 %'
        """
        return shown(score, self.scale, self.unit)


def shown(score: float, scale: float, unit: str) -> str:
    """A score as people read it: times its scale, to four digits, with its unit."""
    return f"{score * scale:.4g} {unit}".rstrip()


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """``KL(teacher || student)`` of the class probabilities, averaged over the batch.

    Args:
        student: Logits, shape ``(N, classes)``.
        teacher: Logits of the max network, same shape; no gradient flows into them.

    Returns:
        A scalar, zero where both agree.
    """
    return F.kl_div(
        F.log_softmax(student, -1),
        F.log_softmax(teacher.detach(), -1),
        reduction="batchmean",
        log_target=True,
    )


@dataclass(frozen=True)
class Classification(Task):
    """One class for each sample: cross-entropy, soft targets of the teacher, accuracy.

    Outputs are logits of shape ``(N, classes)``, targets class numbers, int64, shape ``(N,)``.

    Args:
        label_smoothing: Part of every target that is spread evenly over all classes, 0 to 1.
        class_weights: What a sample of each class counts for in the loss, one number per class.
            The loss is the sum of the weighted losses over the number of samples, so that it is
            the same on any number of processes; let the weights be 1 on average.

    Raises:
        ArgumentError: Smoothing of another type.
        TaskError: Smoothing outside 0 to 1, or weights that are no positive numbers.

    Examples:
        >>> Classification().score(torch.tensor([[0.1, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]))
        tensor([1., 0.])
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    metric = "accuracy"
    unit = "%"
    scale = 100.0
    output_name = "logits"
    mixes = True

    def __post_init__(self) -> None:
        check_argument("Classification", "label_smoothing", self.label_smoothing, float)
        if not 0 <= self.label_smoothing < 1:
            raise TaskError(
                f"label_smoothing must lie in 0 to 1 (without 1), found {self.label_smoothing}"
            )
        if self.class_weights is None:
            return
        try:
            weights = tuple(map(float, self.class_weights))
        except (TypeError, ValueError):
            weights = ()
        if not weights or not all(0 < w < float("inf") for w in weights):
            raise TaskError(f"class_weights must be numbers above 0, found {self.class_weights}")
        object.__setattr__(self, "class_weights", weights)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, averaged over the batch."""
        if self.class_weights is None:
            return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)
        weights = torch.tensor(self.class_weights, dtype=outputs.dtype, device=outputs.device)
        total = F.cross_entropy(
            outputs, targets, weights, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / len(targets)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """`kl_divergence`."""
        return kl_divergence(student, teacher)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1 where the largest logit is that of the target, else 0."""
        return (outputs.argmax(-1) == targets).float()

    @property
    def output(self) -> str:
        """What the outputs mean."""
        return "the largest one is the class"

    def check(self, outputs: Tensor, targets: Tensor, where: str) -> None:
        """Refuse targets that are no class numbers, or outputs that are not one logit a class."""
        check_class_numbers(targets, where, (len(outputs),))
        if outputs.dim() != 2:
            raise DataError(
                f"{where}: a classifier gives logits of shape (N, classes), this model "
                f"{tuple(outputs.shape)} for {len(outputs)} samples"
            )
        if outputs.shape[1] == 1:
            raise DataError(
                f"{where}: a classifier gives a logit for each class, and this model gives one; "
                "for yes and no give it two"
            )
        check_class_range(targets, where, outputs.shape[1])
        if self.class_weights is not None and len(self.class_weights) != outputs.shape[1]:
            raise DataError(
                f"{where}: there are {len(self.class_weights)} class_weights, and the model gives "
                f"{outputs.shape[1]} logits a sample; give one weight for each class"
            )


def check_class_numbers(targets: Tensor, where: str, shape: tuple[int, ...]) -> None:
    """Refuse targets that are no class numbers of this shape.

    Raises:
        DataError: Names type and shape.
    """
    if targets.dtype == torch.int64 and targets.shape == shape:
        return
    kind = str(targets.dtype).removeprefix("torch.")
    advice = "give each sample its class number as int"
    if targets.dim() == 2 and targets.shape[1] > 1 and len(shape) == 1:
        advice = "several numbers a sample are one-hot (give target.argmax()) or a task of their "
        advice += "own, as MultiLabel or Regression"
    elif targets.is_floating_point():
        advice += ", or take another task, as Regression"
    raise DataError(
        f"{where}: targets must be class numbers, int64, {shape} for {shape[0]} samples; found "
        f"{kind}, {tuple(targets.shape)}; {advice}"
    )


def check_class_range(targets: Tensor, where: str, classes: int) -> None:
    """Refuse class numbers outside ``0`` to ``classes - 1``.

    Raises:
        DataError: Names the range that is there.
    """
    if not targets.numel():
        return
    low, high = (int(bound) for bound in targets.aminmax())
    if low < 0 or high >= classes:
        hint = "; these count from 1, give target - 1" if (low, high) == (1, classes) else ""
        raise DataError(
            f"{where}: the model gives {classes} logits, so targets lie in 0 to {classes - 1}; "
            f"found {low} to {high}{hint}"
        )
