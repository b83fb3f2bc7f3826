"""Row 5: where the disk refuses a write, one error says so, and nothing is lost or left behind."""

import errno
import os
import re
import resource

import pytest
from tests.reliability.child import fork, replaced
from tests.reliability.tiny import clear, configure, finishes, run

from boundnas.engine.foreign import ADVICE
from boundnas.store import checkpoint
from boundnas.store.folder import RunFolder
from boundnas.store.lines import read_jsonl

ONE_ERROR = re.compile(
    r"RunError: \S+/(?P<path>\S+): cannot be written \((?P<reason>[^)]+)\); [\d,]+ bytes are "
    r"needed, [\d,]+ are free on this disk; (?P<advice>.+)"
)

ROOM = re.compile(r"make room, or check the quota and the permissions of \S+, then run again")


def answered(child, folder, reason):
    """The child said what it could not write, and what it left can be gone on with."""
    assert child.wait() == 1, child.text
    errors = [line for line in child.text.splitlines() if "Error" in line]
    assert len(errors) == 1, child.text
    found = ONE_ERROR.fullmatch(errors[0])
    assert found["reason"] == reason
    if reason == os.strerror(errno.EROFS):
        assert found["advice"] == ADVICE[errno.EROFS]
    else:
        assert ROOM.fullmatch(found["advice"])
    assert "Traceback" not in child.text
    left = [path.name for path in folder.rglob(".*") if path.name != ".lock"]
    assert left == []
    held = RunFolder(folder / "runs" / "tiny")
    checkpoint.newest(held.checkpoints)
    if held.metrics.exists():
        assert held.metrics.read_bytes().count(b"\n") == len(read_jsonl(held.metrics))


def limited(size):
    """Run where no file may grow beyond a size."""

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        run()

    return work


def test_no_limit_on_bytes_costs_more_than_the_write_it_stops(whole, tmp_path, full, figure):
    sizes = sorted({len(content) for content in whole.values()} - {0})
    budgets = sorted(
        {0, 1} | {s - 1 for s in sizes} | {s * part // 5 for s in sizes for part in (1, 2, 3, 4)}
    )
    budgets = budgets if full else budgets[::9]
    for size in budgets:
        configure(tmp_path)
        answered(fork(limited(size), tmp_path), tmp_path, "File too large")
        finishes(tmp_path, whole)
        clear(tmp_path)
    figure(f"{len(budgets)} limits from {budgets[0]} to {budgets[-1]:,} bytes")
    assert not full or len(budgets) >= 60


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize(
    ("name", "number"),
    [("mkdir", 1), ("fsync", 1), ("fsync", 4), ("rename", 1), ("rename", 3), ("replace", 3)],
)
def test_any_refusal_of_the_disk_is_one_error(name, number, code, whole, tmp_path):
    configure(tmp_path)

    def failing(call):
        calls = iter(range(1, 1_000_000))

        def refused(*args, **kwargs):
            if next(calls) == number:
                raise OSError(code, os.strerror(code), *map(str, args[:1]))
            return call(*args, **kwargs)

        return refused

    def work():
        with replaced(os, name, failing):
            run()

    answered(fork(work, tmp_path), tmp_path, os.strerror(code))
    finishes(tmp_path, whole)


def test_a_file_in_the_place_of_the_runs_is_one_error(tmp_path):
    configure(tmp_path)
    (tmp_path / "runs").write_text("mine")
    child = fork(run, tmp_path)
    assert child.wait() == 1
    assert ONE_ERROR.search(child.text)["reason"] == "File exists"
    assert (tmp_path / "runs").read_text() == "mine"
