"""Reading one image file with Pillow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from boundnas.data.names import escaped
from boundnas.errors import DataError

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""What the name of an image file ends in, in lower case."""

# Named, so that no other decoder of Pillow's is ever tried: EPS, for one, starts Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_SMALLEST_AREA = 0.08
_WIDEST = 4 / 3


def read_image(path: Path, size: int, channels: int, centre: float = 1.0) -> NDArray[np.uint8]:
    """The square in the middle of an image, resized.

    EXIF orientation is applied, transparency is laid over white, and grey, palette and CMYK images
    are converted. Of an animation the first frame counts.

    Args:
        path: The file.
        size: Height and width of the result, in pixels.
        channels: 3 for RGB or 1 for grey.
        centre: Side of the square as a share of the image's shorter side, in ``(0, 1]``.

    Returns:
        uint8, shape ``(size, size, channels)``.

    Raises:
        DataError: The file cannot be read as an image of 8 bits a channel.
    """
    with _opened(path) as image:
        # A JPEG can be decoded at a half, quarter or eighth of its size; twice the size we want
        # leaves the filter below enough to work on.
        draft = math.ceil(2 * size / centre)
        image.draft(None, (draft, draft))
        colours = _upright(image, channels)
        square = ImageOps.fit(
            colours, (size, size), Image.Resampling.BICUBIC, bleed=(1 - centre) / 2
        )
        return np.asarray(square).reshape(size, size, channels)


def read_crop(path: Path, size: int, channels: int, draws: Tensor) -> NDArray[np.uint8]:
    """A random part of an image, resized: the augmentation of Inception and its successors.

    The part has 8 to 100 % of the image's area, uniformly, and an aspect ratio from 3/4 to 4/3, its
    logarithm uniformly; the first of ten tries that fits into the image is taken, or, where none
    does, the largest square in the middle.

    Args:
        path: The file.
        size: Height and width of the result, in pixels.
        channels: 3 for RGB or 1 for grey.
        draws: Uniform numbers in ``[0, 1)``, shape ``(10, 4)``.

    Returns:
        uint8, shape ``(size, size, channels)``. Equal draws give equal results.

    Raises:
        DataError: As `read_image`.
    """
    with _opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        width, height = reversed(image.size) if turned else image.size
        left, top, right, bottom = crop_box(width, height, draws)
        needed = min(1.0, 2 * size / min(right - left, bottom - top))
        image.draft(None, (math.ceil(image.width * needed), math.ceil(image.height * needed)))
        colours = _upright(image, channels)
        x, y = colours.width / width, colours.height / height
        box = (left * x, top * y, min(right * x, colours.width), min(bottom * y, colours.height))
        crop = colours.resize((size, size), Image.Resampling.BICUBIC, box)
        return np.asarray(crop).reshape(size, size, channels)


def crop_box(width: int, height: int, draws: Tensor) -> tuple[float, float, float, float]:
    """The part of an image that `read_crop` takes: left, top, right and bottom, in pixels."""
    for area, ratio, x, y in draws.tolist():
        pixels = (_SMALLEST_AREA + (1 - _SMALLEST_AREA) * area) * width * height
        aspect = _WIDEST ** (2 * ratio - 1)
        w, h = math.sqrt(pixels * aspect), math.sqrt(pixels / aspect)
        if w <= width and h <= height:
            left, top = x * (width - w), y * (height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def fault(path: Path) -> str | None:
    """Why a file is no image we can read; none when it is one.

    All of it is decoded, a JPEG at the smallest scale there is: a file that is cut short has a
    whole header.
    """
    try:
        with _opened(path) as image:
            image.draft(None, (1, 1))
            _upright(image, channels=3)
            return None
    except DataError as error:
        return str(error)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no regular file" if path.exists() else "it is not there")
        with Image.open(path, formats=_FORMATS) as image:
            # Pillow would clip these to 255, which leaves most of a 16-bit image white.
            if image.mode.startswith(("I", "F")):
                raise ValueError(
                    f"it has more than 8 bits a channel (Pillow's mode {image.mode}); "
                    "convert it to 8 bits"
                )
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"{escaped(path)}: is none of {', '.join(_FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise whatever their format trips over.
        raise DataError(
            f"{escaped(path)}: cannot be read as an image: {str(error) or type(error).__name__}"
        ) from error


def _upright(image: Image.Image, channels: int) -> Image.Image:
    """As it is to be looked at, in the colours wanted."""
    ImageOps.exif_transpose(image, in_place=True)
    return _over_white(image).convert("RGB" if channels == 3 else "L")


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
