"""The run folder: what lies where in it, and files that are whole whenever a process dies."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from boundnas.errors import RunError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """Names everything in the folder of one run; ``create`` and ``open`` check that it is one.

    Args:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, config_text: str) -> RunFolder:
        """A new run folder, or the one already there when it holds the same configuration.

        Args:
            path: Where; parents are made as needed.
            config_text: The YAML text, kept as it is.

        Raises:
            RunError: Something else is in the way, or the folder cannot be written.
        """
        if path.exists() or path.is_symlink():
            run = cls.open(path)
            run._refuse_other_config(config_text)
            return run
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed here
            partial.mkdir()
            write_synced(cls(partial).config, config_text.encode())
            sync_folder(partial)
            partial.rename(path)
            sync_folder(path.parent)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise cannot_write(path, len(config_text.encode()), error) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder.

        Raises:
            RunError: ``path`` is missing or no run folder.
        """
        run = cls(path)
        if run.config.is_file():
            return run
        found = "is no run folder, for it holds no config.yaml" if path.exists() else "is missing"
        raise RunError(
            f"{path}: {found}; give the folder of a run, "
            "or start a new one under a name that is not taken"
        )

    def _refuse_other_config(self, config_text: str) -> None:
        held = _read(self.config).decode(errors="replace").splitlines()
        for number, (old, new) in enumerate(zip_longest(held, config_text.splitlines()), 1):
            if old != new:
                raise RunError(
                    f"{self.path}: holds a run of another configuration; "
                    f"line {number} of its config.yaml is {_shown(old)}, "
                    f"now it is {_shown(new)}; "
                    "choose another name for this run, or remove the folder to start over"
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working in the folder.

        The lock is the operating system's and ends with the process that holds it, however that
        ends.

        Raises:
            RunError: A process that is named works in the folder, or it cannot be written.
        """
        try:
            file = self.lock.open("a+")
        except OSError as error:
            raise cannot_write(self.lock, 0, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise RunError(
                    f"{self.path}: {file.read() or 'another process'} works in this folder; "
                    "wait until it has finished, or stop it, and run again"
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    @property
    def lock(self) -> Path:
        """Locked by the process that works in the folder, which it names."""
        return self.path / ".lock"

    @property
    def config(self) -> Path:
        """The configuration as the user wrote it; its presence makes this a run folder."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """What the run ran on, as ``environment()`` describes it."""
        return self.path / "environment.json"

    @property
    def space(self) -> Path:
        """The search space."""
        return self.path / "space.json"

    @property
    def metrics(self) -> Path:
        """Training metrics, one row a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def boundaries(self) -> Path:
        """The two policies over training, one row a logged step."""
        return self.path / "boundaries.jsonl"

    @property
    def bounds(self) -> Path:
        """The learned bounds at the end of training."""
        return self.path / "bounds.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """The journal of the search."""
        return self.path / "search" / "evaluations.jsonl"

    @property
    def finalists(self) -> Path:
        """What a search that screens measured on all images."""
        return self.path / "search" / "finalists.jsonl"

    @property
    def front(self) -> Path:
        """The Pareto front that the search found."""
        return self.path / "front.json"

    @property
    def report(self) -> Path:
        """The report for the browser."""
        return self.path / "report.html"

    @property
    def networks(self) -> Path:
        """The folder of exported networks."""
        return self.path / "networks"


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


def note_environment(path: Path) -> None:
    """Write down what a run runs on; where that was done before, warn of what has changed.

    Raises:
        RunError: The file is damaged or cannot be written.
    """
    now = environment()
    if not path.exists():
        write_json(path, now)
        return
    began = _row(_read(path) + b"\n")
    if began is None:
        raise RunError(f"{path}: is no JSON object, so it is damaged; remove it and run again")
    changes = [
        f"{name} {began.get(name)}, now {now[name]}"
        for name in ("torch", "cpu_capability", "threads")
        if began.get(name) != now[name]
    ]
    if changes:
        _log.warning(
            "%s: the run began with %s; it goes on, but its last bits may differ from those of a "
            "run without this change",
            path.parent,
            ", ".join(changes),
        )


def environment() -> dict[str, str | int]:
    """What decides the last bits of a run: versions, processor, threads.

    Example:
        >>> sorted(environment())
        ['boundnas', 'cpu', 'cpu_capability', 'platform', 'python', 'threads', 'torch']
    """
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "boundnas": version("boundnas"),
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def _cpu_model() -> str:
    with suppress(OSError):  # only Linux has this file, and only there the other names are vague
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _complete_rows(path: Path) -> list[tuple[dict[str, Any], int]]:
    """Each row with the byte at which its line ends, without a torn tail."""
    lines = _read(path).splitlines(keepends=True) if path.exists() else []
    rows: list[tuple[dict[str, Any], int]] = []
    end = 0
    for number, line in enumerate(lines, 1):
        end += len(line)
        row = _row(line)
        if row is not None:
            rows.append((row, end))
        elif number < len(lines):
            raise RunError(
                f"{path}, line {number}: is no JSON object, but lines follow it, so it is "
                "damage and not the end of a killed run; remove this line, or the file, "
                "and run again"
            )
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and line.endswith(b"\n") else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror}); check what it is and its permissions"
        ) from error


def _shown(line: str | None) -> str:
    return "missing" if line is None else repr(line)
