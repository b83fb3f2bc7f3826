"""Whether a model and images belong together, before anything is trained."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor

from boundnas.data import ImageData, Samples
from boundnas.data.handed import handed
from boundnas.data.image_data import SPLITS
from boundnas.errors import DataError, TrainingError
from boundnas.fit.metric import try_metric
from boundnas.fit.tried import fits, try_functions
from boundnas.guard.state import check_made
from boundnas.nested import described
from boundnas.supernet.calibrate import Seen
from boundnas.supernet.inputs import zeros
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task
from boundnas.tasks.segmentation import Segmentation

_TRIED = 16
"""So many samples are answered before training, to try a metric over all."""

_log = logging.getLogger(__name__)


def check_model(model: Supernet) -> None:
    """Refuse a model whose weights cannot be trained.

    Raises:
        TrainingError: No parameters, all of them frozen, or on several devices, on none, or of
            another type than float32; or gradients are switched off.
        SpaceError: A module is lazy.
    """
    check_made(model)
    parameters = list(model.parameters())
    if not parameters:
        raise TrainingError("the model has no parameters to train")
    if not any(p.requires_grad for p in parameters):
        raise TrainingError(
            "all of the model's parameters are frozen (requires_grad is False), so that nothing "
            "would be trained; call requires_grad_() on what is to learn"
        )
    if not torch.is_grad_enabled() or any(p.is_inference() for p in parameters):
        raise TrainingError(
            "training needs gradients, and they are switched off: build and train the model "
            "outside torch.no_grad() and torch.inference_mode()"
        )
    devices = sorted({str(p.device) for p in parameters})
    if len(devices) > 1 or devices == ["meta"]:
        raise TrainingError(
            f"the model's weights must be on one device that holds them, found "
            f"{' and '.join(devices)}; call model.to(...) before training"
        )
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in parameters})
    if kinds != ["float32"]:
        raise TrainingError(
            f"the model's weights are {' and '.join(kinds)}; images come as float32, and policies, "
            "statistics and exported files are checked for it alone: call model.float()"
        )


def check_match(model: Supernet, data: Samples, task: Task) -> None:
    """Refuse images that are not what the model was built for, or targets that do not fit.

    The shape decides the costs, the exported file's input and its card; the classes decide what
    an output means.

    Raises:
        DataError: Another shape than ``model.input_shape``, another number of outputs than there
            are classes, classes without a training image, or what the task's ``check`` refuses.
    """
    _check_inputs(model, data)
    outputs = _outputs(model)
    if isinstance(task, Classification):
        _check_classes(data, outputs)
    for split in SPLITS:
        for targets in data.targets(split):
            task.check(_answers(outputs, targets), targets, f"{data.name}: {split}")
    if isinstance(task, Classification):
        _check_trained(data, outputs.shape[1])
    if isinstance(task, Segmentation):
        _check_trained(data, outputs.shape[1], task.ignore)


def _check_inputs(model: Supernet, data: Samples) -> None:
    built, found = (described(given.example) for given in (model, data))
    if built == found:
        return
    if isinstance(data, ImageData):
        raise DataError(
            f"the model was built for images of shape {_shape(model.input_shape)} (channels, "
            f"height, width), those of {data.name} have {_shape(data.shape)}: costs and exported "
            "files would be of another size; build the model with input_shape=data.shape, or "
            f"resize the images{_likely(model.input_shape, data.shape)}"
        )
    raise DataError(
        f"the model was built for inputs of {built}, those of {data.name} are {found}; build it "
        "with data.example, or let a transform bring the inputs to this form"
    )


def _check_classes(data: Samples, outputs: Any) -> None:
    """Refuse outputs that are not one number for each class that has a name."""
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    classes = None if data.classes is None else len(data.classes)
    if classes is not None and found != (2, classes):
        raise DataError(
            f"{data.name} has {classes} classes, so that the model must give {classes} numbers an "
            f"image; for two images it gives {found}; build its last layer for {classes} classes"
        )


def _check_trained(data: Samples, classes: int, ignore: int | None = None) -> None:
    """Refuse classes that nothing is trained on, but targets that count nowhere.

    Of maps, whose classes often outnumber those of a few images, only where no more classes are
    left than are missing, as in masks of 0 and 255; else they are told.
    """
    counts, ignored = torch.zeros(classes, dtype=torch.int64), False
    for targets in data.targets("train"):
        counted = targets.flatten() if ignore is None else targets[targets != ignore]
        ignored = ignored or len(counted) < targets.numel()
        counts += counted.bincount(minlength=classes)
    names = data.classes or tuple(map(str, range(classes)))
    untrained = [name for name, n in zip(names, counts.tolist(), strict=True) if not n]
    if not untrained:
        return
    missing = (
        f"{data.name} has no training {'image' if ignore is None else 'place'} of "
        f"{len(untrained)} of its {classes} classes: {', '.join(untrained[:20])}"
    )
    if ignore is not None and 2 * len(untrained) < classes:
        _log.warning("%s; networks will not know them", missing)
        return
    hint = f"; {ignore} counts nowhere, give class numbers (Segmentation(ignore=...))"
    raise DataError(f"{missing}; add images, or leave these classes out{hint if ignored else ''}")


def fitted(task: Task, data: Samples, model: Supernet) -> Task:
    """A task with what it takes from training targets, once it was seen to work on all targets.

    Args:
        task: As the user gave it.
        data: Its targets fit the task and the model, by `check_match`.
        model: The supernet.

    Raises:
        TaskError: Its loss, distance or score is not what a `Task` says.
        DataError: Its metric is not defined on validation or test data.
    """
    outputs, task = _outputs(model), fits(task, data.targets("train"))
    try_functions(task, outputs, next(data.targets("train")))
    for split in SPLITS[1:]:
        if task.meter() is None:
            continue
        try:
            try_metric(task, _tried_answers(model, data), partial(data.targets, split), split)
        except DataError as error:
            raise DataError(f"{data.name}: {split}: {error}") from error
    return task


def _answers(outputs: Tensor, targets: Tensor) -> Tensor:
    """As many answers as there are targets, all the same."""
    return outputs[:1].expand(len(targets), *outputs.shape[1:])


@torch.no_grad()
def _tried_answers(model: Supernet, data: Samples) -> Tensor:
    """What the largest network gives for some validation inputs, which differ from one another."""
    inputs, _ = data.validation.take(torch.arange(_TRIED) % len(data.validation))
    ready = handed(model, data, inputs)
    with evaluating(model):
        answers: Tensor = model(ready, model.space.largest.carrying(statistics=Seen()))
    return answers


@torch.no_grad()
def _outputs(model: Supernet) -> Any:
    """What the largest network gives for two images."""
    images = zeros(model, 2)
    with evaluating(model):
        return model(images, model.space.largest.carrying(statistics=Seen()))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _likely(model: tuple[int, ...], data: tuple[int, ...]) -> str:
    turned = sorted(model) == sorted(data)
    return " (its channels may stand last)" if turned else ""
