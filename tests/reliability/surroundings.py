"""Broken surroundings of a command: each spoils the working folder, or the process, it runs in."""

import os
import resource
import shutil
import stat
import sys
from itertools import pairwise
from pathlib import Path

from tests.reliability.ranks import ALONE, TIMEOUT

RUN = Path("runs/tiny")
"""The finished run, in the working folder."""

PHOTOS = "photos"
"""A folder of images with nothing wrong in it, likewise."""

NOBODY = 65_534


def link(target):
    return lambda path: path.symlink_to(target)


def deep_folder(path):
    path.mkdir()
    here = os.getcwd()
    os.chdir(path)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(here)


CONTENTS = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "a bracket": lambda path: path.write_text("{"),
    "a list": lambda path: path.write_text("[]\n"),
    "null": lambda path: path.write_text("null\n"),
    "a row of nothing": lambda path: path.write_text("{}\n"),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "not UTF-8": lambda path: path.write_bytes(b'{"name": "\xff\xfe"}\n'),
    "nested": lambda path: path.write_text("[" * 100_000),
    "large": lambda path: path.write_bytes(b" " * 3_000_000),
    "a folder": lambda path: path.mkdir(),
    "a FIFO": lambda path: os.mkfifo(path),
    "a dangling link": link("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to zeros": link("/dev/zero"),
    "a link to a full disk": link("/dev/full"),
}
"""What may lie where a file should."""

FILES = ("config.yaml", "environment.json", "space.json", "metrics.jsonl", "boundaries.jsonl",
         "bounds.json", "checkpoints", "search/evaluations.jsonl", "search", "front.json",
         "report.html", ".lock", "networks")  # fmt: skip


def instead(path, make):
    """Put something else in a file's place."""

    def spoil(arguments):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        return arguments

    return spoil


NAMES = {
    "nothing": "",
    "a dash": "-",
    "a tilde": "~/run",
    "an address": "https://example.org/run.yaml",
    "300 letters": "a" * 300,
    "a part of 300 letters": f"a/{'b' * 300}/c",
    "10,000 letters": "a/" * 5_000,
    "a null byte": "a\0b",
    "half a character": "run\udcff",
    "a newline": "run\n# Accuracy: 99 %",
    "a bracket": "[red]run[/red]",
    "an option": "--steps",
    "a null device": "null",
    "zeros": "zero",
    "a full disk": "full",
    "memory": "/proc/self/mem",
    "a system's folder": "/proc",
    "the root": "/",
    "below a file": "run.yaml/x",
    "missing": "nowhere/run",
    "a FIFO": "fifo",
    "a loop": "loop",
    "a broken link": "dangling",
    "the folder itself": ".",
}
"""Paths that somebody may give."""

DEVICES = {"null": 3, "zero": 5, "full": 7}
"""Those in the working folder, as root could replace the system's."""


def device(name, minor):
    """Make a device, where that is allowed; else a link to the system's."""
    try:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    except PermissionError:
        os.symlink(f"/dev/{name}", name)


def named(name, option=None):
    """Give a path for the first argument, or for an option."""

    def spoil(arguments):
        os.mkfifo("fifo")
        os.symlink("loop", "loop")
        os.symlink("nowhere", "dangling")
        for each, minor in DEVICES.items():
            device(each, minor)
        if name == "/":
            nobody()(arguments)  # as root could write there
        if option is None:
            return [arguments[0], name, *arguments[2:]]
        where = arguments.index(option) if option in arguments else len(arguments)
        return [*arguments[:where], option, name, *arguments[where + 2 :]]

    return spoil


CONFIGURATIONS = {
    "a folder": CONTENTS["a folder"], "a FIFO": CONTENTS["a FIFO"], "binary": CONTENTS["binary"],
    "not UTF-8": CONTENTS["not UTF-8"], "nested": CONTENTS["nested"], "large": CONTENTS["large"],
    "empty": CONTENTS["empty"], "zeros": CONTENTS["a link to zeros"],
    "a loop": CONTENTS["a link to itself"],
    "an anchor bomb": lambda path: path.write_text(
        "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in pairwise("abcdefghi"))
    ),
    "a tag": lambda path: path.write_text("!!python/object/apply:os.system ['true']\n"),
    "a null byte": lambda path: path.write_bytes(b"name: a\0b\n"),
}  # fmt: skip


def rewritten(*changes):
    """The configuration with texts replaced."""

    def spoil(arguments):
        text = Path("run.yaml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        Path("run.yaml").write_text(text, errors="surrogateescape")
        return arguments

    return spoil


def photos(folder):
    """Two classes of images."""
    from PIL import Image

    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 20 * i).save(folder / name / f"{i}.png")


def images(make):
    """Train on a folder of images with something wrong in it."""

    def spoil(arguments):
        photos(Path("images"))
        make(Path("images"))
        where = "{set: folder, folder: images, image_size: 8}"
        rewritten(("data:\n  set: digits", f"data: {where}"))(arguments)
        return ["images" if argument == PHOTOS else argument for argument in arguments]

    return spoil


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


def huge_image(path):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x0f\xff\xff\0\x0f\xff\xff\x08\0\0\0\0"
    path.write_bytes(header)


IMAGES = {
    "one cut in half": lambda folder: cut(folder / "one/3.png"),
    "one empty": lambda folder: (folder / "one/3.png").write_bytes(b""),
    "one a zip": lambda folder: (folder / "one/3.png").write_bytes(b"PK\x05\x06" + bytes(18)),
    "one too large": lambda folder: huge_image(folder / "one/3.png"),
    "one a FIFO": lambda folder: os.mkfifo(folder / "one/a.png"),
    "one a folder": lambda folder: (folder / "one/a.png").mkdir(),
    "one a dangling link": lambda folder: (folder / "one/a.png").symlink_to("nowhere"),
    "one a link to zeros": lambda folder: (folder / "one/a.png").symlink_to("/dev/zero"),
    "a class empty": lambda folder: (folder / "three").mkdir(),
    "a class not UTF-8": lambda folder: os.mkdir(bytes(folder) + b"/\xff"),
    "a class with a newline": lambda folder: (folder / "a\nb").mkdir(),
    "no class": lambda folder: shutil.rmtree(folder / "one"),
    "a deep folder": lambda folder: deep_folder(folder / "deep"),
    "a link to itself": lambda folder: (folder / "loop").symlink_to("."),
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("mine")),
    "missing": shutil.rmtree,
}  # fmt: skip


def variables(**changes):
    """Set environment variables; ``None`` removes one."""

    def spoil(arguments):
        for name, value in changes.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        return arguments

    return spoil


VARIABLES = {
    "restarts of letters": {"TORCHELASTIC_RESTART_COUNT": "x"},
    "no temporary folder": {"TMPDIR": "/nowhere", "TEMP": "/nowhere", "TMP": "/nowhere"},
    "no home": {"HOME": None},
    "a home that is a device": {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null"},
    "no columns": {"COLUMNS": "0", "LINES": "0"},
    "columns of letters": {"COLUMNS": "x", "LINES": "-3"},
    "a dumb terminal": {"TERM": "dumb"},
    "no terminal": {"TERM": None},
    "no colour": {"NO_COLOR": "1"},
    "colour in a pipe": {"FORCE_COLOR": "1", "TERM": "xterm-256color"},
    "another locale": {"LANG": "C", "LC_ALL": "C"},
    "no such locale": {"LANG": "xx_YY.UTF-9", "LC_ALL": "xx_YY.UTF-9"},
    "threads of letters": {"OMP_NUM_THREADS": "abc", "MKL_NUM_THREADS": "-1"},
    "no drawing": {"MPLBACKEND": "nonsense", "MPLCONFIGDIR": "/dev/null/x"},
    "no time zone": {"TZ": "nonsense"},
    "no path": {"PATH": ""},
}  # fmt: skip


def ranked(**changes):
    """Set variables of torchrun, and wait for a short time only."""

    def spoil(arguments):
        return [*variables(**changes)(arguments), "--timeout", str(TIMEOUT)]

    return spoil


def limited(which, size):
    """Limit something that the process may have."""

    def spoil(arguments):
        limit = getattr(resource, f"RLIMIT_{which}")
        resource.setrlimit(limit, (size(), resource.getrlimit(limit)[1]))
        return arguments

    return spoil


def memory(more):
    """So many bytes more than the process has now."""
    return lambda: int(Path("/proc/self/statm").read_text().split()[0]) * 4096 + more


def descriptors(left):
    """So many can be opened yet, whatever is open now."""

    def spoil(arguments):
        most = max(map(int, os.listdir("/proc/self/fd")))
        while (last := os.dup(0)) < most:  # what lies between those that are open
            pass
        os.close(last)
        limit = resource.RLIMIT_NOFILE
        resource.setrlimit(limit, (last + left, resource.getrlimit(limit)[1]))
        return arguments

    return spoil


LIMITS = {
    **{f"files of {n:,} bytes": limited("FSIZE", lambda n=n: n) for n in (0, 100, 3_000, 30_000)},
    **{f"{n} descriptors more": descriptors(n) for n in (0, 1, 2, 3, 4, 6, 8)},
    **{f"{n} MB more memory": limited("AS", memory(n << 20)) for n in (0, 1, 4, 16, 64)},
    "a small stack": limited("STACK", lambda: 1 << 16),
}


def nobody(change=lambda: None):
    """Lose the rights of the superuser, over some files of his."""

    def spoil(arguments):
        change()
        if os.getuid() == 0:  # who else runs the tests owns the files, and has lost them too
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        return arguments

    return spoil


def protect(*paths, mode=0):
    def change():
        for path in map(Path, paths):
            for each in (path, *path.rglob("*")):
                if each.exists():
                    each.chmod(mode | (0o111 & each.stat().st_mode if mode else 0))

    return change


def without_processes():
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))


PERMISSIONS = {
    "everything belongs to another": nobody(),
    "the configuration is unreadable": nobody(protect("run.yaml")),
    "the run is unreadable": nobody(protect("runs")),
    "the run is read-only": nobody(protect("runs", mode=0o444)),
    "the front is unreadable": nobody(protect("runs/tiny/front.json")),
    "the checkpoints are unreadable": nobody(protect("runs/tiny/checkpoints")),
    "the folder is unreadable": nobody(protect(".")),
    "no more processes": nobody(without_processes),
}


def gone():
    """The working folder itself is removed."""

    def spoil(arguments):
        os.mkdir("inside")
        os.chdir("inside")
        os.rmdir("../inside")
        return arguments

    return spoil


def stream(number, make):
    """Standard output (1) or errors (2) that fail."""

    def spoil(arguments):
        name = {1: "stdout", 2: "stderr"}[number]
        setattr(sys, name, make(number))
        return arguments

    return spoil


def onto(path):
    def make(number):
        os.dup2(os.open(path, os.O_WRONLY), number)
        return os.fdopen(number, "w", closefd=False)

    return make


def pipe(number):
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, number)
    return os.fdopen(number, "w", closefd=False)


def closed(number):
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)  # what `enter` does; Python has None then


def ascii_only(number):
    return os.fdopen(number, "w", closefd=False, encoding="ascii")


STREAMS = {
    f"{name} {how}": stream(number, make)
    for number, name in ((1, "stdout"), (2, "stderr"))
    for how, make in {
        "full": onto("/dev/full"), "broken": pipe, "closed": closed, "ASCII": ascii_only,
    }.items()
}  # fmt: skip

STARTING, FINISHED = ("run", "train"), ("search", "export", "best", "report", "compare")
CONFIGURED = (*STARTING, "latency")
OUT = ("compare", "reproduce", "latency", "init")
TOGETHER = (*STARTING, "search", "export")
PATHS = (*CONFIGURED, *FINISHED)
ALL = (*PATHS, "reproduce", "init", "help")

SURROUNDINGS = {
    **{f"path: {k}": ((*PATHS, "help"), named(v)) for k, v in NAMES.items()},
    **{f"--runs: {k}": (STARTING, named(v, "--runs")) for k, v in NAMES.items()},
    **{f"--out: {k}": (OUT, named(v, "--out")) for k, v in NAMES.items()},
    **{f"--data: {k}": (("reproduce", "init"), named(v, "--data")) for k, v in NAMES.items()},
    **{
        f"configuration: {k}": (CONFIGURED, instead(Path("run.yaml"), v))
        for k, v in CONFIGURATIONS.items()
    },
    **{
        f"file: {file}, {k}": ((*FINISHED, "run"), instead(RUN / file, v))
        for file in FILES
        for k, v in CONTENTS.items()
    },
    **{f"images: {k}": ((*CONFIGURED, "init"), images(v)) for k, v in IMAGES.items()},
    **{f"variable: {k}": (ALL, variables(**v)) for k, v in VARIABLES.items()},
    **{f"ranks: {k}": (TOGETHER, ranked(**v)) for k, v in ALONE.items()},
    **{f"limit: {k}": (ALL, v) for k, v in LIMITS.items()},
    **{f"rights: {k}": (ALL, v) for k, v in PERMISSIONS.items()},
    **{f"stream: {k}": (ALL, v) for k, v in STREAMS.items()},
    "place: removed": (ALL, gone()),
}
"""By name: the commands that it concerns, and what spoils the world before one of them."""
