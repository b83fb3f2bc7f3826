"""A data set in words: for the log, for a shell, for the card of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from boundnas.data.names import escaped, some
from boundnas.data.source import ImageFiles, Source, whole

_LISTED = 20


def sizes(classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """Images of each class in each split; of many classes those of the fewest training images.

    Args:
        classes: Their names.
        counts: Images of each of them, by split.

    Examples:
        >>> sizes(("cat", "dog"), {"train": (7, 5), "test": (2, 1)})
        'of each class (train, test): cat 7, 2; dog 5, 1'
    """
    rows = list(zip(classes, *counts.values(), strict=True))
    if len(rows) > _LISTED:
        rows.sort(key=lambda row: row[1:])
    texts = [f"{escaped(name)} {', '.join(map(str, numbers))}" for name, *numbers in rows]
    return f"of each class ({', '.join(counts)}): {some(texts, '; ', _LISTED)}"


def augmentation(padding: int, flip: bool, smallest_crop: float | None) -> str:
    """What training images go through.

    Args:
        padding: Pixels that they are shifted by at most.
        flip: Whether they are mirrored.
        smallest_crop: Least share of the area of the part that is taken; none for all of it.

    Examples:
        >>> augmentation(padding=1, flip=False, smallest_crop=None)
        'at random shifted by up to 1 pixel'
    """
    parts = []
    if smallest_crop is not None:
        parts.append(f"cropped to {smallest_crop:.3g} of the area or more")
    if padding:
        parts.append(f"shifted by up to {padding} pixel{'s' * (padding > 1)}")
    if flip:
        parts.append("mirrored left to right")
    return f"at random {', '.join(parts)}" if parts else "as they are"


def preparation(source: Source) -> str | None:
    """What is done to an image file before its pixels are normalized; none of images in memory."""
    _, files = whole(source, torch.empty(0, dtype=torch.int64))
    return str(files.decoding) if isinstance(files, ImageFiles) else None
