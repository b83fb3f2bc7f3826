"""The whole job on a network so small that it takes half a second."""

import contextlib
import shutil

import pytest
from tests import small
from tests.reliability.child import fork

import boundnas.app.cli

STEPS, CHECKPOINT_EVERY = 8, 2
FORMAT = "pt2"
"""In which networks are exported where any format does; the others take longer."""


def promised():
    """From here on a run is as long as that of the guarantees."""
    global STEPS, CHECKPOINT_EVERY, FORMAT
    STEPS, CHECKPOINT_EVERY, FORMAT = 24, 6, "onnx"


CONFIG = """\
name: tiny
device: cpu
threads: 1
data:
  set: digits
space:
  last_width: 8
  stem: {width: [2, 4], stride: 1}
  stages:
    - {intermediate: [4, 8], output: [4, 6], depth: [1, 2], kernel: [3, 5], stride: 1}
    - {intermediate: [8], output: [8], stride: 2}
cost: {lower: 0.012, upper: 0.04}
train: {steps: STEPS, batch_size: 16, checkpoint_every: EVERY}
search: {initial: 3, rounds: 1, crossovers: 1, mutations: 1, calibration_images: 64}
export: {formats: [FORMATS]}
"""


def text(formats=""):
    """The configuration; networks are exported only in the formats that are asked for."""
    numbers = CONFIG.replace("STEPS", str(STEPS)).replace("EVERY", str(CHECKPOINT_EVERY))
    return numbers.replace("FORMATS", formats)


def configure(folder, formats=""):
    """Write the configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(text(formats))
    return folder


def run():
    """``boundnas run`` in the working folder."""
    boundnas.app.cli.app(["run", "run.yaml"])


def outcome(folder):
    """What the run in a folder came to."""
    return small.outcome(folder / "runs" / "tiny")


def clear(folder):
    """Remove the run."""
    shutil.rmtree(folder / "runs", ignore_errors=True)


def uninterrupted(folder, formats=""):
    """The outcome of a run in this process, which now has imported all that its children need."""
    configure(folder, formats)
    with contextlib.chdir(folder), pytest.raises(SystemExit) as stop:
        run()
    assert not stop.value.code
    return outcome(folder)


def finishes(folder, expected):
    """A run in a child, which goes on from what is there, ends in the expected outcome."""
    child = fork(run, folder)
    assert child.wait() == 0, child.text
    assert outcome(folder) == expected
    left = [path.name for path in folder.rglob("*") if path.name.endswith((".partial", ".removed"))]
    assert left == []
