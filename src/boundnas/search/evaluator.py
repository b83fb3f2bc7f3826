"""What a sub-network is worth: recalibrated on training images, measured on a held-out split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

import torch
from torch import Tensor

from boundnas.calibrate import CalibratedArchitecture, calibrate, observing
from boundnas.cost import MACs, Parameters
from boundnas.data import ImageData, Source, batches, normalize
from boundnas.randomness import stream
from boundnas.search.journal import Evaluation
from boundnas.settings import SearchSettings
from boundnas.space import Architecture
from boundnas.supernet import Supernet

LOOKS = (1 / 16, 1 / 4)
"""Parts of the calibration and validation images after which a network may be given up."""


class Evaluator:
    """Measures sub-networks of one trained supernet.

    Args:
        model: The supernet.
        data: Its images; calibration takes a fixed sample of the training split, and validation
            images come in a fixed random order.
        settings: How many calibration images, the batch size, and when to give up.
        seed: Draws the calibration images and the order.
        cost: What accuracy is traded for: ``"macs"`` or ``"parameters"``.
    """

    def __init__(
        self,
        model: Supernet,
        data: ImageData,
        settings: SearchSettings,
        seed: int,
        cost: str = "macs",
    ) -> None:
        self.model, self.data, self.batch_size = model, data, settings.batch_size
        self.macs, self.parameters = MACs(model), Parameters(model)
        self.give_up, self.cost = settings.give_up, attrgetter(cost)
        self.device = next(model.parameters()).device
        order = torch.randperm(len(data.train), generator=stream(seed, "calibration"))
        # Equal batches, as every batch's statistics count equally.
        count = min(settings.calibration_images, len(data.train))
        size = min(self.batch_size, count)
        order = order[: count - count % size]
        self._calibration = [images for images, _ in batches(data.train, order, size)]
        generator = stream(seed, "validation")
        self._validation = torch.randperm(len(data.validation), generator=generator)
        self._correct: dict[Architecture, Tensor] = {}

    def __call__(self, arch: Architecture, front: Sequence[Evaluation] = ()) -> Evaluation:
        """Costs and validation accuracy of ``arch``.

        Args:
            arch: The architecture.
            front: Evaluations on all images that no other dominates, in ascending cost. With
                ``settings.give_up`` an architecture is given up after a part of the images where
                one that costs no more classifies clearly more of them correctly.
        """
        found = Evaluation(arch.plain, self.macs(arch), self.parameters(arch), math.nan, 0)
        rivals = [e for e in front if self.cost(e) <= self.cost(found)]
        looks = (*LOOKS, 1.0) if rivals and self.give_up is not None else (1.0,)
        observer, seen = observing(arch), 0
        for look in looks:
            upto = math.ceil(look * len(self._calibration))
            if upto > seen:
                batch = map(self._prepared, self._calibration[seen:upto])
                calibrated, seen = observer.observe(self.model, batch), upto
            images = math.ceil(look * len(self._validation))
            correct = self.correct(calibrated, self.data.validation, self._validation[:images])
            if look < 1 and self._trails(correct, rivals[-1]):
                break
        else:
            self._correct[found.architecture] = correct
        return replace(found, accuracy=int(correct.sum()) / images, images=images)

    def calibrated(self, arch: Architecture) -> CalibratedArchitecture:
        """``arch`` with its BatchNorm statistics on the calibration images."""
        return calibrate(self.model, arch, map(self._prepared, self._calibration))

    def accuracy(self, arch: CalibratedArchitecture, source: Source) -> float:
        """Part of the images of ``source`` that ``arch`` classifies correctly, 0 to 1."""
        return int(self.correct(arch, source, torch.arange(len(source))).sum()) / len(source)

    @torch.no_grad()
    def correct(self, arch: CalibratedArchitecture, source: Source, order: Tensor) -> Tensor:
        """Which images of ``source`` at the positions ``order`` are classified correctly."""
        model = self.model.eval()
        return torch.cat(
            [
                model(self._prepared(images), arch).argmax(-1).cpu() == labels
                for images, labels in batches(source, order, self.batch_size)
            ]
        )

    def _trails(self, correct: Tensor, rival: Evaluation) -> bool:
        """Whether the rival leads on the same images by over ``give_up`` standard errors."""
        if rival.architecture not in self._correct:  # measured before this search was interrupted
            calibrated = self.calibrated(rival.architecture)
            self._correct[rival.architecture] = self.correct(
                calibrated, self.data.validation, self._validation
            )
        rivals = self._correct[rival.architecture][: len(correct)]
        lead = rivals.double() - correct.double()  # image by image: they err on the same ones
        assert self.give_up is not None
        return bool(lead.mean() > self.give_up * lead.std() / math.sqrt(len(lead)))

    def _prepared(self, images: Tensor) -> Tensor:
        return normalize(images.to(self.device), self.data.mean, self.data.std)
