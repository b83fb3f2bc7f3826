"""Logs and journals: append-only files of JSON objects, one a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from boundnas.errors import RunError
from boundnas.store.files import cannot_write, read_bytes


class JsonLines:
    """An append-only file of JSON objects, one a line, open for writing.

    Every row reaches the operating system before ``append`` returns. A torn tail, which a killed
    process may leave, is cut when the file is opened.

    Args:
        path: The file; it and its folder are made when missing.

    Raises:
        RunError: A line before the last is damaged, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = _complete_rows(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(rows[-1][1] if rows else 0)
        except OSError as error:
            raise cannot_write(path, 0, error) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; on failure the file stays as it was.

        Raises:
            RunError: The row cannot be written, for instance because the disk is full.
        """
        line = json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise cannot_write(self.path, len(line), error) from error

    def truncate_after(self, step: int) -> None:
        """Forget the rows of later steps, which a resumed run writes again.

        One cut at the first row whose ``"step"`` is beyond ``step``, since the steps of a log
        never fall; so a process killed here leaves all of the rows or the wanted ones.

        Raises:
            RunError: A row has no step.
        """
        start = 0
        for number, (row, end) in enumerate(_complete_rows(self.path), 1):
            if not isinstance(row.get("step"), int):
                raise RunError(
                    f"{self.path}, line {number}: has no whole number under 'step', so it is "
                    "damaged; remove this line and run again"
                )
            if row["step"] > step:
                self._file.truncate(start)
                return
            start = end

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The complete rows of a JSON Lines file, also while another process appends to it.

    Returns:
        The rows; none when nothing was logged yet and the file is missing. A torn tail is no row.

    Raises:
        RunError: A line before the last is damaged.
    """
    return [row for row, _ in _complete_rows(path)]


def _complete_rows(path: Path) -> list[tuple[dict[str, Any], int]]:
    """Each row with the byte at which its line ends, without a torn tail."""
    lines = read_bytes(path).splitlines(keepends=True) if path.exists() else []
    rows: list[tuple[dict[str, Any], int]] = []
    end = 0
    for number, line in enumerate(lines, 1):
        end += len(line)
        row = parse_row(line)
        if row is not None:
            rows.append((row, end))
        elif number < len(lines):
            raise RunError(
                f"{path}, line {number}: is no JSON object, but lines follow it, so it is "
                "damage and not the end of a killed run; remove this line, or the file, "
                "and run again"
            )
    return rows


def parse_row(line: bytes) -> dict[str, Any] | None:
    """The JSON object that a line with its end is, or none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and line.endswith(b"\n") else None
