"""A metric over all samples, tried on answers of the untrained model before anything is trained."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from boundnas.errors import BoundNASError, TaskError
from boundnas.fit.tried import called
from boundnas.randomness import stream
from boundnas.task import Task

NUMBERS = 1 << 22
"""So many numbers of answers are measured together."""

FEW = 256
"""Samples that are measured several times."""

GUESSES = 8
"""So many answers at random to all of them show whether a metric follows what is answered."""

_log = logging.getLogger(__name__)


def try_metric(
    task: Task, answers: Tensor, targets: Callable[[], Iterator[Tensor]], split: str
) -> None:
    """Measure answers over all targets of a split, then some of them again and in other batches.

    Args:
        task: It has a metric over all samples.
        answers: Of the untrained model, to some inputs; the targets take them in turn.
        targets: Gives those of the split, in parts.
        split: Its name, for messages.

    Raises:
        TaskError: The metric fails, is no finite number, is another one of the same answers, or
            depends on how samples come in batches.
        DataError: It is not defined on these targets.
    """
    together = max(16, NUMBERS // answers[0].numel())
    score = _measured(task, answers, (p for part in targets() for p in part.split(together)))
    task.checked_score(score, f"the untrained model on {split} data")
    few = next(targets())[: min(FEW, together)]
    try:
        _try_steady(task, answers, few)
        _tell_constant(task, answers, few, split)
    except _UndefinedError:
        return


class _UndefinedError(Exception):
    """The metric has no value on a part of the samples."""


def _measured(task: Task, answers: Tensor, targets: Iterable[Tensor]) -> float:
    """The metric of answers, taken in turn, to targets that come in batches."""
    first, meter = 0, task.meter()
    assert meter is not None
    for part in targets:
        taken = torch.arange(first, first + len(part), device=answers.device) % len(answers)
        # Copies, as a metric may change what it is given.
        called(
            f"{task.metric}.update", meter.update, answers[taken], part.clone().to(answers.device)
        )
        first += len(part)
    return float(called(f"{task.metric}.compute", meter.compute))


def _of_few(task: Task, answers: Tensor, targets: Iterable[Tensor]) -> float:
    try:
        score = _measured(task, answers, targets)
    except BoundNASError as error:
        raise _UndefinedError from error
    if not math.isfinite(score):
        raise _UndefinedError
    return score


def _try_steady(task: Task, answers: Tensor, few: Tensor) -> None:
    """Equal answers get an equal number, from whatever batches."""
    once, again = (_of_few(task, answers, [few]) for _ in range(2))
    if not _near(once, again):
        raise TaskError(
            f"{task.metric} of the same answers is {once:.4g} for one network and {again:.4g} for "
            "the next: it draws at random, or what it holds is shared by its copies; let __init__ "
            "or reset make what it holds"
        )
    pairs = min(6, (len(few) - 2) // 2)
    if pairs < 1:
        return
    parted = _of_few(task, answers, few.split([2] * pairs + [len(few) - 2 * pairs]))
    if not _near(once, parted):
        raise TaskError(
            f"{task.metric} of {len(few)} samples is {once:.4g} where they come in one batch and "
            f"{parted:.4g} in several: it would follow the batch size; let update add up and "
            "compute divide, or, where it is a mean over samples, give score in its place"
        )


def _tell_constant(task: Task, answers: Tensor, few: Tensor, split: str) -> None:
    """Warn of a metric that is one number whatever is answered."""
    generator = stream(0, "check_metric")
    noise = (
        torch.randn(answers.shape, generator=generator, dtype=torch.float32).to(answers)
        for _ in range(GUESSES)
    )
    found = {_of_few(task, guess, [few]) for guess in noise}
    if len(found) == 1 and len(few) >= len(answers):
        _log.warning(
            "%s of %s data is %.4g for each of %s guesses; see that it is a metric of these "
            "outputs and targets, for a sample %s and %s",
            task.metric, split, *found, GUESSES, *(tuple(x.shape[1:]) for x in (answers, few)),
        )  # fmt: skip


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 + 1e-3 * max(abs(a), abs(b))
