"""Samples of a batch that are mixed: mixup (Zhang et al., 2018) and cutmix (Yun et al., 2019).

Each sample is mixed with its neighbour in the shuffled batch, so that it comes out the same in
however many parts and on however many processes the batch is computed. How much of it stays is one
number of the step.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundnas.errors import TaskError
from boundnas.nested import leaves, mapped
from boundnas.randomness import stream
from boundnas.settings import TrainSettings
from boundnas.task import Task


@dataclass(frozen=True)
class Mixture:
    """How the samples of a step are mixed.

    Args:
        share: How much of each sample stays, 0 to 1.
        place: Where a part of the neighbour is put in, down and across, from 0 to 1; none adds the
            whole of it.
    """

    share: float
    place: tuple[float, float] | None = None

    def of(self, inputs: Any) -> tuple[Any, float]:
        """Mixed inputs, and how much of each sample is in them."""
        if self.place is None:
            return mapped(lambda x: x.lerp(neighbours(x), 1 - self.share), inputs), self.share
        return self._cut(inputs, *self.place)

    def _cut(self, images: Tensor, down: float, across: float) -> tuple[Tensor, float]:
        """Images with a rectangle of their neighbour's, in the images' own ratio of sides."""
        height, width = images.shape[2:]
        h, w = (round(side * math.sqrt(1 - self.share)) for side in (height, width))
        top, left = round(down * (height - h)), round(across * (width - w))
        box = (..., slice(top, top + h), slice(left, left + w))
        mixed = images.clone()
        mixed[box] = neighbours(images)[box]
        return mixed, 1 - h * w / (height * width)


def neighbours(batch: Tensor) -> Tensor:
    """The partner of every sample, or its target.

    Examples:
        >>> neighbours(torch.tensor([7, 8, 9, 10]))
        tensor([ 8,  7, 10,  9])
    """
    return batch[torch.arange(len(batch), device=batch.device) ^ 1]


def mixture(settings: TrainSettings, seed: int, step: int) -> Mixture | None:
    """How the samples of a step are mixed, if they are; of two ways each comes half of the time."""
    if settings.mixup is None and settings.cutmix is None:
        return None
    draw = random.Random(stream(seed, "mixing", step).initial_seed())
    coin = draw.random() < 0.5
    place = draw.random(), draw.random()
    if settings.mixup is not None and (settings.cutmix is None or coin):
        return Mixture(draw.betavariate(settings.mixup, settings.mixup))
    assert settings.cutmix is not None
    return Mixture(draw.betavariate(settings.cutmix, settings.cutmix), place)


def check_mixing(settings: TrainSettings, task: Task, example: Any) -> None:
    """Refuse to mix what has no meaning in between.

    Args:
        settings: Those of a training.
        task: What the networks are to do.
        example: One input.

    Raises:
        TaskError: Names the setting and the task, or the inputs.
    """
    asked = [name for name in ("mixup", "cutmix") if getattr(settings, name) is not None]
    if not asked:
        return
    name = f"train.{' and train.'.join(asked)}"
    if not task.mixes:
        raise TaskError(
            f"{name}: {type(task).__name__} does not say what two targets come to that are mixed; "
            "leave it out, or set mixes = True in a task of your own whose loss may be averaged "
            "over two targets of one output"
        )
    kinds = [(place, x) for place, x in leaves(example) if not x.is_floating_point()]
    if kinds:
        place, x = kinds[0]
        raise TaskError(
            f"{name}: inputs{' at ' + place if place else ''} are whole numbers ({x.dtype}), which "
            "nothing lies between; leave it out"
        )
    if settings.cutmix is not None and not (isinstance(example, Tensor) and example.dim() == 3):
        raise TaskError(
            "train.cutmix puts a part of one image into another, and inputs are no images of shape "
            "(channels, height, width); leave it out, or take train.mixup"
        )
