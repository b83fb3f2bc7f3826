"""The 8x8 digits that come with scikit-learn."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from boundnas.data.image_data import ImageData, assemble
from boundnas.data.source import InMemory
from boundnas.data.split import fixed_test_split
from boundnas.extras import require
from boundnas.typed import checked


@checked
def digits(validation_fraction: float = 0.2, seed: int = 0) -> ImageData:
    """1,797 handwritten digits of 8x8 grey pixels: needs no download, trains in seconds.

    A fifth of each digit, the same for every seed, is the test set.

    Args:
        validation_fraction: Share of the other images for validation, in ``(0, 1)``.
        seed: Draws the validation set.

    Raises:
        DataError: ``validation_fraction`` out of range.

    Examples:
        >>> data = digits()
        >>> data.shape, len(data.train) + len(data.validation) + len(data.test)
        ((1, 8, 8), 1797)
    """
    require("the data set digits", "sklearn")
    images, labels = _read()
    rest, test = fixed_test_split(labels, 0.2)
    return assemble(
        "digits",
        InMemory(images[rest], labels[rest]),
        labels[rest],
        InMemory(images[test], labels[test]),
        tuple("0123456789"),
        validation_fraction=validation_fraction,
        seed=seed,
        padding=1,
        flip=False,
    )


@cache
def _read() -> tuple[Tensor, Tensor]:
    """All pixels and labels, read once: as a table of text, which takes most of `digits`."""
    from sklearn.datasets import load_digits  # Here because importing it takes most of a second.

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images)[:, None]
    images = (grey * (255 / 16)).round().to(torch.uint8)
    return images, torch.from_numpy(bunch.target).to(torch.int64)
