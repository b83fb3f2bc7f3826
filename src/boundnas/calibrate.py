"""BatchNorm statistics of one sub-network, recomputed from training images (Sec. 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from boundnas.elastic.normalization import batch_moments
from boundnas.errors import CalibrationError
from boundnas.modes import evaluating
from boundnas.space import Architecture
from boundnas.supernet import Supernet


@dataclass(frozen=True, eq=False)
class CalibratedArchitecture(Architecture):
    """An architecture with its own BatchNorm statistics: ready to evaluate, extract and export.

    Args:
        moments: Mean and variance by layer name, shape ``(c,)`` each.
    """

    moments: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def statistics(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """The statistics ``layer`` was calibrated to.

        Raises:
            CalibrationError: They were computed for another model.
        """
        if layer not in self.moments:
            raise CalibrationError(
                f"{layer}: no statistics under this name; they were calibrated on another model, "
                f"with {', '.join(self.moments) or 'no BatchNorm layers'}"
            )
        return self.moments[layer]


@dataclass(frozen=True, eq=False)
class Folding(CalibratedArchitecture):
    """A calibrated architecture whose normalizations may be folded into convolutions."""

    folds: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Observing(Architecture):
    """Normalizes every layer by its batch and keeps what it saw, batch by batch."""

    seen: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def statistics(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's own mean and variance, which are kept."""
        moments = batch_moments(x)
        self.seen.setdefault(layer, []).append(moments)
        return moments

    @torch.no_grad()
    def observe(self, model: Supernet, images: Iterable[Tensor]) -> CalibratedArchitecture:
        """Go on with more batches; the architecture with its statistics on all of them so far."""
        batches = 0
        with evaluating(model):
            for batch in images:
                model(batch, self)
                batches += 1
        if not batches:
            raise CalibrationError("calibration needs at least one batch of images, found none")
        moments = {
            layer: (
                torch.stack([mean for mean, _ in pairs]).mean(0),
                torch.stack([var for _, var in pairs]).mean(0),
            )
            for layer, pairs in self.seen.items()
        }
        return CalibratedArchitecture(self.space, self.indices, moments)


def observing(arch: Architecture) -> Observing:
    """``arch`` with every BatchNorm normalizing by its batch, whether training or not."""
    return Observing(arch.space, arch.indices)


def calibrate(
    model: Supernet, arch: Architecture, images: Iterable[Tensor]
) -> CalibratedArchitecture:
    """Compute the BatchNorm statistics of ``arch`` on the given images.

    Args:
        model: The supernet.
        arch: The sub-network.
        images: Batches of normalized training images without augmentation, shape ``(N, C, H, W)``;
            a batch's statistics count equally.

    Returns:
        The architecture with its statistics: ``model(x, calibrated)`` evaluates it.

    Raises:
        CalibrationError: There are no images.
    """
    return observing(arch).observe(model, images)
