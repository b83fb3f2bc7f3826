"""Files that are whole whenever a process dies, and the one way to read them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from boundnas.engine.foreign import ADVICE
from boundnas.errors import BoundNASError, RunError
from boundnas.store.held import HeldFolder, folder_at, kind
from boundnas.store.temporary import clean, temporary

LIMIT = 1 << 30
"""Bytes of the largest record or log that is read: 1 GiB, the log of some million steps."""


def read_bytes(
    path: Path,
    limit: int = LIMIT,
    held: HeldFolder | None = None,
    error: type[BoundNASError] = RunError,
) -> bytes:
    """The content of a regular file; nothing else, such as a pipe, is ever waited for.

    Args:
        path: The file.
        limit: It may have at most so many bytes.
        held: The held folder that it lies in, if it does; then no link is followed.
        error: What to raise.

    Raises:
        BoundNASError: ``error``, which says what was found: nothing, no regular file, a larger
            one, or one that cannot be read.
    """
    data = find_bytes(path, limit, held, error)
    if data is None:
        raise error(f"{path}: is missing; check its name, or put the file there")
    return data


def find_bytes(
    path: Path,
    limit: int = LIMIT,
    held: HeldFolder | None = None,
    error: type[BoundNASError] = RunError,
) -> bytes | None:
    """As `read_bytes`, but none when there is no such file."""
    try:
        with os.fdopen(_opened(path, limit, held, error), "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise _cannot_read(path, fault, error) from fault
    except MemoryError as fault:
        raise error(f"{path}: is too large for the memory that is left") from fault
    if len(data) > limit:
        raise error(_too_large(path, len(data), limit))
    return data


@contextmanager
def reading(
    path: Path,
    limit: int | None = LIMIT,
    held: HeldFolder | None = None,
    error: type[BoundNASError] = RunError,
) -> Iterator[BinaryIO]:
    """A regular file, open for reading.

    Args:
        path: The file.
        limit: It may have at most so many bytes; none for any number.
        held: The held folder that it lies in, if it does; then no link is followed.
        error: What to raise.

    Raises:
        BoundNASError: ``error``: it is missing, no regular file, too large, or cannot be read.
    """
    try:
        descriptor = _opened(path, limit, held, error)
    except (OSError, ValueError) as fault:
        raise _cannot_read(path, fault, error) from fault
    with os.fdopen(descriptor, "rb") as file:
        yield file


def write_json(path: Path, value: object, held: HeldFolder | None = None) -> None:
    """Replace a file by ``value`` as canonical JSON, atomically (see ``write_text``).

    Raises:
        RunError: The file cannot be written; what was there is untouched.
    """
    write_text(path, canonical_json(value), held)


def write_text(path: Path, text: str, held: HeldFolder | None = None) -> None:
    """Replace a file by ``text``, atomically: whenever the process dies, it is old or new.

    Args:
        path: The file; its folder is made when missing.
        text: Written as UTF-8.
        held: The held folder that it lies in, if it does; then no link is in its place.

    Raises:
        RunError: The file cannot be written, or something else is in its place, such as a device;
            what was there is untouched.
    """
    write_bytes(path, text.encode(), held)


def write_bytes(path: Path, data: bytes, held: HeldFolder | None = None) -> None:
    """As `write_text`, with any content."""
    try:
        with folder_at(path.parent, held, make=True) as folder:
            refuse_irregular(path, folder, links=held is None)
            clean(folder)
            with temporary(folder) as (name, descriptor):
                _write(descriptor, data)
                os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
    except (OSError, ValueError) as error:
        raise cannot_write(path, len(data), error) from error


def set_aside(path: Path, held: HeldFolder | None = None) -> Path:
    """Give a file the first free name like its own, so that nothing is lost: ``front-1.json``.

    Returns:
        The path it has now.

    Raises:
        RunError: It cannot be renamed.
    """
    try:
        with folder_at(path.parent, held, make=True) as folder:
            there = set(os.listdir(folder))
            names = (f"{path.stem}-{number}{path.suffix}" for number in count(1))
            free = next(name for name in names if name not in there)
            os.rename(path.name, free, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
    except (OSError, ValueError) as error:
        raise cannot_write(path, 0, error) from error
    return path.with_name(free)


def canonical_json(value: object) -> str:
    """The one text for a JSON-able value: sorted keys, indented, no NaN, a final newline.

    Examples:
        >>> print(canonical_json({"b": 1, "a": []}), end="")
        {
          "a": [],
          "b": 1
        }
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
    return text + "\n"


def write_new(folder: int, name: str, data: bytes) -> None:
    """Write a new file in an open folder and wait until the disk has it.

    Raises:
        OSError: It exists, if only as a link, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        _write(descriptor, data)
    finally:
        os.close(descriptor)


def refuse_irregular(path: Path, folder: int, links: bool = False) -> None:
    """Refuse what is no regular file in the place of one.

    Args:
        path: The file.
        folder: Descriptor of the folder that it lies in.
        links: Whether a link may be there that leads to a regular file, or nowhere.

    Raises:
        RunError: Says what is there.
    """
    with suppress(FileNotFoundError):
        mode = os.stat(path.name, dir_fd=folder, follow_symlinks=links).st_mode
        if not stat.S_ISREG(mode):
            raise RunError(_irregular(path, mode))


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder, which a rename alone does not promise."""
    with folder_at(path, None) as descriptor:
        os.fsync(descriptor)


def cannot_write(path: Path, needed: int, error: OSError | ValueError) -> RunError:
    """The one error for what the disk refuses: path, reason, bytes needed and bytes free."""
    folder = next(p for p in path.absolute().parents if os.path.isdir(p))
    try:
        free = f"{shutil.disk_usage(folder).free:,}"
    except OSError:
        free = "nobody knows how many"
    advice = f"make room, or check the quota and the permissions of {folder}, then run again"
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = ADVICE.get(number, advice)
    return RunError(
        f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}); "
        f"{needed:,} bytes are needed, {free} are free on this disk; {advice}"
    )


def _opened(
    path: Path, limit: int | None, held: HeldFolder | None, error: type[BoundNASError]
) -> int:
    if held is None:
        return _regular(path, os.fspath(path), None, 0, limit, error)
    with held.folder(path.parent) as folder:
        return _regular(path, path.name, folder, os.O_NOFOLLOW, limit, error)


def _regular(
    path: Path,
    name: str,
    folder: int | None,
    flags: int,
    limit: int | None,
    error: type[BoundNASError],
) -> int:
    """Descriptor of a regular file. Looked at first, as opening alone moves some devices."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=not flags)
    descriptor = None
    if stat.S_ISREG(found.st_mode):
        flags |= os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=folder)
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and (limit is None or found.st_size <= limit):
            return descriptor
        os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise error(_irregular(path, found.st_mode))
    raise error(_too_large(path, found.st_size, limit or 0))


def _cannot_read(
    path: Path, fault: OSError | ValueError, error: type[BoundNASError]
) -> BoundNASError:
    reason = getattr(fault, "strerror", None) or fault
    return error(f"{path}: cannot be read ({reason}); check what it is and its permissions")


def _irregular(path: Path, mode: int) -> str:
    return (
        f"{path}: is {kind(mode)}, where a regular file should be; remove it, or put the file "
        "itself there"
    )


def _too_large(path: Path, size: int, limit: int) -> str:
    return f"{path}: has {size:,} bytes or more, at most {limit:,} are read; check what it is"


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)
