"""Elastic batch normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import join, split
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.errors import CalibrationError
from boundnas.polynomial import Polynomial, amount
from boundnas.space import Architecture, Setting, largest


class BatchNorm2d(ElasticLayer):
    """Batch normalization over a searchable width.

    It has no running statistics: a supernet's would belong to no network in it. In training every
    pass is normalized by its own batch; for evaluation the statistics travel with the
    architecture (see `boundnas.calibrate`).

    Args:
        channels: Number of channels.
        eps: Added to the variance.

    Shape:
        ``(N, C, H, W)`` to the same.
    """

    def __init__(self, channels: Setting, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(largest(channels)))
        self.bias = nn.Parameter(torch.zeros(largest(channels)))

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Normalize the active channels, and ghosts with their own statistics.

        Raises:
            CalibrationError: In evaluation, with an architecture that carries no statistics.
        """
        c = arch.size(self.channels)
        self.check_width(x, c)
        x, ghost = split(x)
        statistics = arch.statistics(self.name, x)
        if statistics is None and not self.training:
            raise CalibrationError(
                f"{self.name}: evaluation needs BatchNorm statistics of this very architecture, "
                "and it carries none; use the one that calibrate(model, arch, images) returns"
            )
        mean, var = statistics or (None, None)
        y = F.batch_norm(
            x, mean, var, self.weight[:c], self.bias[:c], training=mean is None, eps=self.eps
        )
        if ghost is not None:
            with torch.no_grad():
                ghost = F.batch_norm(
                    ghost, None, None, self.weight[c:], self.bias[c:], training=True, eps=self.eps
                )
        return join(y, ghost)

    def macs(self, positions: int) -> Polynomial:
        """None: it folds into the layer before."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """A scale and a shift per channel."""
        return 2 * amount(self.channels)

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.BatchNorm2d`` with the statistics the architecture carries."""
        c = arch.size(self.channels)
        statistics = arch.statistics(self.name, self.weight)
        if statistics is None:
            raise CalibrationError(
                f"{self.name}: a network with BatchNorm can be extracted only with its statistics; "
                "use the architecture that calibrate(model, arch, images) returns"
            )
        plain = nn.BatchNorm2d(c, eps=self.eps)
        plain.weight, plain.bias = frozen(self.weight[:c]), frozen(self.bias[:c])
        plain.running_mean, plain.running_var = (s.clone() for s in statistics)
        return plain.eval()
