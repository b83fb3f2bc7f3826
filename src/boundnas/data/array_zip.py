"""Reads the arrays of numbers in numpy's npz files."""

from __future__ import annotations

import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from boundnas.data.array_pickle import NUMBERS
from boundnas.errors import DataError
from boundnas.store.files import reading

LARGEST = 1 << 30
"""Bytes an array may have; those of downsampled ImageNet have 394 million."""

_LONGEST_HEADER = 10_000

# What numpy writes there. It reads the text as Python, of which this is all that is needed.
_HEADER = re.compile(
    r"\{'descr': '(?P<order>[<>|=])(?P<number>\w\d)', 'fortran_order': (?P<columns>True|False), "
    r"'shape': \((?P<shape>(?:[0-9]{1,18}L?(?:, ?|(?=\)))){0,8})\),? ?\}\s*"
)


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray]:
    """Some arrays of an npz file, compressed or not.

    Memory grows with the bytes that are there, not with what they announce.

    Args:
        path: The file.
        names: The arrays wanted; others are not looked at.

    Raises:
        DataError: The file is damaged, an array is missing, or one holds anything but numbers.
    """
    try:
        with reading(path, None, error=DataError) as held, zipfile.ZipFile(held) as archive:
            there = archive.namelist()
            missing = [name for name in names if f"{name}.npy" not in there]
            if missing:
                raise ValueError(f"it holds no array {' and no '.join(missing)}")
            arrays = {}
            for name in names:
                with archive.open(f"{name}.npy") as file:
                    arrays[name] = _read_npy(file)
            return arrays
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:  # which a damaged LZMA header can ask for, too
        raise DataError(
            f"{path}: there is no memory to unpack it; free some, or, where there is enough, it is "
            "damaged: fetch it again from its official page"
        ) from error
    # Zipfile raises whatever the file trips over.
    except (ValueError, TypeError, LookupError, EOFError, RuntimeError, OverflowError,
            struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:  # fmt: skip
        raise DataError(
            f"{path}: is damaged or no npz file of number arrays ({error}); fetch it again from "
            "its official page"
        ) from error


def _read_npy(file: IO[bytes]) -> NDArray:
    shape, dtype, columns = _header(file)
    size = math.prod(shape) * dtype.itemsize
    if size > LARGEST:
        raise ValueError(f"an array has {size:,} bytes, more than {LARGEST:,}")
    data = bytearray()
    while piece := file.read(min(size - len(data), 1 << 20)):
        data += piece
    if len(data) < size or file.read(1):
        raise ValueError(f"an array of shape {shape} and type {dtype} has not its {size:,} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if columns else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type and whether columns come first."""
    magic = file.read(8)
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(magic)
    if width is None:
        raise ValueError("an array does not begin as npy files do")
    length = int.from_bytes(file.read(width), "little")
    text = file.read(min(length, _LONGEST_HEADER)).decode("latin-1")
    found = _HEADER.fullmatch(text)
    if found is None or found["number"] not in NUMBERS:
        raise ValueError(f"an array is none of numbers; its header says {text.strip()[:80]!r}")
    shape = tuple(int(n) for n in re.findall("[0-9]+", found["shape"]))
    return shape, np.dtype(found["order"] + found["number"]), found["columns"] == "True"
