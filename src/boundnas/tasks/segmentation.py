"""A class for each place of a sample: pixels of an image, positions of a sequence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from boundnas.errors import DataError
from boundnas.task import Task, check_class_numbers, check_class_range
from boundnas.typed import checked


def mean_over_places(losses: Tensor, counts: Tensor) -> Tensor:
    """Losses of places, averaged over the places that count of each sample, then over samples.

    So every sample counts alike, and the mean is the same on any number of processes; a sample
    without a place that counts adds zero.

    Args:
        losses: Shape ``(N, ...)``, zero where a place does not count.
        counts: Which places do, likewise.
    """
    places = counts.flatten(1).sum(1).clamp_min(1)
    return (losses.flatten(1).sum(1) / places).mean()


def class_distance(student: Tensor, teacher: Tensor, classes: int) -> Tensor:
    """``KL(teacher || student)`` of the classes at each place, averaged over places and samples.

    Args:
        student: Logits.
        teacher: Likewise; no gradient flows into them.
        classes: Their axis.
    """
    log_q, log_p = student.log_softmax(classes), teacher.detach().log_softmax(classes)
    return (log_p.exp() * (log_p - log_q)).sum(classes).mean()


@checked
@dataclass(frozen=True)
class Segmentation(Task):
    """A class for every pixel: cross-entropy, mean intersection over union over all samples.

    Outputs are logits of shape ``(N, classes, *places)``, such as ``(N, classes, H, W)``, targets
    class numbers, int64, shape ``(N, *places)``.

    Args:
        ignore: A target of this number counts nowhere.

    Raises:
        ArgumentError: It is no whole number.
    """

    ignore: int = 255
    metric = "mean IoU"
    unit = "%"
    scale = 100.0
    output_name = "logits"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; see `mean_over_places`."""
        losses = F.cross_entropy(outputs, targets, ignore_index=self.ignore, reduction="none")
        return mean_over_places(losses, targets != self.ignore)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `class_distance`."""
        return class_distance(student, teacher, 1)

    def meter(self) -> MeanIoU:
        """Mean intersection over union."""
        return MeanIoU(self.ignore)

    def check(self, outputs: Tensor, targets: Tensor, where: str) -> None:
        """Refuse targets that are no class numbers of the places that the outputs have."""
        if outputs.dim() < 3:
            raise DataError(
                f"{where}: outputs are logits of shape (N, classes, *places), as (N, classes, H, "
                f"W); this model gives {tuple(outputs.shape)} for {len(outputs)} samples"
            )
        check_class_numbers(targets, where, (len(outputs), *outputs.shape[2:]))
        check_class_range(targets[targets != self.ignore], where, outputs.shape[1])

    @property
    def output(self) -> str:
        """What the outputs mean."""
        return "logits of the classes (second axis) at each place; the largest one is the class"


class MeanIoU:
    """Intersection over union of each class over all places, averaged over the classes there are.

    Those are the classes of the targets, whatever a network answers, so that all networks are
    averaged over the same. Nothing is held but a table of ``classes x classes``.
    """

    def __init__(self, ignore: int) -> None:
        self.ignore = ignore
        self.table: Tensor | None = None
        """Places by class of the target and class of the answer."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch."""
        classes = outputs.shape[1]
        counts = targets != self.ignore
        pairs = targets[counts] * classes + outputs.argmax(1)[counts]
        found = pairs.bincount(minlength=classes**2).view(classes, classes).cpu()
        self.table = found if self.table is None else self.table + found

    def compute(self) -> float:
        """The mean over classes.

        Raises:
            DataError: No place counts.
        """
        if self.table is None or int(self.table.sum()) == 0:
            raise DataError(f"all targets are {self.ignore}, which counts nowhere")
        both, wanted, given = self.table.diagonal(), self.table.sum(1), self.table.sum(0)
        there = wanted > 0
        return float((both[there].double() / (wanted + given - both)[there]).mean())
