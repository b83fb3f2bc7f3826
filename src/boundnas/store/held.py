"""A folder held open: nothing done below it reaches another place, whatever its path becomes."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boundnas.errors import RunError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class HeldFolder:
    """A folder by its descriptor, so that it stays the same one.

    Below it no link is followed: a folder that somebody else made cannot lead elsewhere.

    Args:
        path: The folder; what leads to it may be links.

    Raises:
        OSError: It cannot be opened, or is no folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.locked = False
        self.descriptor = os.open(path, _FOLDER)
        self._absolute = path.absolute()
        weakref.finalize(self, os.close, self.descriptor)

    def check(self) -> None:
        """Refuse to go on when the path no longer names this folder.

        Raises:
            RunError: It was removed, renamed or replaced.
        """
        try:
            now = os.stat(self._absolute)
        except OSError:
            now = None
        if now is None or not os.path.samestat(now, os.fstat(self.descriptor)):
            found = "was removed or renamed" if now is None else "became another folder"
            raise RunError(
                f"{self.path}: {found} while this process worked in it, which writes nothing "
                "more; put the folder back under its name and run again, or start a new run"
            )

    @contextmanager
    def folder(self, path: Path, make: bool = False) -> Iterator[int]:
        """Descriptor of this folder or one below it, reached through no link.

        Args:
            path: The folder, which begins with this one's path.
            make: Make it when missing, for something is to be written there.

        Raises:
            FileNotFoundError: It is missing.
            RunError: Something else is in its place; to write, this folder is another by now.
        """
        if make:
            self.check()
        descriptor, way = os.dup(self.descriptor), self.path
        try:
            for part in path.relative_to(self.path).parts:
                way /= part
                inner = _entered(descriptor, part, way, make)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def folder_at(path: Path, held: HeldFolder | None, make: bool = False) -> Iterator[int]:
    """Descriptor of a folder: below a held one through no link, else wherever its path leads.

    Args:
        path: The folder.
        held: The held folder that it lies in, if it does.
        make: Make it when missing.
    """
    if held is not None:
        with held.folder(path, make) as descriptor:
            yield descriptor
        return
    if make:
        _make(path)
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def kind(mode: int) -> str:
    """What a file's mode says that it is, with its article."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _entered(folder: int, name: str, path: Path, make: bool) -> int:
    try:
        if make and not _there(folder, name):
            os.mkdir(name, dir_fd=folder)
            os.fsync(folder)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError as error:
        found = kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        raise RunError(
            f"{path}: is {found}, where a folder should be; links are not followed below a run "
            "folder; remove it, or put the folder itself there, and run again"
        ) from error


def _there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make(path: Path) -> None:
    """Make a folder and those above it; without recursion, for they may be many."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        if path == path.parent:
            break
        path = path.parent
    made: list[Path] = []
    try:
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            made.insert(0, each)
    except OSError:
        with suppress(OSError):  # leave no half of a way
            for each in made:
                each.rmdir()
        raise
