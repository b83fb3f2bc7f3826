"""What a sub-network is worth: recalibrated on training images, measured on a held-out split."""

from __future__ import annotations

import torch
from torch import Tensor

from boundnas.calibrate import CalibratedArchitecture, calibrate
from boundnas.cost import MACs, Parameters
from boundnas.data import ImageData, Source, batches, normalize
from boundnas.randomness import stream
from boundnas.search.journal import Evaluation
from boundnas.settings import SearchSettings
from boundnas.space import Architecture
from boundnas.supernet import Supernet


class Evaluator:
    """Measures sub-networks of one trained supernet.

    Args:
        model: The supernet.
        data: Its images; calibration takes a fixed sample of the training split.
        settings: How many calibration images, and the batch size.
        seed: Draws the calibration images.
    """

    def __init__(
        self, model: Supernet, data: ImageData, settings: SearchSettings, seed: int
    ) -> None:
        self.model, self.data, self.batch_size = model, data, settings.batch_size
        self.macs, self.parameters = MACs(model), Parameters(model)
        self.device = next(model.parameters()).device
        order = torch.randperm(len(data.train), generator=stream(seed, "calibration"))
        # Equal batches, as every batch's statistics count equally.
        count = min(settings.calibration_images, len(data.train))
        size = min(self.batch_size, count)
        order = order[: count - count % size]
        self._calibration = [images for images, _ in batches(data.train, order, size)]

    def calibrated(self, arch: Architecture) -> CalibratedArchitecture:
        """``arch`` with its BatchNorm statistics on the calibration images."""
        return calibrate(self.model, arch, map(self._prepared, self._calibration))

    @torch.no_grad()
    def accuracy(self, arch: CalibratedArchitecture, source: Source) -> float:
        """Part of the images of ``source`` that ``arch`` classifies correctly, 0 to 1."""
        model = self.model.eval()
        correct = 0
        for images, labels in batches(source, torch.arange(len(source)), self.batch_size):
            predicted = model(self._prepared(images), arch).argmax(-1)
            correct += int((predicted == labels.to(self.device)).sum())
        return correct / len(source)

    def __call__(self, arch: Architecture) -> Evaluation:
        """Costs and validation accuracy of ``arch``."""
        accuracy = self.accuracy(self.calibrated(arch), self.data.validation)
        return Evaluation(arch.plain, self.macs(arch), self.parameters(arch), accuracy)

    def _prepared(self, images: Tensor) -> Tensor:
        return normalize(images.to(self.device), self.data.mean, self.data.std)
