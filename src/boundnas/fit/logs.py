"""The rows that a training writes as it goes."""

from __future__ import annotations

from typing import Any

from boundnas.store.base import Record
from boundnas.store.folder import RunFolder
from boundnas.store.lines import JsonLines, read_jsonl


class Log:
    """Rows in memory, and in a file if there is one; a resumed run drops later rows first."""

    def __init__(
        self,
        rows: list[dict[str, Any]],
        folder: RunFolder | None,
        name: str,
        kind: type[Record],
        start: int,
    ) -> None:
        self.rows, self.name, self.kind, self.file = rows, name, kind, None
        if folder is not None:
            self.file = JsonLines(getattr(folder, name), folder.held)
            self.file.truncate_after(start - 1)
            rows[:] = read_jsonl(self.file.path, folder.held)

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        row = self.kind(**row).model_dump(mode="json", exclude_unset=True)
        self.rows.append(row)
        if self.file is not None:
            self.file.append(row)

    def sync(self) -> dict[str, Any]:
        """Have the file on disk; gives what a checkpoint vouches for."""
        return {} if self.file is None else self.file.sync()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
