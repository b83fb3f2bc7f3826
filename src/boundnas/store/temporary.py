"""Names that nobody else has for what is being made, and the removal of what the dead left."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

_OURS = re.compile(r"\.boundnas-\d+-[0-9a-f]{8}\.(partial|removed)")


@contextmanager
def temporary(folder: int, is_folder: bool = False) -> Iterator[tuple[str, int]]:
    """A new file or folder to be renamed when it is whole; a failure removes it.

    Its maker holds a lock on it, by which `clean` knows that it is no leftover.

    Args:
        folder: Descriptor of the folder that it is made in.
        is_folder: Whether to make a folder.

    Yields:
        Its name and its descriptor, a file's open for writing.
    """
    with ExitStack() as held:
        if is_folder:
            held.callback(os.close, os.dup(folder))  # a removal takes two, and there may be no more
        name, descriptor = _made(folder, is_folder)
        held.callback(os.close, descriptor)
        try:
            yield name, descriptor
        except (Exception, KeyboardInterrupt):
            held.close()
            with suppress(OSError):
                remove(folder, name)
            raise


def clean(folder: int) -> None:
    """Remove what processes left in a folder that were killed while they made or removed it."""
    for name in os.listdir(folder):
        if _OURS.fullmatch(name):
            with suppress(OSError):  # of a living process, or gone by now
                _remove_unlocked(folder, name)


def remove(folder: int, name: str) -> None:
    """Delete an entry and all below it; of a link the link, never what it leads to.

    Raises:
        OSError: It is missing or cannot be deleted.
    """
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=folder)
        return
    try:
        shutil.rmtree(name, dir_fd=folder)
    except RecursionError as error:
        raise OSError(errno.ELOOP, "Folders are nested too deep", name) from error


def remove_at_once(folder: int, name: str) -> None:
    """Delete an entry that is under its own name whole or not at all, whenever we die."""
    removed = _name("removed")
    os.rename(name, removed, src_dir_fd=folder, dst_dir_fd=folder)
    remove(folder, removed)


def _name(what: str) -> str:
    return f".boundnas-{os.getpid()}-{secrets.token_hex(4)}.{what}"


def _made(folder: int, is_folder: bool) -> tuple[str, int]:
    while True:
        name = _name("partial")
        if is_folder:
            os.mkdir(name, dir_fd=folder)
            flags = os.O_RDONLY | os.O_DIRECTORY
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
        except FileNotFoundError:
            if is_folder:
                continue  # another process cleaned before we could lock it
            raise
        except OSError:
            if is_folder:
                os.rmdir(name, dir_fd=folder)
            raise
        with suppress(OSError):  # a file system without locks: then nobody cleans either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            now = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if os.path.samestat(now, os.fstat(descriptor)):
                return name, descriptor
        os.close(descriptor)


def _remove_unlocked(folder: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(folder, name)
    finally:
        os.close(descriptor)
