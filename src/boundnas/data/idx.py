"""The idx files of the MNIST family."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from boundnas.errors import DataError
from boundnas.store.files import reading

_LARGEST = 1 << 28
"""Bytes a file may hold; Fashion-MNIST's largest holds 47 million."""

_GZIP = b"\x1f\x8b"
_UINT8 = 0x08


def read_idx(path: Path, item: tuple[int, ...]) -> Tensor:
    """The array in an idx file of unsigned bytes, gzipped or not.

    The header is checked before anything is read that it announces, and memory grows only with
    the bytes that are there.

    Args:
        path: The file.
        item: Shape of one item: ``(28, 28)`` for images, ``()`` for labels.

    Returns:
        uint8, shape ``(n, *item)``.

    Raises:
        DataError: The file cannot be read, is not idx, holds other items, or is too short or long.
    """
    try:
        with reading(path, None, error=DataError) as raw:
            zipped = raw.read(2) == _GZIP
            raw.seek(0)
            if not zipped:
                return _parse(raw, path, item)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _parse(unzipped, path, item)
    except EOFError as error:
        raise DataError(f"{path}: the gzip file is cut short; fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _parse(file: BinaryIO | gzip.GzipFile, path: Path, item: tuple[int, ...]) -> Tensor:
    shape = _shape(_read(file, 4 * (2 + len(item))), path, item)
    size = math.prod(shape)
    data = _read(file, size)
    if len(data) < size or file.read(1):
        found = f"only {len(data)}" if len(data) < size else "more"
        raise DataError(
            f"{path}: the header announces {size} bytes of shape {shape}, found {found}; "
            "fetch the file again"
        )
    return torch.frombuffer(data, dtype=torch.uint8).view(shape)


def _shape(header: bytearray, path: Path, item: tuple[int, ...]) -> tuple[int, ...]:
    magic = bytes([0, 0, _UINT8, 1 + len(item)])
    if header[:4] != magic:
        raise DataError(
            f"{path}: not an idx file of unsigned bytes in {1 + len(item)} dimensions: it must "
            f"start with {magic.hex(' ')}, found {header[:4].hex(' ') or 'nothing'}"
        )
    if len(header) < 4 * (2 + len(item)):
        raise DataError(f"{path}: ends within the header, after {len(header)} bytes")
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(4, len(header), 4))
    if shape[1:] != item or not 1 <= shape[0] <= _LARGEST // math.prod(item):
        expected = ", ".join(["n", *map(str, item)])
        raise DataError(
            f"{path}: must hold an array of shape ({expected}) with n from 1 to "
            f"{_LARGEST // math.prod(item)}, the header says {shape}"
        )
    return shape


def _read(file: BinaryIO | gzip.GzipFile, size: int) -> bytearray:
    """The next ``size`` bytes, or fewer where the file ends."""
    data = bytearray()
    while piece := file.read(min(size - len(data), 1 << 20)):
        data += piece
    return data
