"""A start from trained weights: what is kept, how it is compared, and that it is said."""

import json
import logging
from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.small import COST_RANGE, digest, mobilenet
from torch import nn
from torch.nn import functional as F

import boundnas as bn
from boundnas import TrainSettings, fit
from boundnas.errors import RunError
from boundnas.fit.trained import GENTLE, Trained
from boundnas.randomness import stream
from boundnas.report import write_report
from boundnas.store.folder import RunFolder
from boundnas.tasks import Classification

STEPS, WIDE = 8, (1e4, 6e4)


def plain():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


def unmoved():
    """Digits that are not shifted in training, as the network below knows them."""
    return replace(bn.data.digits(), padding=0)


def pixels(split):
    digits = bn.data.digits()
    source = getattr(digits, split)
    images, labels = source.take(torch.arange(len(source)))
    return bn.data.normalize(images, digits.mean, digits.std), labels


@cache
def network():
    """A network that was trained plainly, and its accuracy on validation images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = plain()
    images, labels = pixels("train")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    for step in range(100):
        chosen = torch.randperm(len(images), generator=stream(0, "plain", step))[:64]
        optimizer.zero_grad()
        F.cross_entropy(net(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    net.eval()
    images, labels = pixels("validation")
    with torch.no_grad():
        return net, float((net(images).argmax(1) == labels).double().mean())


def made():
    return bn.elasticize(network()[0], torch.zeros(1, 1, 8, 8))


def trained(model, folder=None, trained=None, **options):
    settings = TrainSettings(**{"steps": STEPS, "batch_size": 32, **options})
    return fit(model, unmoved(), cost_range=WIDE, settings=settings, folder=folder, trained=trained)


def test_a_network_made_elastic_starts_from_its_weights_and_teaches_from_the_first_step():
    run = trained(made(), steps=2)
    assert (run.settings.learning_rate, run.settings.start_std) == (0.01, 0.5)
    assert run.metrics[0]["score_max"] > 0.9
    asked = trained(made(), steps=2, learning_rate=0.02, start_std=1e-3)
    assert (asked.settings.learning_rate, asked.settings.start_std) == (0.02, 1e-3)
    assert asked.metrics[0]["score_max"] < 0.7, "the start of new weights draws any network"


def test_a_file_of_the_plain_network_is_not_taken_in_silence_for_one_of_the_elastic_one():
    model, plain = made(), network()[0]
    with pytest.raises(RuntimeError, match=r'Missing key.*"net\.0\.weight"'):
        model.load_state_dict(plain.state_dict())
    assert plain.load_state_dict(plain.state_dict()).missing_keys == []


def test_an_optimizer_of_ones_own_has_its_own_step_size():
    given = {"cost_range": WIDE, "settings": TrainSettings(steps=1)}
    run = fit(made(), unmoved(), **given, optimizer=lambda g: torch.optim.AdamW(g, lr=1e-3))
    assert run.settings.learning_rate == TrainSettings(steps=1).learning_rate
    assert run.settings.start_std == GENTLE["start_std"]
    assert run.metrics[0]["learning_rate"] == pytest.approx(1e-3, rel=0.9)


def test_the_largest_network_is_compared_with_how_it_came(caplog):
    _, accuracy = network()
    assert accuracy > 0.9, "it was trained"
    with caplog.at_level(logging.INFO, "boundnas"):
        run = trained(made(), steps=120, learning_rate=0.03)
    assert accuracy <= run.trained.before < accuracy + 0.02
    assert run.trained.after > run.trained.before
    (said,) = [r for r in caplog.records if "the largest network" in r.message]
    before, after = (f"{100 * x:.4g} %" for x in (run.trained.before, run.trained.after))
    assert said.message == (
        f"the largest network is no worse than it started: accuracy {after} on validation data "
        f"after the training, {before} with the weights that it came with"
    )
    assert said.levelno == logging.INFO


def test_a_largest_network_that_got_worse_is_named_with_its_figures(tmp_path, caplog):
    run = trained(made(), tmp_path / "run", learning_rate=20.0)
    assert run.settings.learning_rate == 20.0
    assert run.trained.after < run.trained.before
    (said,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "the largest network is worse than it started: accuracy" in said.message
    assert "lower train.learning_rate" in said.message
    held = json.loads((tmp_path / "run" / "bounds.json").read_text())["largest"]
    assert (held["before"], held["after"]) == (run.trained.before, run.trained.after)
    assert held["metric"]["name"] == "accuracy"
    page = write_report(tmp_path / "run").read_text()
    assert "the largest network is worse than it started: accuracy" in page


def test_how_it_came_is_the_better_of_its_own_statistics_and_new_ones():
    model, digits = made(), bn.data.digits()
    (images, labels), train = pixels("validation"), pixels("train")[0]
    order = torch.randperm(len(train), generator=stream(0, "calibration"))
    new = bn.calibrate(model, model.space.largest, train[order][: 128 * 8].split(128))

    def accuracy(arch):
        with torch.no_grad():
            return float((model.eval()(images, arch).argmax(1) == labels).double().mean())

    each = [accuracy(arch) for arch in (new, model.original)]
    assert each[1] == pytest.approx(network()[1])
    found = Trained(model, digits, Classification(), 0)
    found.begin(None)
    assert found.before == pytest.approx(max(each))
    with torch.no_grad():
        next(model.parameters()).add_(0.3)
    found.begin(None)  # statistics of other weights are no longer its own
    new = bn.calibrate(model, model.space.largest, train[order][: 128 * 8].split(128))
    assert found.before == pytest.approx(accuracy(new))
    found.begin(0.25)
    assert found.before == 0.25, "as a checkpoint knows"


def test_a_supernet_of_ones_own_starts_from_trained_weights_if_that_is_said():
    data, settings = bn.data.digits(), TrainSettings(steps=3, batch_size=16)
    new = fit(mobilenet(), data, cost_range=COST_RANGE, settings=settings)
    said = fit(mobilenet(), data, cost_range=COST_RANGE, settings=settings, trained=True)
    assert new.trained is None
    assert new.settings.learning_rate == 0.1
    assert said.settings.learning_rate == 0.01
    assert said.settings.start_std != new.settings.start_std
    assert said.trained.before is not None
    assert digest(said.model) != digest(new.model)
    anew = trained(made(), trained=False, steps=2)
    assert anew.trained is None
    assert anew.settings.learning_rate == 0.1


class Errors(Classification):
    """A metric over all samples, of which lower is better."""

    metric, unit, scale = "errors", "", -1.0

    def meter(self):
        class Sum:
            found = 0

            def update(self, outputs, targets):
                self.found += int((outputs.argmax(1) != targets).sum())

            def compute(self):
                return -float(self.found)

        return Sum()


def test_a_metric_over_all_samples_is_compared_too():
    digits = bn.data.digits()
    found, usual = (Trained(made(), digits, task, 0) for task in (Errors(), Classification()))
    found.begin(None)
    usual.begin(None)
    assert found.before == pytest.approx(-(1 - usual.before) * len(digits.validation))
    record = found.end()
    assert record.metric.name == "errors"
    assert f"errors {-record.after:g} on validation data" in record.said


OTHERS = {
    "new weights": (False, None, "start = missing, this one has trained weights"),
    "trained ones": (None, False, "start = trained weights, this one has missing"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_run_folder_of_another_start_is_refused(case, tmp_path):
    first, second, message = OTHERS[case]
    folder = RunFolder.create(tmp_path / "run", "name: run\n")
    trained(made(), folder, first, steps=2, **GENTLE)
    with pytest.raises(RunError, match=message):
        trained(made(), folder, second, steps=2, **GENTLE)


def test_a_finished_run_is_opened_and_knows_how_it_came(tmp_path):
    run = trained(made(), tmp_path / "run", steps=2)
    other = made()
    with torch.no_grad():
        next(other.parameters()).zero_()  # the checkpoint replaces them
    again = trained(other, tmp_path / "run", steps=2)
    assert again.trained == Trained(
        other, again.data, again.task, 0, run.trained.before, run.trained.after
    )
    opened = bn.open(tmp_path / "run", model=made(), data=unmoved())
    assert digest(opened.model) == digest(again.model) == digest(run.model)
