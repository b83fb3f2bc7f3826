"""Row 13: runs, checkpoints and exports of every released format stay readable.

Nothing is released yet, and format 1 came to say what its records belong to: its run was made
again by ``boundnas run tests/golden/format-1/tiny/config.yaml``. What was written before, without
that, is refused by name.
"""

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from boundnas import data
from boundnas.app import pipeline
from boundnas.config import read_config
from boundnas.errors import RunError
from boundnas.method.sandwich import Sandwich
from boundnas.report import write_report
from boundnas.search import Evaluator
from boundnas.store import checkpoint
from boundnas.store.folder import RunFolder

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = sorted(path.name for path in GOLDEN.iterdir())
ONE_IMAGE = 1 / 359


@pytest.fixture(params=FORMATS)
def old(request, tmp_path):
    """A copy of a run made by an older release, finished up to the export of one network."""
    shutil.copytree(GOLDEN / request.param / "tiny", tmp_path / "tiny")
    return RunFolder(tmp_path / "tiny")


@pytest.fixture
def trained(old, monkeypatch):
    """The run as the present code continues it, which must not train or measure anything."""
    monkeypatch.setattr(Sandwich, "step", None)
    monkeypatch.setattr(Evaluator, "judged", None)
    with pipeline.working(read_config(old.config), old.path) as (job, folder):
        yield job, job.train(folder)


def test_there_is_a_run_of_the_present_format():
    assert f"format-{checkpoint.FORMAT}" in FORMATS


def test_an_old_checkpoint_is_loaded(old, trained):
    saved = checkpoint.newest(old.checkpoints)
    assert saved.step == 24
    for name, value in trained[1].model.state_dict().items():
        assert torch.equal(value, saved.tensors[f"model/{name}"])


def test_an_old_search_goes_on_from_its_journal(old, trained):
    job, run = trained
    held = json.loads(old.front.read_text())
    old.front.unlink()
    front = job.search(run)
    found = front.to_json()
    key = lambda n: sorted(n["architecture"].items())  # noqa: E731
    both = [sorted(side["networks"] + side["outside"], key=key) for side in (held, found)]
    for before, now in zip(*both, strict=True):
        assert now["costs"] == before["costs"]
        assert now["validation"] == before["validation"]
        # Other kernels may round a logit differently, and so classify an image otherwise.
        assert abs(now["test"] - before["test"]) <= ONE_IMAGE + 1e-9


def test_a_checkpoint_that_does_not_say_what_it_belongs_to_is_refused(old):
    saved = checkpoint.newest(old.checkpoints)
    values = {name: value for name, value in saved.values.items() if name != "identity"}
    (folder,) = old.checkpoints.iterdir()
    shutil.rmtree(folder)
    checkpoint.save(old.checkpoints, saved.step, saved.tensors, values)
    with (
        pytest.raises(RunError, match="is of a run with nothing that says what it is"),
        pipeline.working(read_config(old.config), old.path) as (job, again),
    ):
        job.train(again)


def test_an_old_run_has_a_report(old):
    assert write_report(old.path).stat().st_size > 10_000


def test_an_old_export_is_whole_and_runs(old):
    (folder,) = old.networks.iterdir()
    import_module("boundnas.deploy.networks").verify(folder)
    digits = data.digits()
    images, labels = digits.test.take(torch.arange(len(digits.test)))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    inputs = {"images": data.normalize(images, digits.mean, digits.std).numpy()}
    accuracy = np.mean(session.run(None, inputs)[0].argmax(1) == labels.numpy())
    held = json.loads((folder / "architecture.json").read_text())
    assert abs(accuracy - held["test"]) <= ONE_IMAGE + 1e-9
