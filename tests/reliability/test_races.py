"""Row 17: one worker a folder, whatever is done to the folder or its lock meanwhile."""

import os
import random
import re
import shutil
import time
from collections import Counter
from contextlib import contextmanager, suppress

from tests.reliability.child import fork
from tests.reliability.tiny import clear, configure, finishes, run

from boundnas.report import write_report
from boundnas.store.folder import RunFolder
from boundnas.store.lines import read_jsonl

ANSWERS = re.compile(
    r"RunError: \S*tiny\S*: ((process \d+ on \S+|another process) works in this folder"
    r"|(was removed or renamed|became another folder) while this process worked in it"
    r"|was removed or replaced while this process wrote to it"
    r"|is a link, where a regular file should be"
    r"|is missing; give the folder of a run|cannot be written \(No such file)"
)


def entering(folder):
    """Run, and note outside of the run folder when this process enters one and leaves it."""

    def work():
        os.chdir(folder)
        locked = RunFolder.locked

        def note(sign, run):
            line = f"{sign} {os.getpid()} {os.fstat(run.held.descriptor).st_ino}\n"
            with (folder / "entered").open("ab", buffering=0) as file:
                file.write(line.encode())

        @contextmanager
        def noted(self):
            with locked(self):
                note("+", self)
                try:
                    yield
                finally:
                    note("-", self)

        RunFolder.locked = noted
        run()

    return work


def check_one_at_a_time(folder):
    """No process was within a folder, by the folder's number, in which another was."""
    within = {}
    for line in (folder / "entered").read_text().splitlines():
        sign, pid, number = line.split()
        depth = within.setdefault(number, Counter())
        depth[pid] += 1 if sign == "+" else -1
        assert len(+depth) <= 1, f"{pid} entered a folder in which another process was"


def remove_lock(path):
    (path / ".lock").unlink()


def link_lock(path):
    remove_lock(path)
    (path / ".lock").symlink_to("/dev/null")


def replace_lock(path):
    remove_lock(path)
    (path / ".lock").touch()


def rename(path):
    path.rename(path.with_name("moved"))


def rename_and_back(path):
    rename(path)
    time.sleep(0.05)
    path.with_name("moved").rename(path)


def replace(path):
    copy = shutil.copytree(path, path.with_name("copy"))
    rename(path)
    copy.rename(path)


def link(path):
    rename(path)
    path.symlink_to("moved")


DISTURBANCES = [
    lambda path: None, remove_lock, lambda path: None, replace_lock, rename, link_lock, replace,
    shutil.rmtree, rename_and_back, link,
]  # fmt: skip


def race(rng, folder, disturb):
    """Start some processes at once and disturb them; gives what each of them said."""
    path = folder / "runs" / "tiny"
    children = [fork(entering(folder), folder) for _ in range(rng.randint(2, 4))]
    time.sleep(rng.uniform(0, 0.5))
    with suppress(OSError, shutil.Error):  # not there yet
        disturb(path)
    return [(child.wait(), child.text) for child in children]


def test_one_process_writes_whatever_becomes_of_the_folder(whole, tmp_path, full, figure):
    rng, races, refused = random.Random(0), 200 if full else 5, 0
    for number in range(races):
        folder = configure(tmp_path / str(number))
        disturb = DISTURBANCES[number % len(DISTURBANCES)]
        said = race(rng, folder, disturb)
        for code, text in said:
            errors = [line for line in text.splitlines() if "Error" in line]
            assert (code, len(errors)) in ((0, 0), (1, 1)), text
            assert "Traceback" not in text
            assert not errors or ANSWERS.match(errors[0]), text
            refused += code
        finished = [code for code, _ in said].count(0)
        check_one_at_a_time(folder)
        assert finished >= 1 or disturb not in DISTURBANCES[:4], said
        for each in (folder / "runs").iterdir():
            rows = read_jsonl(each / "metrics.jsonl")
            assert [row["step"] for row in rows] == list(range(len(rows)))
        if (folder / "runs" / "tiny").is_symlink():
            (folder / "runs" / "tiny").unlink()
        (folder / "runs" / "tiny" / ".lock").unlink(missing_ok=True)
        finishes(folder, whole)
        clear(folder)
    figure(f"{races} races, {refused} starts refused or stopped, no folder with two writers")


def test_two_reports_at_once_both_succeed(whole, tmp_path, full, figure):
    path = tmp_path / "runs" / "tiny"
    for name, content in whole.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    pairs = 40 if full else 8
    for _ in range(pairs):
        children = [fork(lambda: write_report(path), tmp_path) for _ in range(2)]
        for child in children:
            assert child.wait() == 0, child.text
        assert (path / "report.html").read_bytes() == whole["report.html"]
        assert {p.name for p in path.glob(".*")} <= {".lock"}
    figure(f"{pairs} pairs of reports at once, all whole")
