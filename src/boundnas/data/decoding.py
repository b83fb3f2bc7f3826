"""How an image file becomes a square of pixels; Pillow, which does it, is not needed to say so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from boundnas.errors import DataError

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""What the name of an image file ends in, in lower case."""

Fit = Literal["resize", "pad", "crop"]
Background = Literal["white", "black", "grey"]


@dataclass(frozen=True)
class Decoding:
    """How an image file becomes a square of pixels.

    Args:
        size: Height and width of the result, in pixels.
        channels: 3 for RGB or 1 for grey.
        fit: What is done to an image that is no square. ``"resize"`` changes the ratio of its
            sides, so that all of it is there; ``"pad"`` keeps the ratio and puts the background
            at two sides; ``"crop"`` takes the square in the middle, so that two sides are lost.
        background: What is put behind transparent parts, and at the sides by ``"pad"``.
        centre: Side of the square that ``"crop"`` takes as a share of the image's shorter side, in
            ``(0, 1]``.

    Raises:
        DataError: Something that cannot be.
    """

    size: int
    channels: int = 3
    fit: Fit = "resize"
    background: Background = "white"
    centre: float = 1.0

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 1:
            raise DataError(f"image_size must be at least 1 pixel, found {self.size!r}")
        if self.channels not in (1, 3):
            raise DataError(f"channels must be 1 (grey) or 3 (RGB), found {self.channels!r}")
        for name, allowed in (("fit", get_args(Fit)), ("background", get_args(Background))):
            if getattr(self, name) not in allowed:
                raise DataError(
                    f"{name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, found "
                    f"{getattr(self, name)!r}"
                )
        if not 0 < self.centre <= 1:
            raise DataError(f"centre must be above 0 and at most 1, found {self.centre!r}")

    def __str__(self) -> str:
        """What is done, in the words of a recipe."""
        turned = (
            f"turned as their EXIF orientation says, transparent parts laid over "
            f"{self.background}, made {'RGB' if self.channels == 3 else 'grey'}"
        )
        side = f"{self.size}x{self.size} pixels"
        share = "" if self.centre == 1 else f", {self.centre:.4g} of the shorter side wide,"
        fitted = {
            "resize": f"resized to {side} whatever the ratio of the sides",
            "pad": f"resized to fit into {side}, over {self.background} in the middle",
            "crop": f"the square in the middle{share} resized to {side}",
        }
        smaller = (
            f"a JPEG decoded at 1/8, 1/4 or 1/2 of its size where both sides keep {self.least}"
        )
        return f"{turned}, and {fitted[self.fit]} (bicubic, {smaller})"

    @property
    def least(self) -> int:
        """Pixels that sides keep where a JPEG is decoded at a part of its size."""
        return math.ceil(2 * self.size / self.centre)

    @property
    def mode(self) -> str:
        """Pillow's name of the colours."""
        return "RGB" if self.channels == 3 else "L"
