"""The next token at each position of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from boundnas.errors import DataError
from boundnas.task import Task, check_class_numbers, check_class_range
from boundnas.tasks.segmentation import class_distance, mean_over_places
from boundnas.typed import checked


@checked
@dataclass(frozen=True)
class NextToken(Task):
    """A token for every position: cross-entropy, measured in bits or as perplexity over all.

    Outputs are logits of shape ``(N, length, tokens)``, targets token numbers, int64, shape
    ``(N, length)``.

    Args:
        metric: ``"bits per token"``, the mean of ``-log2 p(target)`` over all tokens of all
            samples, or ``"perplexity"``, 2 to the power of that.
        ignore: A target of this number counts nowhere, such as padding.

    Raises:
        ArgumentError: Another metric.
    """

    metric: Literal["bits per token", "perplexity"] = "bits per token"
    ignore: int = -100
    scale = -1.0
    output_name = "logits"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; see `mean_over_places`."""
        losses = _losses(outputs, targets, self.ignore)
        return mean_over_places(losses, targets != self.ignore)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `class_distance`."""
        return class_distance(student, teacher, -1)

    def meter(self) -> Bits:
        """The negative bits per token, or perplexity."""
        return Bits(self)

    def check(self, outputs: Tensor, targets: Tensor, where: str) -> None:
        """Refuse targets that are no token numbers of the positions that the outputs have."""
        if outputs.dim() != 3:
            raise DataError(
                f"{where}: outputs are logits of shape (N, length, tokens); this model gives "
                f"{tuple(outputs.shape)} for {len(outputs)} samples"
            )
        check_class_numbers(targets, where, tuple(outputs.shape[:2]))
        check_class_range(targets[targets != self.ignore], where, outputs.shape[2])

    @property
    def output(self) -> str:
        """What the outputs mean."""
        return "logits of the tokens (last axis) at each position, for the token that comes next"


class Bits:
    """Negative bits per token, or perplexity, over all tokens that count."""

    def __init__(self, task: NextToken) -> None:
        self.task, self.total, self.count = task, 0.0, 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch."""
        self.total += float(_losses(outputs, targets, self.task.ignore).double().sum())
        self.count += int((targets != self.task.ignore).sum())

    def compute(self) -> float:
        """The metric, negative, as less is better.

        Raises:
            DataError: No token counts.
        """
        if not self.count:
            raise DataError(f"all targets are {self.task.ignore}, which counts nowhere")
        bits = self.total / self.count / math.log(2)
        return -bits if self.task.metric == "bits per token" else -(2**bits)


def _losses(outputs: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return F.cross_entropy(outputs.movedim(-1, 1), targets, ignore_index=ignore, reduction="none")
