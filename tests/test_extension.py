"""A new task and a new data set, each in one file outside the package, from training to export."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tests.extension.people import people
from tests.extension.ranking import Ages
from torch import nn

from boundnas import SearchSettings, Supernet, TrainSettings, elastic, fit, search
from boundnas.deploy.networks import Handover, export_network, verify
from boundnas.errors import RunError
from boundnas.report import write_report
from boundnas.store.folder import RunFolder

EXTENSIONS = sorted((Path(__file__).parent / "extension").glob("*.py"))
COST_RANGE = (60, 250)


class Net(Supernet):
    """Faces and words to three thresholds."""

    def __init__(self, example):
        super().__init__(example)
        width = self.dimension("width", [4, 8, 16])
        self.words = nn.Embedding(5, 3)
        self.hidden, self.head = elastic.Linear(9, width), elastic.Linear(width, 3)

    def forward(self, x, arch):
        both = torch.cat([x["face"], self.words(x["words"]).mean(1)], 1)
        return self.head(self.hidden(both, arch).relu(), arch)


@cache
def data(workers=0):
    return people(workers)


def trained(folder, task=None, workers=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net(data(workers).example)
    settings = TrainSettings(steps=40, batch_size=20, learning_rate=0.05, checkpoint_every=10)
    options = {"cost_range": COST_RANGE, "settings": settings, "folder": folder}
    return fit(model, data(workers), task=task or Ages(), **options)


def searched(run):
    settings = SearchSettings(initial=3, rounds=1, crossovers=1, mutations=1, batch_size=20)
    return search(run, settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with its front, its report and its networks."""
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "ages", "")
    run = trained(folder)
    front = searched(run)
    for network in front.networks:
        place = folder.path / front.folder(network)
        export_network(
            run.model, network, place, Handover(run.data, ("onnx", "pt2"), task=run.task)
        )
    write_report(folder.path)
    return run, front


@pytest.mark.parametrize("path", EXTENSIONS, ids=lambda path: path.stem)
def test_an_extension_is_one_short_file(path):
    assert len(path.read_text().splitlines()) <= 60


def test_the_front_is_better_than_guessing_and_names_its_metric(finished):
    _, front = finished
    held = [(n.metric.name, n.metric.unit, n.metric.scale) for n in front.networks]
    assert set(held) == {("mean age error", "years", -1.0)}
    assert all(-12 < n.test < 0 for n in front.networks)  # guessing 40 errs by 20 years


def test_report_and_card_name_metric_and_unit(finished):
    run, front = finished
    best = max(front.networks, key=lambda n: n.validation)
    shown = best.metric.shown(best.test)
    assert shown.endswith(" years")
    assert not shown.startswith("-")
    page = (run.folder.path / "report.html").read_text()
    assert f"reaches {best.metric.shown(best.validation)} there and {shown} on test data" in page
    assert "mean age error" in page
    card = (run.folder.path / front.folder(best) / "card.md").read_text()
    for text in (
        f"| Test mean age error | {shown} |",
        "`face`: float32, shape (N, 6), `words`: int64, shape (N, 5), any N. As the Dataset gives",
        "Output `output`: float32; logits of being older than 20.0, 40.0, 60.0 years.",
        "accuracy",
    ):
        assert (text in card) == (text != "accuracy"), text


def test_an_exported_network_is_worth_what_its_card_says(finished):
    run, front = finished
    network = front.networks[-1]
    held = verify(run.folder.path / front.folder(network))
    session = onnxruntime.InferenceSession(held["model.onnx"])
    assert [each.name for each in session.get_outputs()] == ["output"]
    inputs, ages = run.data.test.take(torch.arange(60))
    logits = session.run(None, {name: x.numpy() for name, x in inputs.items()})[0]
    score = float(Ages().score(torch.from_numpy(logits), ages).mean())
    assert score == pytest.approx(network.test, abs=1e-5)
    assert np.isfinite(logits).all()
    card = json.loads(held["architecture.json"])
    assert card["metric"] == {"name": "mean age error", "unit": "years", "scale": -1.0}


def test_another_task_does_not_go_on_from_it(finished):
    with pytest.raises(RunError, match=r"is of a run with task = Ages .*20.0.*this one has .*30.0"):
        trained(finished[0].folder, Ages((30.0, 40.0, 60.0)))
