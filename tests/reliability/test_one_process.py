"""One process at a time works in a run folder, whatever became of the ones before."""

import json
import os
import platform
import signal
import time

import pytest
from tests.reliability.child import fork

from boundnas.errors import RunError
from boundnas.store.environment import environment, note_environment
from boundnas.store.folder import RunFolder


def holding(run, seconds=100):
    """Keep the lock of a run folder for a while."""

    def work():
        with run.locked():
            time.sleep(seconds)

    return work


@pytest.fixture
def held(tmp_path):
    """A run folder and the child process that works in it."""
    run = RunFolder.create(tmp_path / "run", "name: run\n")
    child = fork(holding(run), tmp_path)
    while not run.lock.exists() or not run.lock.read_text():
        time.sleep(0.01)
    yield run, child
    child.send(signal.SIGKILL)
    child.wait()


def test_a_second_process_is_refused_and_told_who_is_there(held):
    run, child = held
    name = f"process {child.pid} on {platform.node()}"
    with pytest.raises(RunError, match=rf"run: {name} works in this folder; wait until"):
        run.locked().__enter__()
    assert run.lock.read_text() == name, "the one that is there keeps its lock"


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path):
    run = RunFolder.create(tmp_path / "run", "name: run\n")
    child = fork(holding(run), tmp_path)
    while not run.lock.exists() or not run.lock.read_text():
        time.sleep(0.01)
    child.send(signal.SIGKILL)
    child.wait()
    with run.locked():
        assert run.lock.read_text() == f"process {os.getpid()} on {platform.node()}"
    assert run.lock.read_text() == ""


def test_a_folder_is_free_again_after_an_error(tmp_path):
    run = RunFolder.create(tmp_path / "run", "name: run\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), run.locked():
            raise ZeroDivisionError


def test_going_on_elsewhere_is_warned_of_and_goes_on(tmp_path, caplog):
    path = tmp_path / "environment.json"
    note_environment(path)
    written = path.read_text()
    note_environment(path)
    assert caplog.text == ""
    path.write_text(json.dumps({**environment(), "threads": 64, "torch": "1.0", "more": 1}))
    note_environment(path)
    (said,) = caplog.messages
    assert "the run began with torch 1.0, now " in said
    assert "threads 64, now 1, more 1, now unknown; it goes on" in said
    path.write_text(written[:-9])
    with pytest.raises(RunError, match=r"environment.json: is no JSON object"):
        note_environment(path)


@pytest.mark.parametrize("name", sorted(environment()))
def test_every_part_of_the_surroundings_is_compared(name, tmp_path, caplog):
    path = tmp_path / "environment.json"
    for held in (environment() | {name: "another"}, environment()):
        path.write_text(json.dumps(held))
        note_environment(path)
    assert [f"{name} another, now " in said for said in caplog.messages] == [True]
    del held[name]
    path.write_text(json.dumps(held))
    note_environment(path)
    assert f"{name} unknown, now {environment()[name]}" in caplog.text


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_CBWR"])
def test_variables_that_choose_instructions_are_noted(name, monkeypatch):
    monkeypatch.delenv(name, raising=False)
    before = environment()["instructions"]
    monkeypatch.setenv(name, "AVX2")
    assert f"{name}=AVX2" in environment()["instructions"].split(", ")
    assert environment()["instructions"] != before


def test_the_number_of_ranks_is_noted(monkeypatch):
    monkeypatch.setattr("boundnas.store.environment.size", lambda: 4)
    assert environment()["ranks"] == 4
