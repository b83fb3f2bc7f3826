"""Images, labels and positions as users bring them: taken as they are meant, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boundnas.errors import DataError

Given = Tensor | NDArray | Sequence[int]
"""Numbers as a tensor, an array of numpy, or a list."""

_COLOURS = (1, 3, 4)


def as_images(given: Tensor | NDArray) -> Tensor:
    """Images as uint8 of shape ``(n, channels, height, width)``.

    Raises:
        DataError: Anything else, with what it looks like and how to make images of it.
    """
    images = _tensor("images", given)
    if images.dtype != torch.uint8:
        advice = _towards_bytes(images)
    elif images.ndim == 3:
        advice = "of grey images, add the channel: images[:, None]"
    elif images.ndim != 4:
        advice = "its number of dimensions is another"
    elif 0 in images.shape[1:]:
        advice = "an image has no pixels"
    elif _channels_last(images.shape):
        advice = "the channels come last; pass images.permute(0, 3, 1, 2)"
    else:
        return images
    raise DataError(
        "images must be uint8 of shape (n, channels, height, width), found "
        f"{describe(images)}: {advice}"
    )


def as_labels(given: Given, count: int) -> Tensor:
    """Class numbers as int64 of shape ``(count,)``; other whole numbers are converted.

    Raises:
        DataError: Another type, shape or count, or a negative label.
    """
    labels = _tensor("labels", given)
    if _inexact(labels):
        advice = "class numbers are whole numbers; if these are, pass labels.long()"
        if labels.ndim == 2 and labels.shape[1] > 1:
            advice = "these may be one-hot or scores; pass labels.argmax(1)"
    elif labels.ndim == 2 and labels.shape[1] == 1:
        advice = "pass labels.flatten()"
    elif labels.ndim == 2:
        advice = "one class an image is needed; if these are one-hot, pass labels.argmax(1)"
    elif labels.shape != (count,):
        advice = f"there are {count} images"
    else:
        labels = labels.to(torch.int64)
        if count and int(labels.min()) < 0:
            raise DataError(f"labels must be 0 or more, found {int(labels.min())}")
        return labels
    raise DataError(
        f"labels must be int64 of shape ({count},), one for each image, found "
        f"{describe(labels)}: {advice}"
    )


def as_positions(given: Given, length: int) -> Tensor:
    """Positions of ``length`` images as int64 of shape ``(n,)``.

    Raises:
        DataError: Another type or shape, or a position outside.
    """
    indices = _tensor("indices", given)
    if not len(indices) and indices.ndim == 1:
        return indices.to(torch.int64)
    if _inexact(indices) or indices.ndim != 1:
        truths = indices.dtype == torch.bool and indices.ndim == 1
        advice = "; of truths, pass indices.nonzero()[:, 0]" if truths else ""
        raise DataError(f"indices must be int64 of shape (n,), found {describe(indices)}{advice}")
    indices = indices.to(torch.int64)
    first, last = indices.aminmax()
    if first < 0 or last >= length:
        raise DataError(f"indices must lie in 0 to {length - 1}, found {int(first)} to {int(last)}")
    return indices


def are_classes(targets: Tensor, number: int) -> bool:
    """Whether targets are one class number each, of so many classes.

    Examples:
        >>> are_classes(torch.tensor([0, 2, 1]), 3), are_classes(torch.eye(3), 3)
        (True, False)
    """
    whole = targets.ndim == 1 and not _inexact(targets)
    return whole and bool(((targets >= 0) & (targets < number)).all())


def describe(tensor: Tensor) -> str:
    """Type and shape of a tensor, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _tensor(what: str, given: object) -> Tensor:
    try:
        if not isinstance(given, Tensor | np.ndarray) and what == "images":
            raise TypeError(f"found a {type(given).__name__}; join them by torch.stack(...)")
        if not isinstance(given, Tensor):
            array = np.ascontiguousarray(given) if np.ndim(given) else np.asarray(given)  # type: ignore[arg-type]
            # PyTorch cannot take what may not be written to, such as a mapped file.
            given = torch.from_numpy(array if array.flags.writeable else array.copy())
        if given.device.type != "cpu" or given.layout != torch.strided or given.is_quantized:
            raise TypeError(f"found one on {given.device} with layout {given.layout}")
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{what} must be a dense tensor on the CPU or a numpy array of numbers: {error}"
        ) from error
    return given


def _inexact(numbers: Tensor) -> bool:
    kind = numbers.dtype
    return kind.is_floating_point or kind.is_complex or kind == torch.bool


def _towards_bytes(images: Tensor) -> str:
    if not images.numel() or not images.dtype.is_floating_point:
        return "if its numbers are brightness from 0 to 255, pass images.to(torch.uint8)"
    if not bool(images.isfinite().all()):
        return "not all of its numbers are finite"
    low, high = (float(bound) for bound in images.aminmax())
    if low < 0:
        return (
            f"its numbers reach from {low:.4g} to {high:.4g}; images are normalized here, so pass "
            "their brightness from 0 to 255"
        )
    whole = "(images * 255).round()" if high <= 1 else "images.round()"
    return f"its numbers reach from {low:.4g} to {high:.4g}; pass {whole}.to(torch.uint8)"


def _channels_last(shape: Sequence[int]) -> bool:
    _, first, height, last = shape
    return last in _COLOURS and first not in (1, 3) and (first > 4 or first == height)
