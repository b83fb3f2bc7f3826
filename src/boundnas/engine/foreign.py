"""Errors of the system and of libraries below, each told in one line; what is left is a bug."""

from __future__ import annotations

import errno
import os
import sysconfig

from boundnas.errors import (
    BoundNASError,
    ConfigError,
    ConvertError,
    CostError,
    DataError,
    ExtraError,
    SpaceError,
    TaskError,
    TrainingError,
)

REFUSALS = (
    ConfigError, ConvertError, CostError, DataError, ExtraError, SpaceError, TaskError,
    TrainingError,
)  # fmt: skip
"""Of a request that was wrong from the start, so that nothing was created."""

LONGEST = 2_000
"""Most characters of a line."""

_NO_MEMORY = (
    "out of memory",  # CUDA's allocator, the transport between processes
    "allocate memory",  # DefaultCPUAllocator
    "alloc_cpu.cpp",
    "bad_alloc",
    "bad allocation",
    "could not create a primitive",  # oneDNN
    "failed to map segment",  # of a library that is loaded
    "error return without exception",  # the interpreter itself
)
"""What libraries that do not raise MemoryError say instead of it."""

ADVICE = {
    errno.ENOSPC: "make room and run again",
    errno.EDQUOT: "make room within the quota and run again",
    errno.EFBIG: "allow larger files (ulimit -f) and run again",
    errno.EMFILE: "allow more open files (ulimit -n) and run again",
    errno.ENFILE: "close other programs and run again",
    errno.EAGAIN: "allow more processes (ulimit -u) and run again",
    errno.ENOMEM: "free memory and run again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "give the path itself, not a link to it",
    errno.ENOTDIR: "a part of this path is no folder; choose another",
    errno.EISDIR: "this is a folder; give the path of a file",
    errno.EROFS: "choose a place that can be written",
}
"""What to do about an error of the operating system."""

_DAMAGED = {"json", "zipfile", "tarfile", "lzma", "_lzma", "zlib", "gzip", "safetensors_rust"}
"""Modules whose own errors say that a file does not hold what it should."""


def answer(error: BaseException) -> tuple[str, int]:
    """What a command says about an error, and the exit code it ends with.

    Args:
        error: Anything but a signal.

    Returns:
        A line (several for a configuration with several faults) and the code: 2 where the request
        was refused and nothing was created, else 1.
    """
    if isinstance(error, BoundNASError):
        refused = isinstance(error, REFUSALS) and not error.begun
        lines = f"{type(error).__name__}: {error}".split("\n")
        return "\n".join(map(_shortened, lines)), 2 if refused else 1
    told = _outside(error) or _yours(error) or _bug(error)
    return _shortened(told.replace("\n", " ")), 1


def _shortened(line: str) -> str:
    """A line that fits a screen; what was found in a file may be as long as the file."""
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2
    return f"{line[:half]} [{len(line) - 2 * half:,} characters left out] {line[-half:]}"


def _outside(error: BaseException) -> str | None:
    """One line about what is wrong outside the code; nothing where the code itself is wrong."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return (
            f"MemoryError: out of memory ({said}); take a smaller train.batch_size or image, or "
            "free memory; the same command goes on from the newest checkpoint"
        )
    if isinstance(error, OSError):
        return _system(error, said)
    if "start new thread" in said:
        return f"OSError: {said}; {ADVICE[errno.EAGAIN]}"
    kinds = {
        ImportError: "a library cannot be loaded; install it again with pip, as in "
        f"pip install --force-reinstall {(getattr(error, 'name', None) or 'torch').split('.')[0]}",
        RecursionError: "a file or folder is nested deeper than can be read; make it flatter",
        UnicodeError: "a name or text is not in the encoding it should be in; use UTF-8",
        EOFError: "a file ends too early, so it is damaged; get or make it again",
    }
    advice = next((text for kind, text in kinds.items() if isinstance(error, kind)), None)
    if type(error).__module__.partition(".")[0] in _DAMAGED:
        advice = "a file is damaged; get or make it again"
    if "null byte" in said or "null character" in said:
        advice = "a path holds a null byte; choose another name"
    return advice and f"{type(error).__name__}: {said} ({_place(error)}); {advice}"


def _system(error: OSError, said: str) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    place = " and ".join(names) or _place(error)
    reason = error.strerror or said
    advice = ADVICE.get(error.errno or 0, "check what is there and its permissions")
    return f"{type(error).__name__}: {place}: {reason}; {advice}"


def _place(error: BaseException) -> str:
    """File and line that an error comes from: the innermost of this package, if there is one."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}boundnas{os.sep}" in f.filename] or frames
    if not ours:
        return "at an unknown place"
    return f"in {os.path.basename(ours[-1].filename)}, line {ours[-1].lineno}"


def _yours(error: BaseException) -> str | None:
    """One line about code that a configuration names, where that failed when it was called."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    package = os.path.dirname(os.path.dirname(__file__)) + os.sep
    ours = [i for i, frame in enumerate(frames) if frame.filename.startswith(package)]
    libraries = (sysconfig.get_path("stdlib"), "<")
    for frame in frames[ours[-1] + 1 :] if ours else ():
        if not frame.filename.startswith(libraries) and "-packages" not in frame.filename:
            return (
                f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno}); this "
                "code is yours: mend it and run again"
            )
    return None


def _bug(error: BaseException) -> str:
    return (
        f"This is a bug in BoundNAS ({_place(error)}): {type(error).__name__}: {error}. Please "
        f"report it in an issue of the project, with {_kept(error)}. Nothing that was written is "
        "lost: the same command goes on from the newest checkpoint"
    )


def _kept(error: BaseException) -> str:
    """The name of a file in the temporary folder that holds the traceback."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        descriptor, path = tempfile.mkstemp(prefix="boundnas-", suffix=".log")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as refused:
        return f"this line (its traceback could not be kept: {refused})"
    return path
