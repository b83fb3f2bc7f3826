"""Files that are whole whenever a process dies, and the one way to read them."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from boundnas.errors import RunError


def write_json(path: Path, value: object) -> None:
    """Replace a file by ``value`` as canonical JSON, atomically (see ``write_text``).

    Raises:
        RunError: The file cannot be written; what was there is untouched.
    """
    write_text(path, canonical_json(value))


def write_text(path: Path, text: str) -> None:
    """Replace a file by ``text``, atomically: whenever the process dies, it is old or new.

    Args:
        path: The file; its folder is made when missing.
        text: Written as UTF-8.

    Raises:
        RunError: The file cannot be written; what was there is untouched.
    """
    data = text.encode()
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # of a process that was killed here
        write_synced(partial, data)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise cannot_write(path, len(data), error) from error


def canonical_json(value: object) -> str:
    """The one text for a JSON-able value: sorted keys, indented, no NaN, a final newline.

    Example:
        >>> print(canonical_json({"b": 1, "a": []}), end="")
        {
          "a": [],
          "b": 1
        }
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
    return text + "\n"


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it; ``OSError`` also when it exists."""
    with path.open("xb") as file:  # never through a link that somebody put there
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder, which a rename alone does not promise."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, needed: int, error: OSError) -> RunError:
    """The one error for what the disk refuses: path, reason, bytes needed and bytes free."""
    folder = next(p for p in path.absolute().parents if p.is_dir())
    return RunError(
        f"{path}: cannot be written ({error.strerror or error}); {needed:,} bytes are needed, "
        f"{shutil.disk_usage(folder).free:,} are free on this disk; make room, "
        f"or check the quota and the permissions of {folder}, then run again"
    )


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        RunError: It is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror}); check what it is and its permissions"
        ) from error
