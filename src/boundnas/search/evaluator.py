"""What a sub-network is worth: recalibrated on training images, measured on a held-out split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from boundnas.cost import Cost, with_usual
from boundnas.data import ImageData, Source, batches, normalize
from boundnas.randomness import stream
from boundnas.search.journal import Evaluation
from boundnas.search.screening import Sample
from boundnas.search.workers import side_by_side
from boundnas.settings import SearchSettings
from boundnas.space import Architecture
from boundnas.supernet import modes
from boundnas.supernet.calibrate import CalibratedArchitecture, Folding, calibrate
from boundnas.supernet.supernet import Supernet

T = TypeVar("T")
W = TypeVar("W")

BATCHES_AT_ONCE = 2
"""Images that are only classified come in larger batches than those that are averaged over."""


class Evaluator:
    """Measures sub-networks of one trained supernet.

    Args:
        model: The supernet.
        data: Its images; calibration takes a fixed sample of the training split, and accuracy is
            that on the validation split.
        settings: How many calibration images, and the batch size.
        seed: Draws the calibration images.
        cost: Counted beside MACs and parameters, if it is another.
    """

    def __init__(
        self,
        model: Supernet,
        data: ImageData,
        settings: SearchSettings,
        seed: int,
        cost: Cost | None = None,
    ) -> None:
        self.model, self.data, self.batch_size = model, data, settings.batch_size
        self.costs = with_usual(model, cost)
        self.device = next(model.parameters()).device
        order = torch.randperm(len(data.train), generator=stream(seed, "calibration"))
        # Equal batches: a remainder, which may be of one image, is left out.
        count = min(settings.calibration_images, len(data.train))
        size = min(self.batch_size, count)
        order = order[: count - count % size]
        self._calibration = [images for images, _ in batches(data.train, order, size)]

    def __call__(self, arch: Architecture) -> Evaluation:
        """Costs of ``arch`` and its accuracy on all validation images."""
        return self.answered(arch, self.validated(arch))

    def answered(self, arch: Architecture, correct: Tensor) -> Evaluation:
        """Likewise, of an architecture whose answers to all validation images are known.

        Args:
            arch: The architecture.
            correct: Which images it classifies correctly: its `validated`.
        """
        return self._evaluation(arch, int(correct.sum()) / len(correct), len(correct))

    def each(self, measure: Callable[[W], T], work: Sequence[W]) -> Iterator[T]:
        """``measure`` of every piece of work, in order; on the CPU several at a time.

        Args:
            measure: This evaluator, one of its methods, or a function that calls them.
            work: Architectures, or what ``measure`` takes.
        """
        modes.evaluate(self.model)  # once for all: a worker would take it for another's
        several = self.device.type == "cpu"
        return side_by_side(measure, work) if several else map(measure, work)

    def screened(self, arch: Architecture, sample: Sample) -> Evaluation:
        """Costs of ``arch`` and an estimate of its accuracy from a sample of the images.

        Statistics are recalibrated on the like part of the calibration images.
        """
        part = len(sample.images) / len(self.data.validation)
        calibrated = self.calibrated(arch, part)
        correct = self.correct(_folding(calibrated), self.data.validation, sample.images)
        return self._evaluation(arch, sample.accuracy(correct), len(correct))

    def _evaluation(self, arch: Architecture, accuracy: float, images: int) -> Evaluation:
        costs = {name: cost(arch) for name, cost in self.costs.items()}
        return Evaluation(arch.plain, costs, accuracy, images)

    def validated(self, arch: Architecture) -> Tensor:
        """Which validation images ``arch`` classifies correctly."""
        order = torch.arange(len(self.data.validation))
        return self.correct(_folding(self.calibrated(arch)), self.data.validation, order)

    def calibrated(self, arch: Architecture, part: float = 1.0) -> CalibratedArchitecture:
        """``arch`` with its BatchNorm statistics on the calibration images, or a part of them."""
        images = self._calibration[: math.ceil(part * len(self._calibration))]
        return calibrate(self.model, arch, map(self._prepared, images))

    def accuracy(self, arch: CalibratedArchitecture, source: Source) -> float:
        """Part of the images of ``source`` that ``arch`` classifies correctly, 0 to 1."""
        return int(self.correct(arch, source, torch.arange(len(source))).sum()) / len(source)

    @torch.no_grad()
    def correct(self, arch: CalibratedArchitecture, source: Source, order: Tensor) -> Tensor:
        """Which images of ``source`` at the positions ``order`` are classified correctly."""
        modes.evaluate(self.model)
        return torch.cat(
            [
                self.model(self._prepared(images), arch).argmax(-1).cpu() == labels
                for images, labels in batches(source, order, BATCHES_AT_ONCE * self.batch_size)
            ]
        )

    def _prepared(self, images: Tensor) -> Tensor:
        return normalize(images.to(self.device), self.data.mean, self.data.std)


def _folding(arch: CalibratedArchitecture) -> Folding:
    return Folding(arch.space, arch.indices, arch.moments)
