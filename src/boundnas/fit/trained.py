"""A start from trained weights: a start that keeps them, and what becomes of the largest network.

The teacher of a step is the max network, and only the largest one is trained already. So the
boundaries start nearer to the ends of the space here, where the paper's start draws nearly any
network; and steps are smaller, as few of the size that new weights need would lose what these
know. In the end the largest network is compared with how it came, on validation data.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from boundnas.data import Samples, batches
from boundnas.data.handed import handed
from boundnas.engine.ranks import rank
from boundnas.errors import CalibrationError
from boundnas.randomness import stream
from boundnas.settings import TrainSettings
from boundnas.space import Architecture
from boundnas.store.records import LargestRecord, Metric
from boundnas.supernet.calibrate import calibrate
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.task import Task

GENTLE = {"learning_rate": 0.01, "start_std": 0.5}
"""Defaults where weights are trained already: a tenth of the step size of new ones, and a start at
which the max policy draws the largest option with a probability of about 0.84 (docs/training)."""

IMAGES, BATCH = 2048, 128
"""So many training samples statistics are taken from, in batches of so many."""

_log = logging.getLogger(__name__)


def is_trained(model: Supernet, asked: bool | None) -> bool:
    """Whether a supernet is to start from the weights that it has.

    Args:
        model: One that was made of a network, by `boundnas.elasticize`, does by default.
        asked: What the user says.
    """
    return asked if asked is not None else original(model) is not None


def original(model: Supernet) -> Architecture | None:
    """The largest architecture with the statistics that its weights came with, if it has them."""
    found = getattr(model, "original", None)
    return found if isinstance(found, Architecture) else None


def gentle(settings: TrainSettings, with_sgd: bool = True) -> TrainSettings:
    """Settings with what is `GENTLE` where nothing else was asked for.

    Args:
        settings: As they were asked for.
        with_sgd: Whether they say the step size; an optimizer of one's own has its own.
    """
    update = {k: v for k, v in GENTLE.items() if k not in settings.model_fields_set}
    if not with_sgd:
        update.pop("learning_rate", None)
    return settings.model_copy(update=update)


@dataclass
class Trained:
    """What the largest network is worth on validation data, before and after a training.

    Args:
        model: The supernet, with the weights that it came with.
        data: What it is trained and measured on.
        task: What it is measured by.
        seed: Draws the samples that statistics are taken from.
        before: As it came, with the statistics that it came with or such of training samples,
            whichever is better.
        after: At the end.
    """

    model: Supernet
    data: Samples
    task: Task
    seed: int
    before: float | None = None
    after: float | None = None

    def begin(self, known: float | None) -> None:
        """Measure the largest network as it came, unless a checkpoint knows."""
        self.before = known
        if known is not None:
            return
        # Statistics of its own may lag behind its weights; what new ones give is no gain of ours.
        self.before = self._score(self._calibrated())
        with suppress(CalibrationError):  # where its weights were changed since
            if (came := original(self.model)) is not None:
                self.before = max(self.before, self._score(came))

    def end(self) -> LargestRecord:
        """Measure it again, and say which is better."""
        assert self.before is not None
        self.after = self._score(self._calibrated())
        found = LargestRecord(metric=Metric.of(self.task), before=self.before, after=self.after)
        if rank() == 0:
            tell = _log.warning if found.worse else _log.info
            tell("%s%s", found.said, _ADVICE * found.worse)
        return found

    @torch.no_grad()
    def _score(self, arch: Architecture) -> float:
        """The task's metric on validation data."""
        device, meter = next(self.model.parameters()).device, self.task.meter()
        order, found = torch.arange(len(self.data.validation)), list[Tensor]()
        with evaluating(self.model):
            for inputs, targets in batches(self.data.validation, order, BATCH):
                outputs = self.model(handed(self.model, self.data, inputs), arch)
                targets = targets.to(device)
                if meter is not None:
                    meter.update(outputs, targets)
                else:
                    found.append(self.task.score(outputs, targets).cpu().double())
        score = float(torch.cat(found).mean()) if meter is None else float(meter.compute())
        return self.task.checked_score(score, "the largest network on validation data")

    def _calibrated(self) -> Architecture:
        """The largest network with statistics of training samples, in equal batches."""
        train = self.data.train
        order = torch.randperm(len(train), generator=stream(self.seed, "calibration"))[:IMAGES]
        size = min(BATCH, len(order))
        order = order[: len(order) - len(order) % size]
        inputs = (handed(self.model, self.data, x) for x, _ in batches(train, order, size))
        return calibrate(self.model, self.model.space.largest, inputs)


_ADVICE = (
    "; train longer, lower train.learning_rate, or keep the network that you came with as the "
    "largest one"
)
