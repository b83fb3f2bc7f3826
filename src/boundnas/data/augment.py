"""Batched augmentation and normalization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(
    images: Tensor,
    generator: torch.Generator,
    padding: int,
    flip: bool,
    batch: int | None = None,
    part: slice = slice(None),
) -> Tensor:
    """Random crops of the zero-padded images, some of them mirrored left to right.

    Every image gets its own offset, uniform over the ``(2 * padding + 1)**2`` possible, and its own
    fair coin for the mirror. Pure in (images, generator state).

    Args:
        images: uint8, shape ``(n, C, H, W)``.
        generator: A CPU generator.
        padding: Zero pixels added on each side before the crop; 0 for none.
        flip: Whether images may be mirrored.
        batch: Number of images of the whole batch, where ``images`` are a part of one.
        part: Which part. An image comes out the same however many parts a batch has.

    Returns:
        uint8, shape ``(n, C, H, W)``, on the images' device.
    """
    n, channels, height, width = images.shape
    batch = n if batch is None else batch
    offsets = torch.randint(2 * padding + 1, (batch, 2), generator=generator)[part]
    rows = offsets[:, :1] + torch.arange(height)
    columns = torch.arange(width).expand(n, width)
    if flip:
        mirrored = torch.rand(batch, 1, generator=generator, dtype=torch.float32)[part] < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    columns = offsets[:, 1:] + columns
    # One gather does crop and mirror; indexing with (rows, columns) takes 2 to 5 times as long.
    padded = F.pad(images, (padding, padding, padding, padding))
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    pixels = pixels.view(n, 1, height * width).expand(-1, channels, -1).to(images.device)
    return padded.flatten(2).gather(2, pixels).view(n, channels, height, width)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images as a network wants them: mean 0 and standard deviation 1 over the training set.

    Args:
        images: uint8, shape ``(n, C, H, W)``.
        mean: One number per channel, in units where white is 1.
        std: Likewise.

    Returns:
        ``(images / 255 - mean) / std``, float32, contiguous in the channels-last memory format.

    Examples:
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> normalize(images, mean=[0.5], std=[0.25]).flatten()
        tensor([-2.,  2.])
    """
    centre = torch.tensor(mean, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
    values = images.to(torch.float32, memory_format=torch.channels_last)
    return values.div_(255).sub_(centre).div_(scale)
