"""The run folder: what lies where in it, and the lock that keeps other processes out."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

from boundnas.errors import RunError
from boundnas.store.files import cannot_write, find_bytes, refuse_irregular, write_new
from boundnas.store.held import HeldFolder, folder_at
from boundnas.store.temporary import clean, remove, temporary

KEPT = "latency.json"
"""The name of a run's latency table in its folder."""

_locks: set[int] = set()
"""Descriptors of the locks that this process holds."""


def leave_locks() -> None:
    """Let go of the locks of the process that this one was forked off.

    They would else outlive it: a lock ends with the last process that has it open.
    """
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


@dataclass(frozen=True)
class RunFolder:
    """Names everything in the folder of one run; ``create`` and ``open`` check that it is one.

    Args:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, config_text: str, table: bytes | None = None) -> RunFolder:
        """A new run folder, or the one already there when it holds the same configuration.

        Args:
            path: Where; parents are made as needed.
            config_text: The YAML text, kept as it is.
            table: The latency table of a run that has one, which is kept with it.

        Raises:
            RunError: Something else is in the way, or the folder cannot be written.
        """
        if not os.path.lexists(path):
            data = config_text.encode()
            try:
                with folder_at(path.parent, None, make=True) as parent:
                    clean(parent)
                    _make(parent, path.name, data, table)
            except (OSError, ValueError) as error:
                raise cannot_write(path, len(data), error) from error
        run = cls.open(path)
        run.refuse_other_config(config_text)
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder.

        Raises:
            RunError: ``path`` is missing or no run folder.
        """
        run = cls(path)
        try:
            if find_bytes(run.config, held=run.held) is not None:
                run._refuse_irregular()
                return run
            found = "is no run folder, for it holds no config.yaml"
        except FileNotFoundError:
            found = "is missing"
        except NotADirectoryError:
            found = "is no run folder, for it is no folder"
        except (OSError, ValueError) as error:
            found = f"cannot be opened ({getattr(error, 'strerror', None) or error})"
        raise RunError(
            f"{path}: {found}; give the folder of a run, "
            "or start a new one under a name that is not taken"
        )

    def _refuse_irregular(self) -> None:
        """Refuse a link or the like in the place of a file or folder of the run, before any work.

        Raises:
            RunError: Says what is there.
        """
        files = (
            self.lock,
            self.environment,
            self.space,
            self.latency,
            self.metrics,
            self.boundaries,
        )
        found = (
            self.bounds,
            self.validation,
            self.evaluations,
            self.finalists,
            self.front,
            self.report,
        )
        for path in (*files, *found, self.checkpoints / "any", self.networks / "any"):
            try:
                with self.held.folder(path.parent) as folder:
                    refuse_irregular(path, folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RunError(
                    f"{path.parent}: cannot be opened ({error.strerror}); check what it is and "
                    "its permissions"
                ) from error

    @cached_property
    def held(self) -> HeldFolder:
        """The folder held open, for all that is written and read below it."""
        return HeldFolder(self.path)

    def refuse_other_config(self, config_text: str) -> None:
        """Refuse to go on with another configuration than the one that the folder holds.

        Raises:
            RunError: Names the first line that differs.
        """
        held = (find_bytes(self.config, held=self.held) or b"").decode(errors="replace")
        pairs = zip_longest(held.splitlines(), config_text.splitlines())
        for number, (old, new) in enumerate(pairs, 1):
            if old != new:
                raise RunError(
                    f"{self.path}: holds a run of another configuration; "
                    f"line {number} of its config.yaml is {_shown(old)}, "
                    f"now it is {_shown(new)}; "
                    "choose another name for this run, or remove the folder to start over"
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working in the folder; within, this object may lock again.

        The lock is on the folder itself, whatever its path or what lies in it becomes. It is the
        operating system's and ends with the process that holds it, however that ends; one that is
        forked off meanwhile must `leave_locks`. ``.lock`` names the process, and is locked too:
        some network file systems share only locks on files.

        Raises:
            RunError: A process that is named works in the folder, or it cannot be written.
        """
        held = self.held
        if held.locked:
            yield
            return
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=held.descriptor)
        note = None
        try:
            self._lock(folder)
            held.check()
            note = self._note()
            held.locked = True
            _locks.update((folder, note))
            yield
        finally:
            held.locked = False
            _locks.difference_update((folder, note))
            if note is not None:
                with suppress(OSError):
                    os.ftruncate(note, 0)
                os.close(note)
            os.close(folder)

    def _note(self) -> int:
        """Descriptor of ``.lock``, which is locked and names this process."""
        text = f"process {os.getpid()} on {platform.node()}".encode()
        try:
            refuse_irregular(self.lock, self.held.descriptor)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            note = os.open(self.lock.name, flags, 0o666, dir_fd=self.held.descriptor)
        except OSError as error:
            raise cannot_write(self.lock, len(text), error) from error
        try:
            if os.fstat(note).st_nlink > 1:
                raise OSError(errno.EMLINK, "It has another name somewhere, a hard link")
            self._lock(note)
            os.ftruncate(note, 0)
            os.write(note, text)
        except OSError as error:
            os.close(note)
            raise cannot_write(self.lock, len(text), error) from error
        except RunError:
            os.close(note)
            raise
        return note

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            named = b""
            with suppress(RunError):
                named = find_bytes(self.lock, held=self.held) or b""
            raise RunError(
                f"{self.path}: {named.decode(errors='replace') or 'another process'} works in "
                "this folder; wait until it has finished, or stop it, and run again"
            ) from error
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be locked ({error.strerror}), so nothing would keep a "
                "second process out; take a folder on a file system with locks"
            ) from error

    @property
    def lock(self) -> Path:
        """Names the process that works in the folder."""
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
    def latency(self) -> Path:
        """The latency table that its costs are read off, if they are."""
        return self.path / KEPT

    @property
    def metrics(self) -> Path:
        """Training metrics, one row a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def boundaries(self) -> Path:
        """The two policies over training, one row a logged step."""
        return self.path / "boundaries.jsonl"

    @property
    def validation(self) -> Path:
        """What some networks were worth while they trained, where that was watched."""
        return self.path / "validation.jsonl"

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


def _make(parent: int, name: str, config: bytes, table: bytes | None) -> None:
    """Make a run folder whole or not at all; none when another process was faster."""
    with temporary(parent, is_folder=True) as (partial, descriptor):
        write_new(descriptor, "config.yaml", config)
        if table is not None:
            write_new(descriptor, KEPT, table)
        os.fsync(descriptor)
        try:
            os.rename(partial, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            remove(parent, partial)
    os.fsync(parent)


def _shown(line: str | None) -> str:
    return "missing" if line is None else repr(line)
