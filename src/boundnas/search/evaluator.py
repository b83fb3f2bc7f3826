"""What a sub-network is worth: recalibrated on training images, measured on a held-out split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from boundnas.cost import Cost, with_usual
from boundnas.data import Samples, Source, batches
from boundnas.data.handed import handed
from boundnas.data.tensors import are_classes
from boundnas.errors import CalibrationError, TaskError
from boundnas.guard.layout import takes_channels_last
from boundnas.nested import Inputs, leaves, mapped
from boundnas.randomness import stream
from boundnas.search.journal import Evaluation
from boundnas.search.screening import Sample
from boundnas.search.workers import Judged, Workers, number_of, side_by_side
from boundnas.settings import SearchSettings
from boundnas.space import Architecture
from boundnas.store.records import Metric
from boundnas.supernet import modes
from boundnas.supernet.calibrate import alike, calibrate
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task

T = TypeVar("T")
W = TypeVar("W")

BATCHES_AT_ONCE = 2
"""Images that are only classified come in larger batches than those that are averaged over."""

TOGETHER = 1 << 16
"""Entries of small inputs that pass together at most: of few a pass is calls, not arithmetic."""

ALIKE = 1e-4
"""By how much statistics of batches that pass together may differ, in deviations of a channel."""


class Evaluator:
    """Measures sub-networks of one trained supernet.

    Args:
        model: The supernet.
        data: Its images; calibration takes a fixed sample of the training split, and accuracy is
            that on the validation split.
        settings: How many calibration images, and the batch size.
        seed: Draws the calibration images.
        costs: Counted beside MACs and parameters.
        task: What networks are measured by.

    Raises:
        TaskError: The settings screen by a sample of the images, and the task's metric is no mean
            over samples: what it is on a sample that was drawn to tell networks apart is no
            estimate of what it is on all.
    """

    def __init__(
        self,
        model: Supernet,
        data: Samples,
        settings: SearchSettings,
        seed: int,
        costs: Iterable[Cost] = (),
        task: Task | None = None,
    ) -> None:
        self.task = task or Classification()
        self.metric = Metric.of(self.task)
        if settings.screen is not None and self.task.meter() is not None:
            raise TaskError(
                f"search.screen estimates a mean over samples, and {self.task.metric} is a metric "
                f"over all; leave screen out, or give {type(self.task).__name__} a score of each "
                "sample"
            )
        self.model, self.data, self.settings = model, data, settings
        self.batch_size = settings.batch_size
        self.costs = with_usual(model, costs)
        self.device = next(model.parameters()).device
        takes_channels_last(model)  # tried here, before candidates run side by side
        order = torch.randperm(len(data.train), generator=stream(seed, "calibration"))
        # Equal batches: a remainder, which may be of one image, is left out.
        count = min(settings.calibration_images, len(data.train))
        size = min(self.batch_size, count)
        order = order[: count - count % size]
        self._calibration = [images for images, _ in batches(data.train, order, size)]
        self._size = size
        self._several = TOGETHER // sum(x.numel() for _, x in leaves(model.example))
        self._joined: dict[int, list[Inputs]] = {}
        if self._several >= 2 * size and not self._pass_together():
            self._several = 0

    def __call__(self, arch: Architecture) -> Evaluation:
        """Costs of ``arch`` and its score on all validation images."""
        return self._evaluation(arch, self.judged(arch))

    def judged(self, arch: Architecture) -> Judged:
        """Its score on all validation images alone."""
        images = self.data.validation
        if self.task.meter() is None:
            return judged_by(self.validated(arch))
        score = self.score(self.calibrated(arch).carrying(folds=True), images)
        return Judged(score, len(images))

    @contextmanager
    def measuring(
        self, judge: Callable[[Architecture], Judged] | None = None
    ) -> Iterator[Callable[[Sequence[Architecture]], Iterator[Evaluation]]]:
        """Gives what measures architectures, in order; on the CPU several at a time.

        Args:
            judge: What they are worth; by default `judged`.
        """
        judge = judge or self.judged
        modes.evaluate(self.model)  # once for all: a worker would take it for another's
        if self.device.type != "cpu":
            yield lambda work: map(self._evaluation, work, map(judge, work))
            return
        with Workers(judge, self.model.space, number_of(self.settings)) as workers:
            yield lambda work: map(self._evaluation, work, workers(work))

    def each(self, measure: Callable[[W], T], work: Sequence[W]) -> Iterator[T]:
        """``measure`` of every piece of work, in order; on the CPU several at a time.

        Args:
            measure: One of this evaluator's methods, or a function that calls them.
            work: Architectures, or what ``measure`` takes.
        """
        modes.evaluate(self.model)
        several = self.device.type == "cpu"
        return side_by_side(measure, work) if several else map(measure, work)

    def screened(self, arch: Architecture, sample: Sample) -> Judged:
        """An estimate of the score of ``arch`` from a sample of the images.

        Statistics are recalibrated on the like part of the calibration images.
        """
        part = len(sample.images) / len(self.data.validation)
        calibrated = self.calibrated(arch, part)
        scores = self.scores(calibrated.carrying(folds=True), self.data.validation, sample.images)
        return Judged(sample.score(scores), len(scores))

    def _evaluation(self, arch: Architecture, judged: Judged) -> Evaluation:
        costs = {name: cost(arch) for name, cost in self.costs.items()}
        score = self.task.checked_score(judged.score, f"{arch.plain} on validation data")
        return Evaluation(arch.plain, costs, score, judged.images)

    def validated(self, arch: Architecture) -> Tensor:
        """The scores of what ``arch`` answers to each validation image."""
        order = torch.arange(len(self.data.validation))
        return self.scores(self.calibrated(arch).carrying(folds=True), self.data.validation, order)

    def calibrated(self, arch: Architecture, part: float = 1.0) -> Architecture:
        """``arch`` with its BatchNorm statistics on the calibration images, or a part of them."""
        images = self._together(math.ceil(part * len(self._calibration)))
        ready = (handed(self.model, self.data, x) for x in images)
        return calibrate(self.model, arch, ready, self._size)

    def _together(self, number: int) -> list[Inputs]:
        """So many calibration batches, as many of them in one as may pass together."""
        each = max(1, self._several // self._size)
        if each == 1:
            return self._calibration[:number]
        if number not in self._joined:
            parts = [self._calibration[i : min(i + each, number)] for i in range(0, number, each)]
            self._joined[number] = [mapped(_joined, *part) for part in parts]
        return self._joined[number]

    def _pass_together(self) -> bool:
        """Whether batches that pass together leave what each does by itself, tried on one network.

        They do not where a network puts another axis than that of the samples first.
        """
        arch = self.model.space.largest
        try:
            found = self.calibrated(arch).carried.statistics
            alone = (handed(self.model, self.data, x) for x in self._calibration)
            expected = calibrate(self.model, arch, alone).carried.statistics
        except CalibrationError:  # which the first candidate will tell of
            return False
        return alike(found, expected, ALIKE)

    def score(self, arch: Architecture, source: Source) -> float:
        """The task's metric of ``arch`` over all of ``source``; higher is better.

        Raises:
            TaskError: It is no finite number.
        """
        order, meter = torch.arange(len(source)), self.task.meter()
        if meter is None:
            score = _mean(self.scores(arch, source, order))
        else:
            for outputs, targets in self._answers(arch, source, order):
                meter.update(outputs, targets)
            score = float(meter.compute())
        return self.task.checked_score(score, f"{arch.plain}")

    def tested(self, arch: Architecture) -> tuple[float, tuple[float | None, ...]]:
        """The task's metric of ``arch`` over all test images, and over those of each class.

        Returns:
            The metric, and that of each class, none where it has no test images; of no class where
            targets are none, or the metric is no mean over images.

        Raises:
            TaskError: The metric is no finite number.
        """
        test = self.data.test
        if self.task.meter() is not None or self.data.classes is None:
            return self.score(arch, test), ()
        pairs = [
            (self.task.score(outputs, targets).cpu(), targets.cpu())
            for outputs, targets in self._answers(arch, test, torch.arange(len(test)))
        ]
        scores, labels = (torch.cat(part) for part in zip(*pairs, strict=True))
        score = self.task.checked_score(_mean(scores), f"{arch.plain}")
        if not are_classes(labels, len(self.data.classes)):
            return score, ()
        parts = [scores[labels == label] for label in range(len(self.data.classes))]
        return score, tuple(_mean(part) if len(part) else None for part in parts)

    def scores(self, arch: Architecture, source: Source, order: Tensor) -> Tensor:
        """The scores of the answers to what ``source`` has at the positions ``order``."""
        return torch.cat(
            [
                self.task.score(outputs, targets).cpu()
                for outputs, targets in self._answers(arch, source, order)
            ]
        )

    def _answers(
        self, arch: Architecture, source: Source, order: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What ``arch`` gives for a batch, and the targets, batch by batch."""
        modes.evaluate(self.model)
        size = max(BATCHES_AT_ONCE * self.batch_size, self._several)
        for images, labels in batches(source, order, size):
            with torch.no_grad():
                outputs = self.model(handed(self.model, self.data, images), arch)
            if isinstance(outputs, Tensor) and outputs.isnan().any():
                raise TaskError(
                    f"{arch.plain}: its outputs hold NaN, of which a score would be a number that "
                    "means nothing; look for NaN among validation and test inputs"
                )
            yield outputs, labels.to(self.device)


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def judged_by(scores: Tensor) -> Judged:
    """What an architecture is worth whose answers to all validation images are known.

    Args:
        scores: Those of its answers: its `Evaluator.validated`.
    """
    return Judged(_mean(scores), len(scores))


def _mean(scores: Tensor) -> float:
    return float(scores.double().sum()) / len(scores)
