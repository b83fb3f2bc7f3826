"""CIFAR-10 and CIFAR-100, read from their published archives."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from boundnas.data.array_pickle import read_pickle
from boundnas.data.image_data import ImageData, assemble
from boundnas.data.rows import PIXELS, labelled_rows
from boundnas.data.source import InMemory
from boundnas.errors import DataError
from boundnas.store.files import read_bytes, reading
from boundnas.typed import checked

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
"""Where both sets are published."""

_LARGEST = 1 << 28
"""Bytes a file may have; CIFAR-100's training images have 155 million."""


@dataclass(frozen=True)
class _Version:
    """One of the forms a set is published in.

    Args:
        archive: Name of the archive.
        unpacked: The folder that unpacking it makes.
        train: Files of training images.
        test: File of test images.
        names: File of class names.
    """

    archive: str
    unpacked: str
    train: tuple[str, ...]
    test: str
    names: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.names)


@dataclass(frozen=True)
class _Cifar:
    """What tells the two sets apart.

    Args:
        title: What it is called in messages.
        name: For logs and reports.
        classes: Number of classes.
        labels_key: The labels in the Python version.
        names_key: The class names in the Python version.
        label_bytes: Bytes before an image in the binary version; the last is the label.
        python: The Python version.
        binary: The binary version.
    """

    title: str
    name: str
    classes: int
    labels_key: str
    names_key: str
    label_bytes: int
    python: _Version
    binary: _Version


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_CIFAR10 = _Cifar(
    "CIFAR-10", "cifar10", 10, "labels", "label_names", 1,
    _Version(
        "cifar-10-python.tar.gz", "cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta",
    ),
    _Version(
        "cifar-10-binary.tar.gz", "cifar-10-batches-bin", tuple(f"{b}.bin" for b in _BATCHES),
        "test_batch.bin", "batches.meta.txt",
    ),
)  # fmt: skip
_CIFAR100 = _Cifar(
    "CIFAR-100", "cifar100", 100, "fine_labels", "fine_label_names", 2,
    _Version("cifar-100-python.tar.gz", "cifar-100-python", ("train",), "test", "meta"),
    _Version(
        "cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), "test.bin",
        "fine_label_names.txt",
    ),
)  # fmt: skip


@checked
def cifar10(folder: Path | str, validation_fraction: float = 0.1, seed: int = 0) -> ImageData:
    """50,000 training and 10,000 test images of ten classes, 32x32 colour pixels.

    Args:
        folder: Where the archive is, the Python or the binary version, as published or unpacked.
        validation_fraction: Share of the training images for validation, in ``(0, 1)``.
        seed: Draws the validation set.

    Raises:
        DataError: A file is missing or damaged, or ``validation_fraction`` is out of range.
    """
    return _load(_CIFAR10, Path(folder), validation_fraction, seed)


@checked
def cifar100(folder: Path | str, validation_fraction: float = 0.1, seed: int = 0) -> ImageData:
    """50,000 training and 10,000 test images of a hundred (fine) classes; see `cifar10`."""
    return _load(_CIFAR100, Path(folder), validation_fraction, seed)


def _load(cifar: _Cifar, folder: Path, validation_fraction: float, seed: int) -> ImageData:
    version, place, files = _find(cifar, folder)
    binary = version is cifar.binary
    read = _read_binary if binary else _read_python
    train = _joined([read(cifar, files[n], f"{place}: {n}") for n in version.train])
    test = read(cifar, files[version.test], f"{place}: {version.test}")
    names = files[version.names]
    where = f"{place}: {version.names}"
    classes = names.decode("latin-1").split() if binary else _names(cifar, names, where)
    if len(classes) != cifar.classes:
        raise DataError(f"{where}: must name {cifar.classes} classes, found {len(classes)}")
    return assemble(
        cifar.name,
        train,
        train.labels,
        test,
        tuple(classes),
        validation_fraction=validation_fraction,
        seed=seed,
        padding=4,
        flip=True,
    )


def _find(cifar: _Cifar, folder: Path) -> tuple[_Version, Path, Mapping[str, bytes]]:
    """The first version that is there, where it is, and what its files hold."""
    versions = (cifar.python, cifar.binary)
    for version in versions:
        for place in (folder / version.unpacked, folder):
            if os.path.isfile(place / version.test):
                return version, place, _read_folder(place, version, cifar)
    for version in versions:
        place = folder / version.archive
        if os.path.isfile(place):
            return version, place, _read_archive(place, version)
    archives = " nor ".join(version.archive for version in versions)
    raise DataError(
        f"{cifar.title}: neither {archives} is in {folder}, nor what they unpack to.\n"
        f"Get one of them from {PAGE} and put it there, unpacked or not."
    )


def _read_folder(place: Path, version: _Version, cifar: _Cifar) -> dict[str, bytes]:
    missing = [name for name in version.files if not os.path.isfile(place / name)]
    if missing:
        raise DataError(
            f"{cifar.title}: {len(missing)} of {len(version.files)} files not found in {place}: "
            f"{', '.join(missing)}.\nUnpack {version.archive} from {PAGE} there once more."
        )
    found = {}
    for name in version.files:
        found[name] = read_bytes(place / name, _LARGEST, error=DataError)
    return found


def _read_archive(path: Path, version: _Version) -> dict[str, bytes]:
    """The wanted files of an archive; nothing is unpacked to disk, whatever it holds."""
    wanted = {f"{version.unpacked}/{name}": name for name in version.files}
    found: dict[str, bytes] = {}
    try:
        # As a stream, since going back in a gzip file means to begin anew.
        with (
            reading(path, None, error=DataError) as stream,
            tarfile.open(fileobj=stream, mode="r|gz") as archive,
        ):
            for member in archive:
                name = wanted.get(member.name.removeprefix("./"))
                if name is None or not member.isfile():
                    continue
                file = archive.extractfile(member)
                assert file is not None  # it is a file
                found[name] = _within_limit(file.read(_LARGEST + 1), f"{path}: {name}")
                if len(found) == len(wanted):
                    break
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise MemoryError(f"{path} cannot be unpacked") from error
    # Tarfile raises whatever a header trips over, and follows one header to the next by recursion.
    except (tarfile.TarError, ValueError, LookupError, TypeError, EOFError, OverflowError,
            RecursionError, struct.error, zlib.error) as error:  # fmt: skip
        raise DataError(f"{path}: damaged archive ({error}); get it again from {PAGE}") from error
    missing = [name for name in version.files if name not in found]
    if missing:
        raise DataError(
            f"{path}: lacks {', '.join(missing)} of {version.unpacked}/; get it again from {PAGE}"
        )
    return found


def _within_limit(content: bytes, where: str) -> bytes:
    if len(content) > _LARGEST:
        raise DataError(f"{where}: has more than {_LARGEST:,} bytes, which no file of CIFAR has")
    return content


def _read_python(cifar: _Cifar, content: bytes, where: str) -> InMemory:
    record = read_pickle(io.BytesIO(content), where)
    return InMemory(*labelled_rows(record, cifar.labels_key, 0, cifar.classes, where))


def _read_binary(cifar: _Cifar, content: bytes, where: str) -> InMemory:
    row = cifar.label_bytes + PIXELS
    if not content or len(content) % row:
        raise DataError(
            f"{where}: must be rows of {row:,} bytes, found {len(content):,} bytes; get it again "
            f"from {PAGE}"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    record = {
        "data": rows[:, cifar.label_bytes :],
        cifar.labels_key: rows[:, cifar.label_bytes - 1],
    }
    return InMemory(*labelled_rows(record, cifar.labels_key, 0, cifar.classes, where))


def _names(cifar: _Cifar, content: bytes, where: str) -> list[str]:
    names = read_pickle(io.BytesIO(content), where).get(cifar.names_key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where}: must hold a list of class names as {cifar.names_key!r}")
    return names


def _joined(parts: list[InMemory]) -> InMemory:
    return InMemory(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))
