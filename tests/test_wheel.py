"""A wheel, built with and without a C compiler, is installed elsewhere and trains."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

STEPS = """
import sys
from pathlib import Path
import torch
import boundnas as bn
from boundnas.elastic import native

assert Path(bn.__file__).is_relative_to(Path.cwd()), bn.__file__
torch.set_num_threads(1)
model = bn.models.MobileNet(bn.models.StemTable((2, 4)), (), 4, 8, 1)
settings = bn.TrainSettings(steps=2, batch_size=8)
for _ in range(2):
    bn.fit(model, bn.data.digits(), cost_range=(1e3, 1e5), settings=settings)
print(native.available())
"""


def built(folder, compiler):
    """A wheel of the sources as they stand, built in their copy."""
    source = folder / "source"
    kept = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", source / "src", ignore=kept)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    environment = {**os.environ, **({} if compiler else {"CC": "/bin/false"})}
    pip = [sys.executable, "-m", "pip", "--quiet"]
    options = ["--no-deps", "--no-index", "--no-build-isolation"]
    command = [*pip, "wheel", *options, "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.skipif(
    int(importlib.metadata.version("setuptools").split(".")[0]) < 77,
    reason="setuptools is older than what builds the wheel; pip would fetch another",
)
@pytest.mark.parametrize("compiler", [False, True], ids=["no compiler", "a compiler"])
def test_an_installed_wheel_trains_and_says_when_its_kernels_are_missing(compiler, tmp_path, full):
    if compiler and not (full and shutil.which(sysconfig.get_config_var("CC").split()[0])):
        pytest.skip("takes half a minute, and a C compiler")
    wheel = built(tmp_path, compiler)
    names = zipfile.ZipFile(wheel).namelist()
    about = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"boundnas", about}
    assert any(n.endswith(".so") for n in names) == compiler
    for name in ("py.typed", "report/template.html", "report/report.js", "report/report.css"):
        assert f"boundnas/{name}" in names
    place = tmp_path / "installed"
    install = ["install", "--no-deps", "--no-index", "--target", str(place), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *install], check=True)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", STEPS], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(compiler)]
    assert done.stderr.count("the compiled kernels are missing") == (0 if compiler else 1)
    script = place / "bin" / "boundnas"
    said = subprocess.run([script, "--version"], env=environment, capture_output=True, text=True)
    assert said.stdout == f"boundnas {importlib.metadata.version('boundnas')}\n"
