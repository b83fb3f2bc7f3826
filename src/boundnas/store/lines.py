"""Logs and journals: append-only files of JSON objects, one a line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from boundnas.errors import RunError
from boundnas.store.files import cannot_write, find_bytes, refuse_irregular
from boundnas.store.held import HeldFolder, folder_at


class JsonLines:
    """An append-only file of JSON objects, one a line, open for writing.

    Every row reaches the operating system before ``append`` returns, and the disk by ``sync``. A
    torn tail, which a killed process may leave, is cut when the file is opened.

    Args:
        path: The file; it and its folder are made when missing.
        held: The held folder that it lies in, if it does; nothing is written once that is another.

    Raises:
        RunError: A line before the last is damaged, or the file cannot be written.
    """

    def __init__(self, path: Path, held: HeldFolder | None = None) -> None:
        self.path, self._held = path, held
        rows = _complete_rows(path, held)
        try:
            self._descriptor = _opened(path, held)
        except (OSError, ValueError) as error:
            raise cannot_write(path, 0, error) from error
        self._keep(rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; on failure the file stays as it was.

        Raises:
            RunError: The row cannot be written, for instance because the disk is full, or the
                file or its folder is no longer the one that was opened.
        """
        line = encoded(row)
        rest = memoryview(line)
        self._check()
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise cannot_write(self.path, len(line), error) from error
        self._count(line)

    def truncate_after(self, step: int) -> None:
        """Forget the rows of later steps, which a resumed run writes again.

        One cut at the first row whose ``"step"`` is beyond ``step``, since the steps of a log
        never fall; so a process killed here leaves all of the rows or the wanted ones.

        Raises:
            RunError: A row has no step.
        """
        rows = _complete_rows(self.path, self._held)
        kept = steps_up_to([row for row, _ in rows], step, self.path)
        self._keep(rows[:kept])

    def sync(self) -> dict[str, Any]:
        """Wait until the disk has every row; gives rows, bytes and SHA-256 of what is there.

        Raises:
            RunError: The disk refuses, or the file is no longer the one that was opened.
        """
        self._check()
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise cannot_write(self.path, self._end, error) from error
        return {"rows": self._rows, "bytes": self._end, "sha256": self._sha.hexdigest()}

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        """Refuse to write where nobody will find it, or where another folder is by now."""
        if self._held is not None:
            self._held.check()
        try:
            with folder_at(self.path.parent, self._held) as folder:
                now = os.stat(self.path.name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            now = None
        if now is None or not os.path.samestat(now, os.fstat(self._descriptor)):
            raise RunError(
                f"{self.path}: was removed or replaced while this process wrote to it; run again "
                "to go on from the newest checkpoint that fits what is there"
            )

    def _keep(self, rows: list[tuple[dict[str, Any], bytes]]) -> None:
        self._rows, self._end, self._sha = 0, 0, hashlib.sha256()
        for _, line in rows:
            self._count(line)
        try:
            if os.fstat(self._descriptor).st_size != self._end:
                os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            raise cannot_write(self.path, 0, error) from error

    def _count(self, line: bytes) -> None:
        self._rows += 1
        self._end += len(line)
        self._sha.update(line)


def read_jsonl(path: Path, held: HeldFolder | None = None) -> list[dict[str, Any]]:
    """The complete rows of a JSON Lines file, also while another process appends to it.

    Returns:
        The rows; none when nothing was logged yet and the file is missing. A torn tail is no row.

    Raises:
        RunError: A line before the last is damaged.
    """
    return [row for row, _ in _complete_rows(path, held)]


def parse_row(line: bytes) -> dict[str, Any] | None:
    """The JSON object that a line with its end is, or none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and line.endswith(b"\n") else None


def encoded(row: Mapping[str, Any]) -> bytes:
    """A row as the line that a log holds."""
    return json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"


END = 10**18
"""Later than any step."""


def check_rows(
    path: Path, step: int, written: Mapping[str, Any], held: HeldFolder | None = None
) -> None:
    """Refuse a log whose rows before a step are not those that a checkpoint relies on.

    Args:
        path: The log.
        step: The checkpoint's step; rows of later ones do not matter.
        written: What ``JsonLines.sync`` gave before the checkpoint was saved.
        held: The held folder that the log lies in, if it does.

    Raises:
        RunError: Says what became of them.
    """
    rows = _complete_rows(path, held)
    rows = rows[: steps_up_to([row for row, _ in rows], step - 1, path)]
    found = _sums([line for _, line in rows])
    if found == written:
        return
    for number, ((last, _), (row, _)) in enumerate(pairwise(rows), 2):
        if row["step"] <= last["step"]:
            raise RunError(
                f"{path}, line {number}: is of step {row['step']} after one of step "
                f"{last['step']}, so rows were doubled or moved"
            )
    if len(rows) != written.get("rows"):
        raise RunError(
            f"{path}: holds {len(rows)} rows of the steps before {step}, where "
            f"{written.get('rows')} were written"
        )
    raise RunError(f"{path}: a row of the steps before {step} is not what was written")


def steps_up_to(rows: Iterable[Mapping[str, Any]], step: int, path: Path) -> int:
    """How many rows a log has before the first of a step beyond ``step``.

    Raises:
        RunError: A row has no step.
    """
    number = 0
    for row in rows:
        if type(row.get("step")) is not int:
            raise RunError(
                f"{path}, line {number + 1}: has no whole number under 'step', so it is "
                "damaged; remove this line and run again"
            )
        if row["step"] > step:
            break
        number += 1
    return number


def _sums(lines: Sequence[bytes]) -> dict[str, Any]:
    whole = b"".join(lines)
    sha = hashlib.sha256(whole).hexdigest()
    return {"rows": len(lines), "bytes": len(whole), "sha256": sha}


def _opened(path: Path, held: HeldFolder | None) -> int:
    """Descriptor for appending to a file that has this one name, so no other file is changed."""
    with folder_at(path.parent, held, make=True) as folder:
        refuse_irregular(path, folder)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path.name, flags | os.O_NONBLOCK, 0o666, dir_fd=folder)
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise RunError(
                f"{path}: has another name somewhere (a hard link), where the rows would appear "
                "too; replace it by a copy and run again"
            )
        os.fsync(folder)
        return descriptor


def _complete_rows(path: Path, held: HeldFolder | None) -> list[tuple[dict[str, Any], bytes]]:
    """Each row with its line, without a torn tail."""
    lines = (find_bytes(path, held=held) or b"").splitlines(keepends=True)
    rows: list[tuple[dict[str, Any], bytes]] = []
    for number, line in enumerate(lines, 1):
        row = parse_row(line)
        if row is not None:
            rows.append((row, line))
        elif number < len(lines):
            raise RunError(
                f"{path}, line {number}: is no JSON object, but lines follow it, so it is "
                "damage and not the end of a killed run; remove this line, or the file, "
                "and run again"
            )
    return rows
