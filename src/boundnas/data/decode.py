"""Reading one image file with Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from boundnas.errors import DataError

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""What the name of an image file ends in, in lower case."""

# Named, so that no other decoder of Pillow's is ever tried: EPS, for one, starts Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def read_image(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """The square in the middle of an image, its shorter side resized to ``size``.

    EXIF orientation is applied, transparency is laid over white, and grey, palette and CMYK images
    are converted. Of an animation the first frame counts.

    Args:
        path: The file.
        size: Height and width of the result, in pixels.
        channels: 3 for RGB or 1 for grey.

    Returns:
        uint8, shape ``(size, size, channels)``.

    Raises:
        DataError: The file cannot be read as an image of 8 bits a channel.
    """
    with _opened(path) as image:
        # A JPEG can be decoded at a half, quarter or eighth of its size; twice the size we want
        # leaves the filter below enough to work on.
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        colours = _over_white(image).convert("RGB" if channels == 3 else "L")
        square = ImageOps.fit(colours, (size, size), Image.Resampling.BICUBIC)
        return np.asarray(square).reshape(size, size, channels)


def fault(path: Path) -> str | None:
    """Why a file is no image we can read, judged by its header; none when it seems fine."""
    try:
        with _opened(path):
            return None
    except DataError as error:
        return str(error)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            # Pillow would clip these to 255, which leaves most of a 16-bit image white.
            if image.mode.startswith(("I", "F")):
                raise ValueError(
                    f"it has more than 8 bits a channel (Pillow's mode {image.mode}); "
                    "convert it to 8 bits"
                )
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is none of {', '.join(_FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise whatever their format trips over.
        raise DataError(
            f"{path}: cannot be read as an image: {str(error) or type(error).__name__}"
        ) from error


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
