"""Whatever escapes is one line, which says what is wrong and what to do."""

import errno
import json
import lzma
import os
import re
import tarfile
import tempfile
import zipfile
import zlib

import pytest
import torch

from boundnas.engine.foreign import answer
from boundnas.errors import ConfigError, CostError, DataError, ExportError, RunError, SpaceError

OURS = {
    ConfigError: 2, CostError: 2, DataError: 2, SpaceError: 2, RunError: 1, ExportError: 1,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "code"), OURS.items())
def test_our_own_errors_speak_for_themselves(kind, code):
    assert answer(kind("x is wrong")) == (f"{kind.__name__}: x is wrong", code)


@pytest.mark.parametrize("kind", OURS)
def test_nothing_is_refused_once_the_run_folder_is_there(kind):
    error = kind("x is wrong")
    error.begun = True
    assert answer(error)[1] == 1


def test_a_line_is_never_as_long_as_what_was_found_in_a_file():
    text, _ = answer(RunError(f"line 1 is {'[' * 100_000}, damaged\nremove it"))
    first, second = text.split("\n")
    assert len(first) < 2_100
    left_out = r"RunError: line 1 is \[+ \[98,\d{3} characters left out\] \[+, damaged"
    assert re.fullmatch(left_out, first)
    assert second == "remove it"
    assert len(answer(ValueError("x" * 100_000))[0]) < 2_100


OUTSIDE = {
    "no room": (OSError(errno.ENOSPC, "No space left", "a/b"), "OSError: a/b: No space left; make"),
    "quota": (OSError(errno.EDQUOT, "Quota exceeded", "a"), "quota"),
    "file limit": (OSError(errno.EFBIG, "File too large", "a"), "ulimit -f"),
    "descriptors": (OSError(errno.EMFILE, "Too many open files", "a"), "ulimit -n"),
    "processes": (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
    "threads": (RuntimeError("can't start new thread"), "ulimit -u"),
    "long name": (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "shorter name"),
    "link loop": (OSError(errno.ELOOP, "Too many levels", "a"), "not a link"),
    "rename": (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), "a and b: Inv"),
    "folder": (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), "path of a file"),
    "file": (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"), "is no folder"),
    "permission": (PermissionError(errno.EACCES, "Permission denied", "a"), "its permissions"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "a"), "can be written"),
    "without a number": (OSError("cannot identify image file"), "cannot identify image file"),
    "memory": (MemoryError(), "MemoryError: out of memory (MemoryError); take a smaller"),
    "CPU": (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: no"), "batch"),
    "GPU": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "goes on from"),
    "C++": (RuntimeError("std::bad_alloc"), "take a smaller train.batch_size"),
    "oneDNN": (RuntimeError("could not create a primitive"), "take a smaller train.batch_size"),
    "interpreter": (SystemError("error return without exception set"), "out of memory"),
    "mapping": (ImportError("x.so: failed to map segment from shared object"), "free memory"),
    "library": (ImportError("no x", name="matplotlib.pyplot"), "--force-reinstall matplotlib"),
    "depth": (RecursionError("maximum recursion depth exceeded"), "nested deeper"),
    "encoding": (UnicodeEncodeError("ascii", "\udcff", 0, 1, "ordinal"), "use UTF-8"),
    "decoding": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "use UTF-8"),
    "null byte": (ValueError("embedded null byte"), "another name"),
    "JSON": (json.JSONDecodeError("Expecting value", "x", 0), "damaged"),
    "zip": (zipfile.BadZipFile("Bad CRC-32"), "damaged"),
    "tar": (tarfile.ReadError("truncated header"), "damaged"),
    "LZMA": (lzma.LZMAError("Corrupt input data"), "damaged"),
    "deflate": (zlib.error("Error -3"), "damaged"),
    "end": (EOFError("Compressed file ended"), "ends too early"),
}  # fmt: skip


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(("error", "said"), OUTSIDE.values(), ids=OUTSIDE)
def test_what_is_wrong_outside_the_code_is_one_line_that_says_what_to_do(
    error, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    text, code = answer(raised(error))
    assert (code, len(text.splitlines())) == (1, 1)
    assert said in text
    assert "bug" not in text
    assert os.listdir(tmp_path) == []


BUGS = [IndexError("list index out of range"), AttributeError("no x"), NotImplementedError(),
        KeyError("x"), TypeError("two\nlines"), ValueError("bad"), RuntimeError("x")]  # fmt: skip


@pytest.mark.parametrize("error", BUGS, ids=lambda e: type(e).__name__)
def test_what_is_left_is_a_bug_with_the_traceback_in_a_file(error, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    text, code = answer(raised(error))
    assert (code, len(text.splitlines())) == (1, 1)
    found = re.match(r"This is a bug in BoundNAS \(in test_foreign.py, line \d+\): (.*)", text)[1]
    assert found.startswith(type(error).__name__)
    [log] = tmp_path.iterdir()
    assert f"with {log}. " in text
    assert log.read_text().startswith("Traceback (most recent call last)")


def test_a_bug_is_told_where_its_traceback_cannot_be_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert "its traceback could not be kept" in answer(raised(KeyError("x")))[0]
