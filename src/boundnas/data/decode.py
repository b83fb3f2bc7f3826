"""Reading one image file with Pillow."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from boundnas.data.decoding import Decoding
from boundnas.data.names import escaped
from boundnas.errors import DataError

# Named, so that no other decoder of Pillow's is ever tried: EPS, for one, starts Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# Pillow's modes that become colours as they are meant; not L*a*b*, 32 bits or floats.
_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
)
_SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B"})

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by EXIF's number for its orientation."""

_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Too many open files, or no memory: no fault of the image, which is not left out for it."""

_WIDEST = 4 / 3
_FILTER = Image.Resampling.BICUBIC


def read_image(path: Path, decoding: Decoding) -> NDArray[np.uint8]:
    """An image as a square.

    EXIF orientation is applied, transparency is laid over the background, 16 bits are scaled to 8,
    and grey, palette and CMYK images are converted. Of an animation the first frame counts.

    Args:
        path: The file.
        decoding: What is wanted.

    Returns:
        uint8, shape ``(size, size, channels)``.

    Raises:
        DataError: The file cannot be read as an image, or not for certain as what it shows.
    """
    with _opened(path) as image:
        # A JPEG can be decoded at a half, quarter or eighth of its size; twice the size we want
        # leaves the filter below enough to work on.
        size, least = _upright_size(image), decoding.least
        image.draft(None, (least, least))
        return _pixels(_square(_upright(image, decoding), decoding, size))


def read_crop(path: Path, decoding: Decoding, smallest: float, draws: Tensor) -> NDArray[np.uint8]:
    """A random part of an image, resized: the augmentation of Inception and its successors.

    The part has ``smallest`` to 1 of the image's area, uniformly, and an aspect ratio from 3/4 to
    4/3, its logarithm uniformly; the first of ten tries that fits into the image is taken, or,
    where none does, the largest square in the middle.

    Args:
        path: The file.
        decoding: Size, channels and background of the result.
        smallest: Least share of the area, in ``(0, 1]``.
        draws: Uniform numbers in ``[0, 1)``, shape ``(10, 4)``.

    Returns:
        uint8, shape ``(size, size, channels)``. Equal draws give equal results.

    Raises:
        DataError: As `read_image`.
    """
    size = decoding.size
    with _opened(path) as image:
        width, height = _upright_size(image)
        left, top, right, bottom = crop_box(width, height, smallest, draws)
        needed = min(1.0, 2 * size / min(right - left, bottom - top))
        image.draft(None, (math.ceil(image.width * needed), math.ceil(image.height * needed)))
        colours = _upright(image, decoding)
        x, y = colours.width / width, colours.height / height
        box = (left * x, top * y, min(right * x, colours.width), min(bottom * y, colours.height))
        return _pixels(colours.resize((size, size), _FILTER, box))


def crop_box(
    width: int, height: int, smallest: float, draws: Tensor
) -> tuple[float, float, float, float]:
    """The part of an image that `read_crop` takes: left, top, right and bottom, in pixels."""
    for area, ratio, x, y in draws.tolist():
        pixels = (smallest + (1 - smallest) * area) * width * height
        aspect = _WIDEST ** (2 * ratio - 1)
        w, h = math.sqrt(pixels * aspect), math.sqrt(pixels / aspect)
        if w <= width and h <= height:
            left, top = x * (width - w), y * (height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def decoded_size(path: Path) -> tuple[int, int]:
    """Width and height of an image that can be read.

    All of it is decoded, a JPEG at the smallest scale there is: a file that is cut short has a
    whole header.

    Raises:
        DataError: As `read_image`.
    """
    with _opened(path) as image:
        size = _upright_size(image)
        image.draft(None, (1, 1))
        _upright(image, Decoding(1))
        return size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no regular file" if path.exists() else "it is not there")
        with Image.open(path, formats=_FORMATS) as image:
            if (doubt := _doubt(image)) is not None:
                raise ValueError(f"{doubt}; convert it to 8 bits a channel, grey or RGB")
            _scale_transparency(image)  # before anything loads it, as a look at EXIF does
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"{escaped(path)}: is none of {', '.join(_FORMATS)}") from error
    except MemoryError as error:
        raise MemoryError(f"{escaped(path)} cannot be decoded") from error
    except Exception as error:  # Pillow's decoders raise whatever their format trips over.
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        raise DataError(
            f"{escaped(path)}: cannot be read as an image: {str(error) or type(error).__name__}"
        ) from error


def _doubt(image: Image.Image) -> str | None:
    """Why the pixels that Pillow gives may not be those of the image; none where they are."""
    # The numbers of a portable map are scaled to 16 bits whatever they are.
    if image.mode not in _MODES | _SIXTEEN_BITS and (image.mode, image.format) != ("I", "PPM"):
        return f"its pixels are stored as Pillow's mode {image.mode}"
    if image.format == "TIFF":
        return _doubt_of_tiff(image)
    if _raw_mode(image) == "RGB;16B" and "transparency" in image.info:
        return "it has a transparent colour of 16 bits a channel"
    return None


def _raw_mode(image: Image.Image) -> str:
    """How the pixels stand in the file, in Pillow's words."""
    tiles = getattr(image, "tile", ())
    return str(tiles[0].args) if tiles else ""


def _doubt_of_tiff(image: Image.Image) -> str | None:
    tags = image.tag_v2  # type: ignore[attr-defined]
    if set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) != {1}:
        return "its numbers are signed"
    if image.mode in _SIXTEEN_BITS:
        # Pillow gives such numbers as they stand, neither scaled nor inverted.
        (bits,) = tags[TiffImagePlugin.BITSPERSAMPLE]
        if bits != 16:
            return f"it has {bits} bits a channel"
        if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
            return "it is a negative of 16 bits, in which 0 is white"
    return None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as the image is to be looked at, before it is decoded."""
    # Pillow turns a TIFF itself, and gives its size as turned.
    turned = image.format != "TIFF" and _orientation(image) >= 5
    return (image.height, image.width) if turned else image.size


def _orientation(image: Image.Image) -> int:
    """How the image is to be turned, by EXIF's number; 1, not at all, where that is not said."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF, of which Pillow raises whatever it trips over, says nothing
        return 1
    return found if found in _TURNS else 1


def _upright(image: Image.Image, decoding: Decoding) -> Image.Image:
    """As it is to be looked at, in the colours wanted."""
    image.load()  # which turns a TIFF
    turn = _TURNS.get(_orientation(image))
    colours = _eight_bits(image if turn is None else image.transpose(turn))
    if colours.has_transparency_data:
        behind = Image.new("RGBA", colours.size, decoding.background)
        colours = Image.alpha_composite(behind, colours.convert("RGBA"))
    return colours.convert(decoding.mode)


def _scale_transparency(image: Image.Image) -> None:
    """Give the transparent grey of a PNG of 2 or 4 bits as its pixels are given, in 8 bits."""
    scale = {"L;2": 85, "L;4": 17}.get(_raw_mode(image))
    if image.format == "PNG" and scale is not None and "transparency" in image.info:
        image.info["transparency"] *= scale


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as round(grey / 257), so that 65535 becomes 255; others as they are.

    Pillow would clip it at 255, which leaves most of such an image white.
    """
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image).astype(np.uint32)
    scaled = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        opaque = np.where(grey == transparent, 0, 255).astype(np.uint8)
        scaled.putalpha(Image.fromarray(opaque))
    return scaled


def _square(colours: Image.Image, decoding: Decoding, whole: tuple[int, int]) -> Image.Image:
    """See ``Decoding.fit``; ``whole`` is the size of the image, which may be decoded smaller."""
    size, square = decoding.size, (decoding.size, decoding.size)
    if decoding.fit == "crop":
        return ImageOps.fit(colours, square, _FILTER, bleed=(1 - decoding.centre) / 2)
    if decoding.fit == "resize":
        return colours.resize(square, _FILTER)
    # At least a pixel: a line of 1,000 x 1 would vanish.
    width, height = (max(1, round(side * size / max(whole))) for side in whole)
    padded = Image.new(colours.mode, square, decoding.background)
    place = ((size - width) // 2, (size - height) // 2)
    padded.paste(colours.resize((width, height), _FILTER), place)
    return padded


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).reshape(image.height, image.width, -1)
