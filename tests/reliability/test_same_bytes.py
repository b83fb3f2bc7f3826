"""Row 11: two fresh processes give the same bytes, for every command and every example."""

import json
import re
import subprocess
import sys

import pytest
from tests.reliability.tiny import configure
from tests.small import files
from tests.test_cli import spawn
from tests.test_docs import CODE, ROOT

from boundnas.data.fashion import DEBIAN_FOLDER

COMPARED = """
import importlib
import sys
sys.path.insert(0, "ROOT")
from dataclasses import replace
from boundnas.config import RunConfig, read_config
from studies.figures import FIGURES
FIGURES["fig3"] = replace(FIGURES["fig3"], variants=("fixed", "boundaries"))
def configuration(figure, variant, seed, *_):
    settings = read_config("run.yaml").model_dump(exclude_none=True)
    settings["train"]["learn"] = {"fixed": "none", "boundaries": "both"}[variant]
    return RunConfig.model_validate(settings | {"name": f"{variant}-{seed}", "seed": seed})
importlib.import_module("studies.reproduce").configuration = configuration
from studies.__main__ import run
run()
""".replace("ROOT", str(ROOT))
"""``python -m studies`` of four short runs."""

COMMANDS = [
    ("train", "run.yaml"),
    ("search", "runs/tiny"),
    ("export", "runs/tiny"),
    ("best", "runs/tiny", "--macs", "1G"),
    ("report", "runs/tiny"),
    ("run", "other.yaml"),
    ("compare", "runs/tiny", "runs/other"),
]


EACH = """
import gc
import json
import os
import sys

import matplotlib.figure
import sklearn.datasets
import torch._dynamo
from boundnas.app.cli import app

gc.freeze()
place, commands = sys.argv[1], json.loads(sys.argv[2])
codes = []
for number, command in enumerate(commands):
    child = os.fork()
    if not child:
        out = os.open(f"{place}/{number}", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        sys.argv[1:] = command
        try:
            app()
        except SystemExit as stop:
            sys.stdout.flush()
            os._exit(stop.code or 0)  # to take all libraries apart takes a second
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""
"""Runs every command in a process of its own, all of them forked off a fresh one: its libraries are
imported once, and its hashes are salted as nobody else's."""


def said(folder, place):
    """What every command prints in a folder, in processes of their own."""
    place.mkdir()
    arguments = [sys.executable, "-W", "error", "-c", EACH, str(place), json.dumps(COMMANDS)]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=840)
    assert json.loads(done.stdout) == [0] * len(COMMANDS), done.stderr
    return [(place / str(number)).read_text() for number in range(len(COMMANDS))]


def test_every_command_says_and_writes_the_same(tmp_path, full, figure):
    printed, written = [], []
    for folder in (tmp_path / "one", tmp_path / "two"):
        text = (configure(folder, "onnx") / "run.yaml").read_text()
        text = text.replace("name: tiny", "name: other\nseed: 1")
        if not full:
            text = text.replace("formats: [onnx]", "formats: []")  # the first run exports
        (folder / "other.yaml").write_text(text)
        told = said(folder, tmp_path / f"said by {folder.name}")
        if full:
            done = spawn(folder, "fig3", "--seeds", "1", before=COMPARED)
            assert done.returncode == 0, done.stderr
            told.append(done.stdout)
        printed.append([each.replace(str(folder.resolve()), "") for each in told])
        found = files(folder)
        written.append({k: v for k, v in found.items() if not k.endswith(".log")})  # times
    assert printed[0] == printed[1]
    assert all(printed[0])
    assert written[0] == written[1]
    figure(f"{len(printed[0])} commands, {len(written[0])} files, the same in two processes each")


@pytest.mark.parametrize("name", CODE)
def test_the_examples_of_the_docs_write_and_print_the_same(name, tmp_path, full):
    if not full:
        pytest.skip("each page runs once in test_docs.py")
    code = f"import torch\ntorch.set_num_threads(1)\ntorch.manual_seed(0)\n{CODE[name]}"
    found = []
    for place in (tmp_path / "one", tmp_path / "two"):
        place.mkdir()
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=place, check=True, stdout=subprocess.PIPE)
        written = files(place)
        kept = {k: v for k, v in written.items() if "tfevents" not in k}  # hold times
        found.append((kept, done.stdout))
    assert found[0] == found[1]


def shortened(text):
    """A configuration that does the same in less time."""
    for key, value in (("steps", 40), ("initial", 4), ("rounds", 0)):
        text = re.sub(rf"^  {key}: \d+", f"  {key}: {value}", text, flags=re.MULTILINE)
    return text


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_the_configurations_write_the_same(name, tmp_path, full, figure):
    if not full or (name == "fashion_mnist" and not DEBIAN_FOLDER.exists()):
        pytest.skip("takes minutes, and images")
    whole = name == "digits"
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (folder / "run.yaml").write_text(text if whole else shortened(text))
        done = spawn(folder, "run", "run.yaml", timeout=1200)
        assert done.returncode == 0, done.stderr
    assert files(tmp_path / "one") == files(tmp_path / "two")
    figure(f"{name}.yaml, {'whole' if whole else 'shortened'}, the same in two processes")
