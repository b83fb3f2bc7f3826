"""The run folder: what lies where in it, and the lock that keeps other processes out."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from boundnas.errors import RunError
from boundnas.store.files import cannot_write, read_bytes, sync_folder, write_synced


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
        held = read_bytes(self.config).decode(errors="replace").splitlines()
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


def _shown(line: str | None) -> str:
    return "missing" if line is None else repr(line)
