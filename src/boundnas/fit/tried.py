"""The functions of a task, tried on noise before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from boundnas.errors import BoundNASError, TaskError
from boundnas.randomness import stream
from boundnas.supernet.place import first_line
from boundnas.task import Task

NEAR = 1e-4
"""Part of a number by which another may differ and be the same, of rounding."""


def try_functions(task: Task, outputs: Tensor, targets: Tensor) -> None:
    """Call the functions of a task on noise, and look at what they give.

    Args:
        task: It.
        outputs: Of the model, for some samples.
        targets: Some.

    Raises:
        TaskError: One fails, or gives something else than a `Task` says: no scalar, no number for
            each sample, a sum over the samples, or numbers of samples that follow their neighbours.
    """
    targets = targets.to(outputs.device)
    _try_shapes(task, *_noise(outputs, 2, len(targets)), targets[:2])
    few = _telling(targets, 3 if 3 not in outputs.shape[1:] else 4)
    student, teacher = _noise(outputs, len(few), len(few))
    _try_pairs(task, student, few)
    _try_means(task, student, teacher, few)
    if task.meter() is None:
        _try_alone(task, student.detach(), few)


def fits(task: Task, targets: Iterable[Tensor]) -> Task:
    """A task that says what it is measured by, with what it takes from the training targets.

    Raises:
        TaskError: It does not, or its ``fitted`` gives none.
    """
    found: object = task.fitted(targets)
    if not isinstance(found, Task):
        raise TaskError(
            f"{type(task).__name__}.fitted must give a Task, such as itself, found "
            f"{_described(found)}"
        )
    for name, example in (("metric", "accuracy"), ("unit", "mm"), ("output", "one logit a class")):
        text = getattr(found, name, None)
        if not isinstance(text, str) or (name == "metric" and not text.strip()):
            raise TaskError(
                f"{type(task).__name__}.{name} must be a text, such as {example!r}, found {text!r}"
            )
    scale = found.scale
    if type(scale) not in (int, float) or not math.isfinite(scale) or not scale:
        raise TaskError(
            f"{type(task).__name__}.scale must be what a score is multiplied by where it is shown, "
            f"as 100.0 for per cent or -1.0 for an error, found {scale!r}"
        )
    return found


def _noise(outputs: Tensor, number: int, there: int) -> tuple[Tensor, Tensor]:
    """What a student and its teacher might give for so many samples, of which so many are there."""
    shape, generator = (min(number, there), *outputs.shape[1:]), stream(0, "check_task")
    student, teacher = (
        torch.randn(shape, generator=generator, dtype=torch.float32)
        .to(outputs.device)
        .requires_grad_()
        for _ in range(2)
    )
    return student, teacher


def _telling(targets: Tensor, number: int) -> Tensor:
    """Some targets, the last of which differs from the others, if any does."""
    differ = (targets != targets[:1]).reshape(len(targets), -1).any(1).nonzero().flatten().tolist()
    return (
        torch.cat([targets[: number - 1], targets[differ[0] : differ[0] + 1]])
        if differ
        else (targets[:number])
    )


def _try_shapes(task: Task, student: Tensor, teacher: Tensor, given: Tensor) -> None:
    shape, name = tuple(student.shape), type(task).__name__
    loss = called(f"{name}.loss", task.loss, student, given)
    distance = called(f"{name}.distance", task.distance, student, teacher)
    for part, found in (("loss", loss), ("distance", distance)):
        if not isinstance(found, Tensor) or found.dim() or not found.requires_grad:
            raise TaskError(
                f"{name}.{part} must give a scalar that gradients flow back from, the mean over "
                f"the samples; for outputs {shape} it gives {_described(found)}"
            )
    if torch.autograd.grad(distance, teacher, allow_unused=True)[0] is not None:
        raise TaskError(
            f"{name}.distance teaches the teacher too: a gradient flows into it; use "
            "teacher.detach()"
        )
    if called(f"{name}.meter", task.meter) is None:
        scores = called(f"{name}.score", task.score, student.detach(), given)
        if not isinstance(scores, Tensor) or scores.shape != (len(given),):
            raise TaskError(
                f"{name}.score must give one number for each sample, shape ({len(given)},); for "
                f"outputs {shape} it gives {_described(scores)}"
            )


def _try_pairs(task: Task, student: Tensor, given: Tensor) -> None:
    """Each output against its own target: ``(N, 1)`` and ``(N,)`` make pairs of all."""
    try:
        pairs = torch.broadcast_shapes(student.shape, given.shape).numel()
    except RuntimeError:
        return
    if pairs <= max(student.numel(), given.numel()):
        return
    student = student.detach()
    if student.numel() == given.numel():  # close to the targets, so that no other target fits
        student = given.reshape(student.shape) + 0.01 * student
    loss = _number(task.loss(student, given))
    if _near(loss, _number(task.loss(student, given.roll(1, 0)))) and not _near(
        loss, _number(task.loss(student, given[:1].expand_as(given)))
    ):
        name = type(task).__name__
        raise TaskError(
            f"{name}.loss is the same whichever sample a target belongs to: outputs "
            f"{_shape(student)} and targets {_shape(given)} are broadcast to all pairs of samples; "
            "bring them to one shape, as outputs[:, 0]"
        )


def _try_means(task: Task, student: Tensor, teacher: Tensor, given: Tensor) -> None:
    """A sum over the batch would count for more in a larger one, and on fewer processes."""
    for part, function, others in (
        ("loss", task.loss, given),
        ("distance", task.distance, teacher.detach()),
    ):
        once = _number(function(student, others))
        twice = _number(function(torch.cat([student] * 2), torch.cat([others] * 2)))
        if _near(2 * once, twice) and not _near(once, twice):
            raise TaskError(
                f"{type(task).__name__}.{part} is a sum over the samples: twice the samples give "
                f"{twice:.4g} in place of {once:.4g}; take the mean over them"
            )


def _try_alone(task: Task, student: Tensor, given: Tensor) -> None:
    """A score of a sample is the same whatever samples are beside it."""
    name, scores = type(task).__name__, task.score(student, given)
    for i in range(len(given)):
        alone = called(f"{name}.score", task.score, student[i : i + 1], given[i : i + 1])
        if not isinstance(alone, Tensor) or alone.shape != (1,):
            raise TaskError(
                f"{name}.score must give one number for each sample, also of a single one: shape "
                f"(1,); for outputs {tuple(student[:1].shape)} it gives {_described(alone)}"
            )
        if not _near(_number(alone), _number(scores[i])):
            raise TaskError(
                f"{name}.score of a sample is {_number(scores[i]):.4g} beside others and "
                f"{_number(alone):.4g} alone; a score follows from the sample's own output and "
                "target, compared in one shape"
            )


def _number(found: Tensor) -> float:
    return float(found.detach())


def _near(a: float, b: float) -> bool:
    return a == b or abs(a - b) <= NEAR * max(abs(a), abs(b)) or (a != a and b != b)


def _shape(x: Tensor) -> str:
    """With ``N`` for the number of samples, as (N, 1) or (N,)."""
    return f"({', '.join(['N', *map(str, x.shape[1:])])}{',' * (x.dim() == 1)})"


def called(name: str, function: Callable[..., object], *given: Tensor) -> Any:
    """What a function of a task gives.

    Raises:
        TaskError: It fails; says on what.
    """
    try:
        return function(*given)
    except (BoundNASError, MemoryError):
        raise
    except Exception as error:  # whatever a user's function may raise
        shapes = " and ".join(_described(each) for each in given)
        on = f" on {shapes}" if given else ""
        raise TaskError(f"{name} fails{on}: {first_line(error)}") from error


def _described(found: object) -> str:
    if not isinstance(found, Tensor):
        return f"a {type(found).__name__}"
    return f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
