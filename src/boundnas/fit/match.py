"""Whether a model and images belong together, before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from boundnas.data import ImageData
from boundnas.data.image_data import SPLITS
from boundnas.data.source import labels_of
from boundnas.errors import DataError, TrainingError
from boundnas.supernet.calibrate import observing
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task

CHECKED = 65_536
"""So many targets are looked at together."""


def check_model(model: Supernet) -> None:
    """Refuse a model whose weights cannot be trained.

    Raises:
        TrainingError: No parameters, all of them frozen, or on several devices, on none, or of
            another type than float32; or gradients are switched off.
    """
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


def check_match(model: Supernet, data: ImageData, task: Task) -> None:
    """Refuse images that are not what the model was built for, or targets that do not fit.

    The shape decides the costs, the exported file's input and its card; the classes decide what
    an output means.

    Raises:
        DataError: Another shape than ``model.input_shape``, another number of outputs than there
            are classes, classes without a training image, or what the task's ``check`` refuses.
    """
    if tuple(model.input_shape) != tuple(data.shape):
        raise DataError(
            f"the model was built for images of shape {_shape(model.input_shape)} (channels, "
            f"height, width), those of {data.name} have {_shape(data.shape)}: costs and exported "
            "files would be of another size; build the model with input_shape=data.shape, or "
            f"resize the images{_likely(model.input_shape, data.shape)}"
        )
    outputs, classes = _outputs(model), len(data.classes)
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if isinstance(task, Classification) and found != (2, classes):
        raise DataError(
            f"{data.name} has {classes} classes, so that the model must give {classes} numbers an "
            f"image; for two images it gives {found}; build its last layer for {classes} classes"
        )
    for split in SPLITS:
        for targets in labels_of(getattr(data, split)).split(CHECKED):
            answers = outputs[:1].expand(len(targets), *outputs.shape[1:])
            task.check(answers, targets, f"{data.name}: {split}")
    if data.untrained:
        raise DataError(
            f"{data.name} has no training image of {len(data.untrained)} of its {classes} "
            f"classes: {', '.join(data.untrained[:20])}; add images, or leave these classes out"
        )


@torch.no_grad()
def _outputs(model: Supernet) -> Any:
    """What the largest network gives for two images."""
    images = next(model.parameters()).new_zeros(2, *model.input_shape)
    with evaluating(model):
        return model(images, observing(model.space.largest))


def _shape(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _likely(model: tuple[int, int, int], data: tuple[int, int, int]) -> str:
    turned = sorted(model) == sorted(data)
    return " (its channels may stand last)" if turned else ""
