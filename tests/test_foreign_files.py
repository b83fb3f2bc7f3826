"""What else than a regular file may lie where one is read or written: one error, never a wait."""

import errno
import os
import shutil
import socket
import subprocess
from contextlib import chdir, suppress
from pathlib import Path

import pytest
from tests.reliability.child import replaced
from tests.reliability.tiny import text

from boundnas.app import pipeline
from boundnas.config import read_config
from boundnas.data.array_zip import read_npz
from boundnas.data.decode import decoded_size
from boundnas.data.idx import read_idx
from boundnas.errors import BoundNASError, ConfigError, DataError, RunError
from boundnas.report import write_report
from boundnas.store.files import read_bytes, write_text
from boundnas.store.folder import RunFolder

FILES = (
    "config.yaml", ".lock", "environment.json", "space.json", "metrics.jsonl", "boundaries.jsonl",
    "bounds.json", "search/evaluations.jsonl", "search/finalists.jsonl", "front.json",
    "report.html",
)  # fmt: skip
FOLDERS = ("checkpoints", "search", "networks")
"""With FILES all that a run writes into its folder."""


def make_socket(path):
    with chdir(path.parent), socket.socket(socket.AF_UNIX) as each:
        each.bind(path.name)  # it may have 107 bytes, which a whole path exceeds


def make_device(path):
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root may make devices")


def make_huge(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)  # of holes


KINDS = {
    "a named pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": make_device,
    "a folder": Path.mkdir,
}
LINKS = {
    "a file": lambda outside, path: outside / "file",
    "a folder": lambda outside, path: outside / "inner",
    "nothing": lambda outside, path: outside / "nothing",
    "itself": lambda outside, path: path,
}
"""What a link below a run folder may lead to."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its configuration."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "run.yaml").write_text(text())
    config = read_config(folder / "run.yaml")
    pipeline.run(config, folder)
    return folder / "tiny", config


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, beside a folder that is none of its business."""
    (tmp_path / "outside" / "inner").mkdir(parents=True)
    (tmp_path / "outside" / "file").write_text("mine")
    return shutil.copytree(finished[0], tmp_path / "runs" / "tiny")


def entries(folder):
    """All that lies in a folder and when it changed."""
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


def put(path, make):
    """Let something else lie under a name."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    path.parent.mkdir(exist_ok=True)
    make(path)


@pytest.mark.parametrize("name", FILES + FOLDERS)
def test_no_link_below_a_run_folder_is_followed(name, finished, run):
    outside = run.parents[1] / "outside"
    before = entries(outside)
    link = run / name
    for target in LINKS.values():
        put(link, lambda path, target=target: path.symlink_to(target(outside, path)))
        with pytest.raises(RunError, match=rf"{name}: is a link, where a"):
            pipeline.run(finished[1], run.parent)
        with pytest.raises(RunError, match=rf"{name}: is a link, where a"):
            RunFolder.open(run)
        assert link.is_symlink()
        assert entries(outside) == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_one_error_wherever_a_run_has_a_file(kind, finished, run):
    held = entries(run)
    for name in FILES:
        path = run / name
        put(path, KINDS[kind])
        with pytest.raises(RunError, match=rf"{name}: is {kind}, where a regular file should be"):
            pipeline.run(finished[1], run.parent)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (finished[0] / name).exists():
            shutil.copy2(finished[0] / name, path)
    assert entries(run).keys() == held.keys()


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a file"])
def test_what_is_no_folder_is_one_error_wherever_a_run_has_a_folder(kind, finished, run):
    for name in FOLDERS:
        put(run / name, {**KINDS, "a file": Path.touch}[kind])
        with pytest.raises(RunError, match=rf"{name}: is {kind}, where a folder should be"):
            pipeline.run(finished[1], run.parent)
        (run / name).unlink()


READERS = {
    "a record": (lambda path: read_bytes(path), RunError),
    "a configuration": (read_config, ConfigError),
    "an npz file": (lambda path: read_npz(path, ("a",)), DataError),
    "an idx file": (lambda path: read_idx(path, ()), DataError),
}


@pytest.mark.parametrize(("read", "error"), READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_reader_waits_for_a_pipe_or_takes_a_device(kind, read, error, tmp_path):
    put(tmp_path / "thing", KINDS[kind])
    with pytest.raises(error, match=rf"thing: is {kind}, where a regular file should be"):
        read(tmp_path / "thing")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("linked", [False, True])
def test_no_file_is_written_over_what_is_none_wherever_it_lies(kind, linked, tmp_path):
    """As over `/dev/null`, which root may replace."""
    place = thing = tmp_path / "thing"
    put(thing, KINDS[kind])
    if linked:
        place = tmp_path / "link"
        place.symlink_to(thing)
    before = thing.lstat()
    with pytest.raises(RunError, match=rf"{place.name}: is {kind}, where a regular file should be"):
        write_text(place, "mine")
    assert thing.lstat() == before
    assert place.is_symlink() == linked


def test_an_image_that_is_no_file_is_a_fault_of_this_image(tmp_path):
    for make in KINDS.values():
        put(tmp_path / "image.png", make)
        with pytest.raises(DataError, match=r"image\.png: cannot be read .*: it is no regular"):
            decoded_size(tmp_path / "image.png")


def test_a_file_of_any_size_is_refused_before_it_is_read(finished, run):
    for name in set(FILES) - {".lock"}:
        put(run / name, make_huge)
        with pytest.raises(BoundNASError, match=rf"{name}: has 1,099,511,627,776 bytes or more"):
            read_bytes(run / name, held=RunFolder(run).held)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_a_run_that_may_not_be_opened_is_named(name, run):
    def make(call):
        def opening(path, *args, **options):
            if path == name:
                raise PermissionError(errno.EACCES, "Permission denied")
            return call(path, *args, **options)

        return opening

    with (
        replaced(os, "open", make),
        pytest.raises(RunError, match=rf"{name}: cannot be opened \(Permission denied\); check"),
    ):
        RunFolder.open(run)


HARD_NAMES = {
    "a name too long": "x" * 300,
    "a path too long": "/".join(["x" * 200] * 30),
    "a null byte": "a\0b",
    "a file above": "file/run",
    "a link to itself above": "loop/run",
}


@pytest.mark.parametrize("name", HARD_NAMES.values(), ids=HARD_NAMES)
def test_a_path_that_cannot_be_is_one_error(name, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    uses = (
        RunFolder.open, lambda p: RunFolder.create(p, "name: run\n"), read_bytes,
        lambda p: write_text(p, "x"), write_report, lambda p: RunFolder.open(p / "inner"),
    )  # fmt: skip
    for use in uses:
        with pytest.raises(RunError, match=r"cannot be|is no run|no such run|is missing"):
            use(path)
    with pytest.raises(ConfigError, match=r"cannot be read|does not exist"):
        read_config(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]


def test_a_run_may_lie_a_thousand_folders_deep(tmp_path):
    path = tmp_path / "/".join("a" * 1200)
    run = RunFolder.create(path, "name: run\n")
    assert RunFolder.open(path).config.read_text() == "name: run\n"
    with run.locked():
        write_text(run.front, "[]", run.held)
    subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)  # pytest cannot go so deep
