"""A first look at a folder of images: how large they are, and whether they have colours."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boundnas.data.decoding import SUFFIXES
from boundnas.data.listing import passed_over
from boundnas.extras import require

SAMPLED = 256
"""So many images are looked at, spread over all of them."""

LEVELS = 2
"""Images lie in the folder of a class, which may lie in that of a split."""

_TINT = 8
"""Levels between the channels of a pixel that a grey image may have after a JPEG."""


@dataclass(frozen=True)
class Look:
    """What image files look like.

    Args:
        least: Smallest of the images' shorter sides, in pixels.
        side: Median of them.
        most: Largest of them.
        grey: Whether none of the images has a colour.
    """

    least: int
    side: int
    most: int
    grey: bool


def look(folder: Path) -> Look | None:
    """What some images of a folder look like; none where there are none that can be read.

    Faults are passed over here: whoever loads the images names them all.
    """
    require("reading image files", "PIL")
    found = []
    for place, inside, names in os.walk(folder):
        deeper = len(Path(place).relative_to(folder).parts) < LEVELS
        inside[:] = [name for name in inside if deeper and not passed_over(name)]
        images = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
        found += [Path(place, name) for name in images if not passed_over(name)]
    found.sort()
    some = found[:: max(1, len(found) // SAMPLED)]
    seen = [image for image in map(_seen, some) if image is not None]
    if not seen:
        return None
    sides = [side for side, _ in seen]
    return Look(min(sides), int(statistics.median(sides)), max(sides), all(g for _, g in seen))


def _seen(path: Path) -> tuple[int, bool] | None:
    """Shorter side of an image, and whether it is grey."""
    from PIL import Image, ImageOps  # an extra

    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with Image.open(path) as image:
            side = min(image.size)
            image.draft(None, (64, 64))
            pixels = np.asarray(ImageOps.contain(image.convert("RGB"), (64, 64)), np.int16)
    except Exception:  # Pillow's decoders raise whatever their format trips over
        return None
    return side, bool(np.ptp(pixels, axis=2).max() <= _TINT)
