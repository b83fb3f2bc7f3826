"""The memory layout that images are handed to a model in.

Convolutions and normalizations are quickest in channels-last layout, and the compiled kernels take
no other. It changes no value, but a ``forward`` may say ``view`` where only the usual layout has
one; such a model gets the usual one.
"""

from __future__ import annotations

from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from boundnas.guard.state import untouched
from boundnas.nested import Inputs, leaves, mapped
from boundnas.supernet import modes
from boundnas.supernet.inputs import zeros
from boundnas.supernet.supernet import Supernet


def laid_out(model: Supernet, inputs: Inputs) -> Inputs:
    """A batch with its images in the layout that serves the model best.

    The first call runs the smallest network on zeros to see which one it takes.

    Args:
        model: Takes the batch.
        inputs: Like its ``example``, with the batch axis first.

    Returns:
        The same values. Tensors that are no images, of floating point and four axes, as they are.
    """
    if not any(map(_is_image, (x for _, x in leaves(inputs)))):
        return inputs
    return mapped(partial(_in_layout, channels_last=takes_channels_last(model)), inputs)


def takes_channels_last(model: Supernet) -> bool:
    """Whether a model takes images in channels-last layout, as tried at the first call."""
    if model not in _TAKES:
        _TAKES[model] = _tried(model)
    return _TAKES[model]


_TAKES: WeakKeyDictionary[Supernet, bool] = WeakKeyDictionary()
"""What was found; no attribute of the model, as those say what it is."""


def _tried(model: Supernet) -> bool:
    device = next(model.parameters()).device
    batch = mapped(partial(_in_layout, channels_last=True), zeros(model, 2))
    with untouched(model, device), modes.training(model), torch.no_grad():
        try:
            model(batch, model.space.smallest)
        except RuntimeError:  # of a view; whatever else is wrong fails in the other layout too
            return False
    return True


def _is_image(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_floating_point()


def _in_layout(x: Tensor, channels_last: bool) -> Tensor:
    if not _is_image(x):
        return x
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = x.contiguous(memory_format=layout)
    # An axis of one entry may have any stride, and convolutions read the layout off the strides.
    _, channels, height, width = x.shape
    pixel, channel = (channels, 1) if channels_last else (1, height * width)
    return x.as_strided(x.shape, (channels * height * width, channel, width * pixel, pixel))
