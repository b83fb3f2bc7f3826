"""What a checkpoint relies on is on the disk before it, and is wanted back row for row."""

import json
import logging
import os
import shutil

import pytest
from tests.faults import Killed
from tests.reliability.child import replaced
from tests.small import COST_RANGE, few_digits, files, mobilenet

from boundnas import TrainSettings, fit
from boundnas.errors import RunError
from boundnas.store import checkpoint
from boundnas.store.folder import RunFolder

STEPS, EVERY, STOP = 12, 3, 9
OLDER = STOP - EVERY


def train(path):
    settings = TrainSettings(steps=STEPS, batch_size=16, checkpoint_every=EVERY)
    folder = RunFolder.create(path, "name: run\n")
    fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings, folder=folder)


def stopped(path, stop=STOP, before=False):
    """Train until just after the checkpoint of a step, or before it."""

    def make(save):
        def saving(folder, step, *rest, **options):
            if not (before and step == stop):
                save(folder, step, *rest, **options)
            if step == stop:
                raise Killed

        return saving

    with replaced(checkpoint, "save", make), pytest.raises(Killed):
        train(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The files of an uninterrupted run, and the folder of one stopped after step 9 of 12."""
    folder = tmp_path_factory.mktemp("logs")
    train(folder / "whole")
    stopped(folder / "stopped")
    return files(folder / "whole"), folder / "stopped"


def changed(rows, i):
    row = json.loads(rows[i])
    row["more"] = 1
    return [*rows[:i], json.dumps(row) + "\n", *rows[i + 1 :]]


DAMAGES = {
    "cut before": lambda rows, i: rows[:i],
    "torn in": lambda rows, i: [*rows[:i], rows[i][:20]],
    "without": lambda rows, i: rows[:i] + rows[i + 1 :],
    "doubled": lambda rows, i: rows[: i + 1] + rows[i:],
    "swapped with the one before": lambda rows, i: [
        *rows[: max(i - 1, 0)], rows[i], *rows[max(i - 1, 0) : i], *rows[i + 1 :]
    ],
    "changed": changed,
    "with the digits of another": lambda rows, i: [
        *rows[:i], rows[i].replace("1", "2"), *rows[i + 1 :]
    ],
    "of another step": lambda rows, i: [
        *rows[:i], rows[i].replace(f'"step": {i}', f'"step": {i + 1}'), *rows[i + 1 :]
    ],
}  # fmt: skip
"""What may have become of a log's rows from row ``i`` on."""


@pytest.mark.parametrize("name", ["metrics.jsonl", "boundaries.jsonl"])
def test_rows_that_are_not_those_written_are_made_again_or_refused(
    name, runs, tmp_path, full, figure, caplog
):
    whole, held = runs
    rows = (held / name).read_text().splitlines(keepends=True)
    assert len(rows) == STOP
    cases = [(i, damage) for i in range(STOP) for damage in DAMAGES]
    last = len(DAMAGES)
    cases = cases if full else [*cases[:-last:9], *cases[1 - last :: 2]]
    refused = 0
    for number, (i, damage) in enumerate(cases):
        path = shutil.copytree(held, tmp_path / str(number))
        spoilt = "".join(DAMAGES[damage](rows, i))
        if spoilt == "".join(rows):
            continue
        (path / name).write_text(spoilt)
        before = files(path)
        caplog.clear()
        first = i - (damage.startswith("swapped"))
        if first < OLDER:
            with pytest.raises(RunError, match=rf"none of its checkpoints .*{name}"):
                train(path)
            assert files(path) | {".lock": b""} == before
            refused += 1
        else:
            with caplog.at_level(logging.WARNING):
                train(path)
            assert f"passed over the checkpoint of step {STOP}: {path / name}" in caplog.text
            assert files(path) == whole
    figure(f"{name}: {len(cases)} damages, {refused} refused, no silence")


def noting(synced):
    """``os.fsync`` that keeps how much of each file the disk has."""

    def make(call):
        def run(descriptor):
            call(descriptor)
            status = os.fstat(descriptor)
            synced[status.st_ino] = status.st_size

        return run

    return make


def cut_power(path, synced):
    """Take away what no ``fsync`` has reached."""
    for file in path.rglob("*"):
        if file.is_file() and file.name != ".lock":
            with file.open("ab") as content:
                content.truncate(synced[file.stat().st_ino])


@pytest.mark.parametrize("before", [False, True], ids=["after a save", "before a save"])
def test_a_power_cut_costs_no_row_that_a_checkpoint_relies_on(
    before, runs, tmp_path, full, figure, caplog
):
    stops = range(EVERY, STEPS + 1, EVERY) if full else (2 * EVERY,)
    for stop in stops:
        path, synced = tmp_path / str(stop), {}
        with replaced(os, "fsync", noting(synced)):
            stopped(path, stop, before)
        cut_power(path, synced)
        train(path)
        assert files(path) == runs[0]
        assert caplog.text == ""
    figure(f"{len(stops)} power cuts, nothing lost that was relied on")


@pytest.mark.parametrize("values", [b"[]\n", b"7", b'{"logs": []}', b'{"logs": {"metrics": {}}}'])
def test_a_checkpoint_whose_values_are_no_state_is_passed_over(values, runs, tmp_path):
    path = shutil.copytree(runs[1], tmp_path / "run")
    for step in (OLDER, STOP):
        folder = path / "checkpoints" / f"step-{step:08}"
        data = {n: (folder / n).read_bytes() for n in ("state.safetensors", "state.json")}
        data["state.json"] = values
        (folder / "state.json").write_bytes(data["state.json"])
        (folder / "manifest.json").write_bytes(checkpoint._manifest(step, data))
    with pytest.raises(RunError, match=rf"the checkpoint of step {STOP} holds no state of a run"):
        train(path)
