"""Row 11: two fresh processes give the same bytes, for every command and every example."""

import subprocess
import sys

import pytest
from tests.reliability.tiny import configure
from tests.small import files
from tests.test_cli import spawn
from tests.test_docs import PAGES, ROOT, python

SHORT_RUNS = """
import importlib
from boundnas.config import RunConfig, read_config
def configuration(figure, variant, seed, *_):
    settings = read_config("run.yaml").model_dump(exclude_none=True)
    settings["train"]["learn"] = {"fixed": "none", "boundaries": "both"}[variant]
    return RunConfig.model_validate(settings | {"name": f"{variant}-{seed}", "seed": seed})
importlib.import_module("boundnas.studies.reproduce").configuration = configuration
"""

COMMANDS = [
    ("train", "run.yaml"),
    ("search", "runs/tiny"),
    ("export", "runs/tiny"),
    ("report", "runs/tiny"),
    ("run", "other.yaml"),
    ("compare", "runs/tiny", "runs/other"),
    ("reproduce", "fig3", "--seeds", "1"),
]


def test_every_command_says_and_writes_the_same(tmp_path, figure):
    printed, written = [], []
    for folder in (tmp_path / "one", tmp_path / "two"):
        text = (configure(folder, "onnx") / "run.yaml").read_text()
        (folder / "other.yaml").write_text(text.replace("name: tiny", "name: other\nseed: 1"))
        done = [spawn(folder, *command, before=SHORT_RUNS) for command in COMMANDS]
        assert [each.returncode for each in done] == [0] * len(COMMANDS), done
        printed.append([each.stdout.replace(str(folder.resolve()), "") for each in done])
        found = files(folder)
        written.append({k: v for k, v in found.items() if not k.endswith(".log")})  # times
    assert printed[0] == printed[1]
    assert all(printed[0])
    assert written[0] == written[1]
    figure(f"{len(COMMANDS)} commands, {len(written[0])} files, the same in two processes each")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_the_docs_write_the_same(page, tmp_path):
    code = f"import torch\ntorch.set_num_threads(1)\ntorch.manual_seed(0)\n{python(page)}"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path / name, check=True)
    assert files(tmp_path / "one")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_the_demo_writes_the_same(tmp_path, full, figure):
    text = (ROOT / "configs" / "digits.yaml").read_text()
    if not full:
        text = text.replace("steps: 1200", "steps: 40").replace("rounds: 14", "rounds: 1")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "digits.yaml").write_text(text)
        done = spawn(tmp_path / name, "run", "digits.yaml", timeout=1200)
        assert done.returncode == 0, done.stderr
    assert files(tmp_path / "one") == files(tmp_path / "two")
    figure(f"the {'whole' if full else 'shortened'} demo, the same in two processes")
