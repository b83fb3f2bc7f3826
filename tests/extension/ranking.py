"""A task of one's own, in one file: ages in years as ordered thresholds, measured in years."""

import torch
from torch.nn import functional as F

from boundnas.errors import DataError
from boundnas.tasks import Task


class Ages(Task):
    """Outputs are logits of "older than t" for each threshold t; targets are ages, float32."""

    metric, unit, scale = "mean age error", "years", -1.0

    def __init__(self, thresholds=(20.0, 40.0, 60.0)):
        self.thresholds = thresholds

    def older(self, targets):
        return (targets[:, None] > targets.new_tensor(self.thresholds)).float()

    def loss(self, outputs, targets):
        return F.binary_cross_entropy_with_logits(outputs, self.older(targets))

    def distance(self, student, teacher):
        return F.binary_cross_entropy_with_logits(
            student, teacher.detach().sigmoid()
        ) - F.binary_cross_entropy_with_logits(teacher.detach(), teacher.detach().sigmoid())

    def score(self, outputs, targets):
        edges = outputs.new_tensor((0.0, *self.thresholds, 80.0))
        middles = (edges[1:] + edges[:-1]) / 2
        return -(middles[(outputs > 0).sum(1)] - targets).abs()

    def check(self, outputs, targets, where):
        if outputs.shape != (len(targets), len(self.thresholds)):
            raise DataError(f"{where}: {len(self.thresholds)} outputs are needed for each person")
        if targets.dtype != torch.float32 or not ((targets >= 0) & (targets <= 80)).all():
            raise DataError(f"{where}: ages are numbers from 0 to 80")

    @property
    def output(self):
        """What the outputs mean, for the card of a network."""
        return f"logits of being older than {', '.join(map(str, self.thresholds))} years"
