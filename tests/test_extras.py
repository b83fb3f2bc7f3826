"""Without extras all works that needs none; what needs one says which, before it begins."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from boundnas import extras
from boundnas.errors import ExtraError

ROOT = Path(__file__).parents[1]
PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""What is installed under another name than it is imported by."""

WITHOUT = f"""
import sys

from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] not in {set(extras.EXTRAS)}:
            return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from pathlib import Path
import torch
import boundnas as bn
import boundnas.app.cli
from boundnas.data import ImageFiles, InMemory, assemble
from boundnas.models import MobileNet, StageTable, StemTable

assert not set(sys.modules) & {set(extras.EXTRAS)}
torch.set_num_threads(1)
"""

WHOLE_JOB = """
labels = torch.arange(60) % 3
images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8)
source = InMemory(images, labels)
data = assemble("made", source, labels, source, ("a", "b", "c"), validation_fraction=0.5, seed=0,
                padding=0, flip=False)
model = MobileNet(StemTable((2, 4)), (StageTable((4, 8), (4,)),), 8, 8, 1, 3)
run = bn.fit(model, data, cost_range=(5e3, 2e4), settings=bn.TrainSettings(steps=2, batch_size=8))
few = dict(initial=2, rounds=0, calibration_images=16)
front = bn.search(run, bn.SearchSettings(**few))
net = bn.extract(run.model, (*front.networks, *front.outside)[0].arch)
bn.export(net, "net.pt2")
"""


def without(code, folder):
    """Run code in a process where no extra is installed; gives the process."""
    command = [sys.executable, "-W", "error", "-c", WITHOUT + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_training_search_and_export_need_no_extra(tmp_path):
    done = without(WHOLE_JOB, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.pt2").stat().st_size > 1000


REFUSED = {  # what is asked for, and which extra it needs for what
    'bn.export(torch.nn.Flatten(), "x.onnx", (1, 2, 2))': (
        "export", "the format onnx needs onnx, onnxruntime, onnxscript",
    ),
    "bn.data.digits()": ("data", "the data set digits needs sklearn"),
    'bn.data.image_folder("images", 8)': ("data", "reading image files needs PIL"),
    'from boundnas.report.compare import compare; compare([], Path("out"))': (
        "report", "a comparison needs matplotlib, scipy",
    ),
}  # fmt: skip
CONFIGURED = {  # of a configuration
    "data: {set: folder, folder: images, image_size: 8}": ("data", "reading image files needs PIL"),
    "data: {set: digits}": ("data", "the data set digits needs sklearn"),
    "search: {method: tpe}": ("search", "search.method: tpe needs optuna"),
    "export: {formats: [int8]}": (
        "export", "the format int8 needs onnx, onnxruntime, onnxscript",
    ),
}  # fmt: skip

TRIED = """
for code in {codes!r}:
    try:
        exec(code)
    except bn.BoundNASError as error:
        print(type(error).__name__, error)
from typer.testing import CliRunner
for text in {texts!r}:
    Path("run.yaml").write_text("name: x\\ncost: {{lower: 1, upper: 2}}\\ntrain: {{steps: 1}}\\n"
                                "export: {{formats: [pt2]}}\\n".replace(
                                    "export" if "export" in text else "#", "# ") + text)
    done = CliRunner().invoke(boundnas.app.cli.app, ["train", "run.yaml"])
    print(done.exit_code, done.stderr.strip())
assert not Path("runs").exists()
"""


def test_what_needs_an_extra_names_it_before_it_begins(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "images" / name / f"{i}.png").write_bytes(b"whatever")
    done = without(TRIED.format(codes=list(REFUSED), texts=list(CONFIGURED)), tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    wanted = [f"ExtraError {text}" for _, text in REFUSED.values()]
    wanted += [f"2 ExtraError: {text}" for _, text in CONFIGURED.values()]
    named = [extra for extra, _ in (*REFUSED.values(), *CONFIGURED.values())]
    assert said == [
        f"{text}, not installed here; run pip install 'boundnas[{extra}]'"
        for text, extra in zip(wanted, named, strict=True)
    ]


def test_several_extras_are_asked_for_at_once(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ExtraError, match=r"^it needs PIL, onnx, .*'boundnas\[data,export\]'$"):
        extras.require("it", "PIL", "onnx")


def named(requirement):
    """The package of a requirement."""
    return re.split("[<>=]", requirement)[0]


def test_every_extra_installs_what_it_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    names = {extra: set(map(named, packages)) for extra, packages in optional.items()}
    used = sorted(set(extras.EXTRAS.values()))
    for extra in used:
        modules = {module for module, of in extras.EXTRAS.items() if of == extra}
        assert names[extra] == {PACKAGES.get(module, module) for module in modules}
    assert names["all"] == {f"boundnas[{','.join(used)}]"}
    assert "boundnas[all]" in names["dev"]
    required = set(map(named, project["dependencies"]))
    assert not required & set().union(*(names[extra] for extra in used))
