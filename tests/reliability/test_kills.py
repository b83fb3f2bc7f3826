"""Rows 2 and 3: a run killed at any moment ends in the same bytes and loses a little work only."""

import os
import random
import resource
import signal
import time
from itertools import count

from tests.faults import CHANGING
from tests.reliability.child import fork
from tests.reliability.tiny import (
    CHECKPOINT_EVERY,
    FORMAT,
    clear,
    configure,
    finishes,
    outcome,
    run,
)

from boundnas.store import checkpoint
from boundnas.store.folder import RunFolder
from boundnas.store.lines import read_jsonl

DIED = 9


def survives(folder):
    """What a kill left can be read, and at most one checkpoint interval of steps is lost."""
    held = RunFolder(folder / "runs" / "tiny")
    for path in held.checkpoints.glob("step-*"):
        checkpoint._verified(path, int(path.name.removeprefix("step-")), None)
    saved = checkpoint.newest(held.checkpoints)
    steps = len(read_jsonl(held.metrics)) if held.metrics.exists() else 0
    assert steps - (saved.step if saved else 0) <= CHECKPOINT_EVERY


def test_a_run_killed_again_and_again_at_random_ends_in_the_same_bytes(
    whole, tmp_path, full, figure
):
    rng = random.Random(0)
    configure(tmp_path)
    kills = finished = 0
    while kills < (200 if full else 8):
        child = fork(run, tmp_path)
        time.sleep(rng.uniform(0, 0.4))
        child.send(signal.SIGKILL)
        code = child.wait()
        if code == 0:
            assert outcome(tmp_path) == whole
            clear(tmp_path)
            finished += 1
            continue
        assert code == -signal.SIGKILL, child.text
        kills += 1
        survives(tmp_path)
    finishes(tmp_path, whole)
    figure(f"{kills} random kills, {finished + 1} runs finished in the same bytes")


def dying_at(number):
    """Run until just before or after a call that changes the disk: two points for every call."""
    points = count(1)

    def die():
        if next(points) == number:
            os._exit(DIED)

    def wrapped(call):
        def run(*args, **kwargs):
            die()
            result = call(*args, **kwargs)
            die()
            return result

        return run

    def work():
        for name in CHANGING:
            setattr(os, name, wrapped(getattr(os, name)))
        run()

    return work


def test_a_run_that_dies_around_any_change_of_the_disk_ends_in_the_same_bytes(
    whole, tmp_path, full, figure
):
    points = 0
    for number in range(1, 10_000, 1 if full else 37):
        configure(tmp_path)
        child = fork(dying_at(number), tmp_path)
        code = child.wait()
        if code == 0:
            break
        assert code == DIED, child.text
        points = number
        survives(tmp_path)
        finishes(tmp_path, whole)
        clear(tmp_path)
    assert points > 100, "the run changes the disk more often than that"
    figure(f"{points if full else points // 37 + 1} deaths around changes of the disk, same bytes")


def killed_in_a_write(size):
    """Run until a file is to grow beyond a size; the write that would do it ends the process."""

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        run()

    return work


def test_a_run_killed_within_a_write_ends_in_the_same_bytes(whole, tmp_path, full, figure):
    sizes = sorted({len(content) for content in whole.values()})
    budgets = [s - 1 for s in sizes if s] + [s // 2 for s in sizes]
    budgets = budgets if full else budgets[::9]
    for size in budgets:
        configure(tmp_path)
        child = fork(killed_in_a_write(size), tmp_path)
        assert child.wait() == -signal.SIGXFSZ
        survives(tmp_path)
        finishes(tmp_path, whole)
        clear(tmp_path)
    figure(f"{len(budgets)} kills within a write, same bytes")


def test_an_export_that_dies_leaves_whole_folders_only(exported, tmp_path, full, figure):
    configure(tmp_path, FORMAT)
    searched = {k: v for k, v in exported.items() if not k.startswith(("networks/", "report"))}
    networks = {name.rpartition("/")[0] for name in exported if name.startswith("networks/")}
    deaths = 0
    for number in range(1, 10_000, 1 if full else 43):
        clear(tmp_path)
        for name, content in searched.items():
            path = tmp_path / "runs" / "tiny" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        child = fork(dying_at(number), tmp_path)
        code = child.wait()
        found = outcome(tmp_path)
        there = {name.rpartition("/")[0] for name in found if name.startswith("networks/")}
        for folder in {name for name in there if "partial" not in name}:
            assert folder in networks
            assert {k for k in found if k.startswith(f"{folder}/")} == {
                k for k in exported if k.startswith(f"{folder}/")
            }
        if code == 0:
            break
        assert code == DIED, child.text
        deaths += 1
    finishes(tmp_path, exported)
    figure(f"an export died {deaths} times, whole folders only")
