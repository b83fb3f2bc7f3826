"""A run folder stays the folder it was: nothing is written once its path names another."""

import fcntl
import os
import shutil
from contextlib import chdir, suppress

import pytest
import torch
from tests.reliability.child import fork, replaced
from tests.reliability.surroundings import descriptors
from tests.reliability.tiny import STEPS, text
from tests.small import COST_RANGE, few_digits, files, mobilenet

from boundnas import TrainSettings, fit
from boundnas.app import pipeline
from boundnas.config import read_config, write_config
from boundnas.errors import CostError, RunError
from boundnas.store import checkpoint
from boundnas.store.files import write_json
from boundnas.store.folder import RunFolder
from boundnas.store.lines import JsonLines
from boundnas.store.temporary import clean, temporary

CONFIG = "name: run\n"


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "run", CONFIG)


def rename(path):
    path.rename(path.with_name("moved"))


def replace(path):
    shutil.copytree(path, path.with_name("copy"))
    rename(path)
    path.with_name("copy").rename(path)


def link(path):
    shutil.copytree(path, path.with_name("copy"))
    rename(path)
    path.symlink_to("copy")


def replace_parent(path):
    shutil.copytree(path.parent, path.parent.with_name("copy"))
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.with_name("copy").rename(path.parent)


GONE, OTHER = "was removed or renamed while", "became another folder while"
CHANGES = {
    "removed": (shutil.rmtree, GONE),
    "renamed": (rename, GONE),
    "replaced by a copy": (replace, OTHER),
    "replaced by a link to a copy": (link, OTHER),
    "replaced with what it lies in": (replace_parent, OTHER),
    "replaced by a file": (lambda path: (rename(path), path.touch()), OTHER),
}


def save(run, step=2):
    checkpoint.save(run.checkpoints, step, {"w": torch.ones(2)}, {}, held=run.held)


WRITES = {
    "a record": lambda run, log: write_json(run.front, [], run.held),
    "a record in a new folder": lambda run, log: write_json(run.networks / "a", [], run.held),
    "a row": lambda run, log: log.append({"step": 1}),
    "a log": lambda run, log: JsonLines(run.boundaries, run.held),
    "a row kept": lambda run, log: log.sync(),
    "a checkpoint": lambda run, log: save(run),
}


def tree(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} | files(folder)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize(("change", "found"), CHANGES.values(), ids=CHANGES)
def test_nothing_is_written_when_the_path_names_another_folder(change, found, write, run, tmp_path):
    with run.locked(), JsonLines(run.metrics, run.held) as log:
        log.append({"step": 0})
        save(run, 1)
        change(run.path)
        before = tree(tmp_path)
        with pytest.raises(RunError, match=rf"run: {found} this process worked in it, which"):
            write(run, log)
        assert tree(tmp_path) == before


@pytest.mark.parametrize("change", [rename, os.unlink, replace], ids=lambda c: c.__name__)
def test_no_row_goes_into_a_log_that_nobody_will_find(change, run):
    with JsonLines(run.metrics, run.held) as log:
        log.append({"step": 0})
        if change is replace:
            run.metrics.with_name("copy").write_bytes(run.metrics.read_bytes())
            run.metrics.with_name("copy").rename(run.metrics)
        else:
            change(run.metrics)
        for write in (lambda: log.append({"step": 1}), log.sync):
            with pytest.raises(RunError, match=r"metrics.jsonl: was removed or replaced while"):
                write()


def test_training_stops_when_its_folder_is_removed_and_never_makes_it_again(run, tmp_path):
    def make(save):
        def saving(folder, step, *rest, **options):
            save(folder, step, *rest, **options)
            shutil.rmtree(run.path)

        return saving

    settings = TrainSettings(steps=4, batch_size=16, checkpoint_every=1)
    with replaced(checkpoint, "save", make), pytest.raises(RunError, match=GONE):
        fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings, folder=run)
    assert not list((tmp_path / "runs").iterdir())


SPELLINGS = {
    "relative": lambda path: path.relative_to(path.parents[1]),
    "roundabout": lambda path: path / ".." / "run",
    "by a link": lambda path: path.parents[1] / "link",
    "by a link above": lambda path: path.parents[1] / "above" / "run",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_a_path_is_the_same_lock(spelling, run, tmp_path):
    (tmp_path / "link").symlink_to("runs/run")
    (tmp_path / "above").symlink_to("runs")
    with chdir(tmp_path), run.locked():
        other = RunFolder.open(spelling(run.path))
        with pytest.raises(RunError, match=rf"process {os.getpid()} on .* works in this folder"):
            other.locked().__enter__()


@pytest.mark.parametrize("harm", [os.unlink, lambda path: path.write_text("")])
def test_the_lock_is_the_folders_whatever_becomes_of_its_note(harm, run):
    with run.locked():
        harm(run.lock)
        with pytest.raises(RunError, match="another process works in this folder"):
            RunFolder.open(run.path).locked().__enter__()


def test_the_note_is_locked_too_for_file_systems_that_share_only_locks_on_files(run):
    run.lock.write_text("process 7 on another machine")
    with run.lock.open() as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="process 7 on another machine works in this folder"):
            run.locked().__enter__()
    with run.locked():
        pass


def test_a_note_with_another_name_elsewhere_is_not_written(run):
    with run.locked():
        copy = RunFolder.create(run.path.with_name("copy"), CONFIG)
        os.link(run.lock, copy.lock)
        with pytest.raises(RunError, match=r"\.lock: cannot be written \(It has another name"):
            copy.locked().__enter__()
        copy.lock.unlink()


def test_a_folder_may_be_locked_again_by_whoever_holds_it(run):
    with run.locked():
        with run.locked():
            pass
        with pytest.raises(RunError, match="works in this folder"):
            RunFolder.open(run.path).locked().__enter__()
    with RunFolder.open(run.path).locked():
        pass


def test_training_from_python_keeps_others_out_too(run):
    settings = TrainSettings(steps=1, batch_size=16)
    with run.locked(), pytest.raises(RunError, match="works in this folder"):
        fit(
            mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings,
            folder=RunFolder.open(run.path),
        )  # fmt: skip


@pytest.mark.parametrize("config", [text(), text().replace(f"steps: {STEPS}", "steps: 25")])
def test_who_works_in_a_folder_is_told_before_its_configuration_or_the_data(config, tmp_path):
    for name, content in (("first", text()), ("second", config)):
        (tmp_path / name).write_text(content)
    first, second = (read_config(tmp_path / name) for name in ("first", "second"))
    held = RunFolder.create(tmp_path / "runs" / "tiny", write_config(first))
    with (
        held.locked(),
        replaced(pipeline.Job, "prepare", lambda _: None),
        pytest.raises(RunError, match=rf"process {os.getpid()} on .* works in this folder"),
    ):
        pipeline.run(second, tmp_path / "runs")


def test_what_is_refused_while_a_run_is_prepared_leaves_no_folder(tmp_path):
    def refusing(_):
        def prepare(config):
            raise CostError("refused")

        return prepare

    (tmp_path / "run.yaml").write_text(text())
    config = read_config(tmp_path / "run.yaml")
    with replaced(pipeline.Job, "prepare", refusing), pytest.raises(CostError) as caught:
        pipeline.run(config, tmp_path / "runs")
    assert not caught.value.begun
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_a_folder_that_was_replaced_before_it_was_locked_is_not_worked_in(run):
    replace(run.path)
    with pytest.raises(RunError, match=OTHER):
        run.locked().__enter__()
    with RunFolder.open(run.path).locked():
        pass


def test_a_log_with_another_name_elsewhere_is_not_written(run, tmp_path):
    (tmp_path / "mine").write_text('{"step": 0}\n')
    os.link(tmp_path / "mine", run.metrics)
    with pytest.raises(RunError, match=r"metrics.jsonl: has another name somewhere"):
        JsonLines(run.metrics, run.held)
    assert (tmp_path / "mine").read_text() == '{"step": 0}\n'


@pytest.mark.parametrize("config", [CONFIG, "name: other\n"])
def test_who_comes_second_opens_what_the_first_one_made(config, tmp_path):
    path = tmp_path / "run"

    def make(rename):
        def late(*args, **options):
            shutil.copytree(first.path, path)
            return rename(*args, **options)

        return late

    first = RunFolder.create(tmp_path / "first", CONFIG)
    with replaced(os, "rename", make):
        if config == CONFIG:
            RunFolder.create(path, config)
        else:
            with pytest.raises(RunError, match="holds a run of another configuration"):
                RunFolder.create(path, config)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "run"]


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_what_the_dead_left_is_removed_and_what_the_living_make_is_not(is_folder, tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)

    def dies():
        with temporary(folder, is_folder):
            os._exit(0)

    try:
        fork(dies, tmp_path).wait()
        with temporary(folder, is_folder) as (name, _):
            assert len(list(tmp_path.iterdir())) == 2
            (tmp_path / ".boundnas-mine.partial").touch()
            (tmp_path / ".boundnas-1-0123abcd.partial").symlink_to(tmp_path)
            clean(folder)
            names = {path.name for path in tmp_path.iterdir()}
            assert names == {name, ".boundnas-mine.partial", ".boundnas-1-0123abcd.partial"}
    finally:
        os.close(folder)


@pytest.mark.parametrize("left", range(6))
def test_a_folder_that_cannot_be_made_for_want_of_descriptors_leaves_nothing(left, tmp_path):
    def makes():
        folder = os.open(tmp_path, os.O_RDONLY)
        descriptors(left)(None)
        with suppress(OSError), temporary(folder, is_folder=True) as (_, made):
            for name in "abc":  # which stay open
                os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=made)

    assert fork(makes, tmp_path).wait() == 0
    assert (left < 5) == (not any(tmp_path.iterdir()))


@pytest.mark.parametrize("kind", ["link", "file"])
def test_an_old_checkpoint_that_is_a_link_or_a_file_is_forgotten_and_not_followed(
    kind, run, tmp_path
):
    save(run, 1)
    old = run.checkpoints / "step-00000001"
    old.rename(tmp_path / "mine")
    before = tree(tmp_path / "mine")
    old.symlink_to(tmp_path / "mine") if kind == "link" else old.touch()
    with pytest.raises(RunError, match=r"none of its checkpoints is whole.*where a folder should"):
        checkpoint.newest(run.checkpoints, run.held)
    for step in (2, 3):
        save(run, step)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step-00000002", "step-00000003"]
    assert tree(tmp_path / "mine") == before


def test_folders_nested_too_deep_to_be_removed_are_one_error(run):
    def make(_):
        def too_deep(*args, **options):
            raise RecursionError

        return too_deep

    for step in (1, 2):
        save(run, step)
    with (
        replaced(shutil, "rmtree", make),
        pytest.raises(RunError, match=r"step-00000003: cannot be written \(Folders are nested"),
    ):
        save(run, 3)
    assert checkpoint.newest(run.checkpoints, run.held).step == 3


@pytest.mark.parametrize("target", ["mine", "nothing"])
def test_a_link_that_appears_while_a_run_works_is_neither_followed_nor_replaced(
    target, run, tmp_path
):
    (tmp_path / "mine").write_text("mine")
    writes = {
        run.front: lambda: write_json(run.front, [], run.held),
        run.metrics: lambda: JsonLines(run.metrics, run.held),
        run.lock: lambda: run.locked().__enter__(),
        run.checkpoints: lambda: save(run),
        run.networks: lambda: write_json(run.networks / "a", [], run.held),
    }
    for path, write in writes.items():
        path.symlink_to(tmp_path / target)
        with pytest.raises(RunError, match=rf"{path.name}: is a link, where a"):
            write()
        assert path.is_symlink()
    assert (tmp_path / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "runs"]
