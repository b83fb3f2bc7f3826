"""Batches of 32x32 colour images, a row of 3,072 bytes each: CIFAR and downsampled ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boundnas.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
"""Bytes of an image: all of red, then of green, then of blue, each from left to right and down."""


def labelled_rows(
    record: Mapping[str, Any], labels_key: str, first_label: int, classes: int, where: str
) -> tuple[Tensor, Tensor]:
    """Images and labels of one published batch file.

    Args:
        record: What the file holds: ``"data"``, uint8 of shape ``(n, 3072)``, and labels as a list
            or an array of whole numbers.
        labels_key: Where the labels are.
        first_label: The label that counts as class 0.
        classes: Number of classes.
        where: How messages name the file.

    Returns:
        Images, uint8, shape ``(n, 3, 32, 32)``, and labels, int64, shape ``(n,)``.

    Raises:
        DataError: Something is missing, of another type, or does not fit.
    """
    missing = [key for key in ("data", labels_key) if key not in record]
    if missing:
        raise DataError(
            f"{where}: must hold 'data' and {labels_key!r}, found {_listed(record)}; it is another "
            "file than the one published under this name"
        )
    rows, given = record["data"], record[labels_key]
    if not _is_array(rows, "u") or rows.itemsize != 1 or rows.ndim != 2 or rows.shape[1] != PIXELS:
        raise DataError(f"{where}: 'data' must be bytes of shape (n, {PIXELS})")
    if isinstance(given, list) and all(type(label) is int for label in given):
        given = np.array(given, np.int64)
    if not _is_array(given, "iu") or given.shape != (len(rows),):
        raise DataError(f"{where}: {labels_key!r} must be {len(rows)} whole numbers, one an image")
    if len(rows) == 0:
        raise DataError(f"{where}: holds no images")
    labels = given.astype(np.int64) - first_label
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{where}: labels must lie in {first_label} to {first_label + classes - 1}, found "
            f"{given.min()} to {given.max()}"
        )
    # A copy, for the arrays of a pickle share memory that nobody may write to.
    images = torch.from_numpy(np.array(rows, order="C")).view(-1, *SHAPE)
    return images, torch.from_numpy(labels)


def _is_array(value: object, kinds: str) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in kinds


def _listed(record: Mapping[str, Any]) -> str:
    return ", ".join(repr(key[:40]) for key in list(record)[:5]) or "nothing"
