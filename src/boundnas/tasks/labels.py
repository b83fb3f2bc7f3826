"""Any number of labels for each sample, measured by mean average precision."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.errors import DataError
from boundnas.task import Task


@dataclass(frozen=True)
class MultiLabel(Task):
    """Labels that are there or not: binary cross-entropy, mean average precision over all samples.

    Outputs are logits of shape ``(N, labels)``, targets 0 and 1 as float32 of the same shape. A
    student follows ``KL(teacher || student)`` of the probabilities of each label, averaged over
    samples and labels, as the loss is.
    """

    metric = "mean average precision"
    unit = "%"
    scale = 100.0
    output_name = "logits"
    mixes = True

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, averaged over samples and labels."""
        return F.binary_cross_entropy_with_logits(outputs, targets)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``p log(p / q) + (1 - p) log((1 - p) / (1 - q))``, averaged over samples and labels."""
        teacher = teacher.detach()
        there = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
        absent = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        return (there + absent).mean()

    def meter(self) -> MeanAveragePrecision:
        """Mean average precision."""
        return MeanAveragePrecision()

    def check(self, outputs: Tensor, targets: Tensor, where: str) -> None:
        """Refuse targets that are not 0 and 1, or of another shape than the outputs."""
        if outputs.dim() != 2 or targets.shape != outputs.shape:
            raise DataError(
                f"{where}: a sample has one logit and one target for every label, shape "
                f"(N, labels); found outputs {tuple(outputs.shape)} and targets "
                f"{tuple(targets.shape)} for {len(outputs)} samples"
            )
        if targets.dtype != torch.float32 or not bool(((targets == 0) | (targets == 1)).all()):
            kind = str(targets.dtype).removeprefix("torch.")
            some = sorted(set(targets.flatten().tolist()) - {0.0, 1.0}, key=str)[:3]
            raise DataError(
                f"{where}: targets are 0 and 1 as float32; found {kind}"
                + (f" with {', '.join(map(str, some))}" if some else "")
                + "; give labels that are there 1.0 and others 0.0"
            )

    @property
    def output(self) -> str:
        """What the outputs mean."""
        return "one logit for each label; its sigmoid is the probability that the label is there"


@dataclass
class MeanAveragePrecision:
    """Average precision of each label, averaged over labels.

    ``AP = sum_t (R_t - R_(t-1)) P_t`` over the distinct logits ``t`` in descending order, with
    recall ``R_t`` and precision ``P_t`` of what has a logit of ``t`` or more: nothing is
    interpolated. Logits of all samples are held, 5 bytes for each sample and label.
    """

    outputs: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch."""
        self.outputs.append(outputs.detach().float().cpu())
        self.targets.append(targets.bool().cpu())

    def compute(self) -> float:
        """The mean over labels.

        Raises:
            DataError: A label that no sample has, so that its precision is not defined.
        """
        outputs, targets = torch.cat(self.outputs), torch.cat(self.targets)
        missing = (~targets.any(0)).nonzero()[:, 0].tolist()
        if missing:
            raise DataError(
                f"average precision is not defined for labels that no sample has: none of "
                f"{len(targets)} samples has label {', '.join(map(str, missing[:20]))}; leave "
                "these labels out, or add samples to this split"
            )
        found = [average_precision(o, t) for o, t in zip(outputs.T, targets.T, strict=True)]
        return sum(found) / len(found)


def average_precision(logits: Tensor, there: Tensor) -> float:
    """Average precision of one label; NaN where a logit is.

    Args:
        logits: Shape ``(N,)``.
        there: Which samples have it, bool, shape ``(N,)``; at least one.
    """
    if bool(logits.isnan().any()):
        return float("nan")
    logits, order = logits.sort(descending=True)
    hits = there[order].double().cumsum(0)
    last = torch.ones_like(there)  # of equal logits; they stand and fall together
    last[:-1] = logits[:-1] != logits[1:]
    precision = hits / torch.arange(1, len(hits) + 1)
    gained = hits[last].diff(prepend=hits.new_zeros(1)) / hits[-1]
    return float((gained * precision[last]).sum())
