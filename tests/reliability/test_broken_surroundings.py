"""Row 18: no traceback for anything outside the code: one line, the documented exit code."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import studies.__main__
from studies.figures import FIGURES
from tests.reliability.child import fork, replaced
from tests.reliability.ranks import TIMEOUT
from tests.reliability.surroundings import DEVICES, PHOTOS, RUN, STARTING, SURROUNDINGS, photos
from tests.reliability.tiny import STEPS, text

import boundnas.app.cli
import boundnas.app.latency
from boundnas.config import read_config
from boundnas.cost import LatencyTable
from boundnas.cost.latency import model_of
from boundnas.engine.output import SideChannel
from boundnas.store.files import write_json

reproduce = importlib.import_module("studies.reproduce")

ARGUMENTS = {
    "init": ["init", "--data", PHOTOS, "--out", "mine.yaml"],
    "run": ["run", "run.yaml"],
    "train": ["train", "run.yaml"],
    "search": ["search", str(RUN)],
    "export": ["export", str(RUN)],
    "best": ["best", str(RUN), "--macs", "1G"],
    "latency": ["latency", "run.yaml", "--out", "latency.json"],
    "report": ["report", str(RUN)],
    "compare": ["compare", str(RUN), "runs/other", "--out", "comparison"],
    "reproduce": ["fig3", "--seeds", "2", "--out", "studies"],
    "help": ["--help"],
}
"""Every documented command."""

PART = 4
"""So many cases of a group are tried by default."""

SPOILT = {"fifo", "loop", "dangling", "images", "inside", *DEVICES}
"""What the surroundings themselves make."""

MESSAGE = re.compile(r"^(rank \S*: )?[A-Z]\w*(Error|Exception): |^Usage: ", re.M)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with two finished runs, and the same two as those of a comparison."""
    folder = tmp_path_factory.mktemp("world")
    short = text().replace(f"steps: {STEPS}", "steps: 4")
    for config in (short.replace("tiny", "other") + "seed: 1\n", short):
        (folder / "run.yaml").write_text(config)
        boundnas.app.pipeline.run(read_config(folder / "run.yaml"), folder / "runs")
    for seed, name in enumerate(("tiny", "other")):
        shutil.copytree(folder / "runs" / name, folder / "studies" / "runs" / f"run-{seed}")
    photos(folder / PHOTOS)
    return folder


@pytest.fixture
def places(world):
    """Gives copies of it where every user may go."""

    def make():
        folder = Path(tempfile.mkdtemp(prefix="boundnas-test-"))
        folder.chmod(0o755)
        return shutil.copytree(world, folder, dirs_exist_ok=True)

    return make


def measured(model, path, *_):
    """A table that nothing was timed for."""
    blocks = ({"name": "all", "axes": (), "times": (10**6,)},)
    kinds = {"runtime": "none", "runtime_version": "1", "threads": 1, "batch": 1, "machine": {}}
    table = LatencyTable.model_validate({"model": model_of(model), "blocks": blocks, **kinds})
    write_json(path, table.written())
    return table


def command(name, spoil, config):
    """What a child does: spoil its world, then run the command."""
    one = {**FIGURES, "fig3": replace(FIGURES["fig3"], variants=("one",))}

    def configured(_, __, seed, *___):
        return config.model_copy(update={"name": f"run-{seed}", "seed": seed})

    def work():
        try:
            with (
                replaced(reproduce, "FIGURES", lambda _: one),
                replaced(reproduce, "configuration", lambda _: configured),
                replaced(sys, "executable", lambda _: "/bin/false"),  # a run that fails at once
                replaced(boundnas.app.latency, "measure", lambda _: measured),
            ):
                arguments = spoil(ARGUMENTS[name])
                if name == "reproduce":
                    studies.__main__.run(arguments)
                else:
                    boundnas.app.cli.app(arguments, prog_name="boundnas")
        finally:
            sys.stdout, sys.stderr = (
                each or SideChannel(None) for each in (sys.stdout, sys.stderr)
            )

    return work


def entries(folder):
    """Names of everything below a folder, however deep; links are not followed."""
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                yield entry.path
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def faults(surrounding, name, folder):
    """Run a command where something is wrong; gives what it does not do as documented."""
    _, spoil = SURROUNDINGS[surrounding]
    if name in STARTING and not surrounding.startswith("file"):
        shutil.rmtree(folder / "runs")
    before = set(entries(folder))
    child = fork(command(name, spoil, read_config(folder / "run.yaml")), folder)
    ranks = surrounding.startswith("ranks")
    try:
        code = child.wait(TIMEOUT + 5 if ranks else 60)
    except AssertionError as error:
        yield str(error)
        return
    said, new = child.text, set(entries(folder)) - before
    unseen = surrounding.startswith("stream: stderr")
    if code not in ((0,) if surrounding.startswith("stream") else (1,) if ranks else (0, 1, 2)):
        yield f"exit code {code}"
    if re.search(r"Traceback|This is a bug|Errno|\(in \w+\.py", said):
        yield "an error that is not told"
    if code and not unseen and len(MESSAGE.findall(said)) != 1:
        yield "not one message"
    if ranks and len(said.splitlines()) != 1:
        yield "more than one line"
    there = [folder / name for name in DEVICES if str(folder / name) in new]
    if spoilt := [path for path in there if not path.is_char_device()]:
        yield f"made a file of {spoilt}"
    if left := [path for path in new if re.search(r"\.(partial|removed)$", path)]:
        yield f"left {left}"
    if (code == 2 or ranks) and (
        made := {Path(path).relative_to(folder).parts[0] for path in new} - SPOILT
    ):
        yield f"refused, but made something in {made}"
    for path in new:
        if path.endswith(".json") and os.path.isfile(path) and not is_whole(path):
            yield f"half-written {path}"


def is_whole(path):
    try:
        json.loads(Path(path).read_text())
    except ValueError:
        return False
    return True


GROUPS = sorted({name.partition(":")[0] for name in SURROUNDINGS})


@pytest.mark.parametrize("group", GROUPS)
def test_every_command_answers_in_one_line_and_with_the_documented_code(
    group, places, full, figure
):
    cases = [
        (surrounding, name)
        for surrounding, (commands, _) in SURROUNDINGS.items()
        for name in commands
        if surrounding.partition(":")[0] == group
    ]
    # Every so many-th, which meets all commands as their number is no multiple of theirs.
    cases = cases if full else cases[:: max(1, len(cases) // PART | 1)]
    wrong = []
    for surrounding, name in cases:
        folder = places()
        wrong += [f"{name}, {surrounding}: {each}" for each in faults(surrounding, name, folder)]
        subprocess.run(["rm", "-rf", folder], check=True)  # also what is nested deep
    assert not wrong, "\n".join(wrong)
    figure(f"{group}: {len(cases)} commands in broken surroundings")


def test_there_are_as_many_surroundings_of_every_command_as_promised(figure):
    numbers = {
        name: sum(name in commands for commands, _ in SURROUNDINGS.values()) for name in ARGUMENTS
    }
    assert min(numbers.values()) >= 60
    figure(", ".join(f"{name} {number}" for name, number in numbers.items()))
