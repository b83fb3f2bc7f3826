"""Optimizers and schedules as values: taken as they are, or refused."""

import math
import random

import pytest
import torch
from tests.small import digest, few_digits
from tests.spaces import seeded
from torch import optim
from torch.optim import lr_scheduler as schedules

from boundnas import Supernet, TrainSettings, elastic, fit
from boundnas.errors import RunError, TrainingError
from boundnas.fit import loop
from boundnas.fit.schedule import learning_rate
from boundnas.store.folder import RunFolder

STEPS = 6


class Net(Supernet):
    def __init__(self):
        super().__init__((1, 8, 8))
        width = self.dimension("width", (2, 4, 8))
        self.conv, self.norm = elastic.Conv2d(1, width, 3), elastic.BatchNorm2d(width)
        self.head = elastic.Linear(width, 10)

    def forward(self, x, arch):
        return self.head(self.norm(self.conv(x, arch), arch).relu().mean((2, 3)), arch)


def settings_of(**more):
    return TrainSettings(**{"steps": STEPS, "batch_size": 16, "checkpoint_every": 1, **more})


def trained(folder=None, optimizer=None, schedule=None, **more):
    return fit(seeded(Net), few_digits(), cost_range=(2e3, 4e3), settings=settings_of(**more),
               folder=folder, optimizer=optimizer, schedule=schedule)  # fmt: skip


def by_steps(optimizer, steps):
    return schedules.LambdaLR(optimizer, lambda step: 1 - step / steps)


def one_cycle(optimizer, steps):
    return schedules.OneCycleLR(optimizer, 0.05, total_steps=steps, cycle_momentum=True)


VALUES = {
    "AdamW, cosine": (
        lambda groups: optim.AdamW(groups, lr=2e-3, weight_decay=0.02),
        lambda optimizer, steps: schedules.CosineAnnealingLR(optimizer, steps),
    ),
    "AMSGrad, the usual schedule": (lambda groups: optim.Adam(groups, 1e-3, amsgrad=True), None),
    "SGD with momentum cycled": (lambda groups: optim.SGD(groups, 0.05, momentum=0.9), one_cycle),
    "a schedule alone": (None, by_steps),
    "RMSprop, decayed step by step": (
        lambda groups: optim.RMSprop(groups, 1e-3),
        lambda optimizer, steps: schedules.ExponentialLR(optimizer, 0.7),
    ),
}


def rates_of(make_optimizer, make_schedule):
    """Step sizes as the schedule gives them to an optimizer of one tensor."""
    given = [{"params": [torch.nn.Parameter(torch.zeros(1))]}]
    optimizer = make_optimizer(given) if make_optimizer else optim.SGD(given, 0.1)
    if make_schedule is None:
        peak = optimizer.param_groups[0]["lr"]
        return [learning_rate(s, STEPS, peak, settings_of()) for s in range(STEPS)]
    schedule, found = make_schedule(optimizer, STEPS), []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.fixture(scope="module")
def usual():
    return trained()


@pytest.mark.parametrize("name", VALUES)
def test_any_optimizer_and_schedule_is_taken_as_it_is(name, usual):
    run = trained(None, *VALUES[name])
    rates = [row["learning_rate"] for row in run.metrics]
    assert rates == rates_of(*VALUES[name])
    assert len(set(rates)) > 3
    assert digest(run.model) != digest(usual.model)


def test_the_settings_name_an_optimizer_and_a_schedule_of_torch(usual):
    sgd = lambda groups: optim.SGD(groups, 0.1, 0.9, weight_decay=5e-4, nesterov=True)  # noqa: E731
    by_hand = lambda optimizer, steps: schedules.LambdaLR(  # noqa: E731
        optimizer, lambda step: learning_rate(step, steps, 1.0, settings_of(warmup_start=0.0))
    )
    plain = lambda groups: optim.SGD(groups, 0.1, weight_decay=5e-4)  # noqa: E731
    assert digest(trained(optimizer=sgd).model) == digest(usual.model)
    assert digest(trained(optimizer=plain).model) == digest(trained(momentum=0.0).model)
    rates, expected = (
        [row["learning_rate"] for row in run.metrics]
        for run in (trained(schedule=by_hand), trained(warmup_start=0.0))
    )
    assert rates == pytest.approx(expected)


def test_biases_and_norms_do_not_decay():
    groups = []
    trained(optimizer=lambda given: groups.append(given) or optim.SGD(given, 0.1, weight_decay=1))
    decayed, rest = groups[-1]
    assert all(p.dim() > 1 for p in decayed["params"])
    assert all(p.dim() == 1 for p in rest["params"])
    assert rest["weight_decay"] == 0
    assert decayed["params"]
    assert rest["params"]


def adam(groups):
    return optim.Adam(groups, 1e-3)


class Counting(optim.SGD):
    """Keeps a number that is no tensor."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["count"] = 1


REFUSED = {
    "no optimizer": (lambda groups: groups, None, {}, r"make a torch\.optim\.Optimizer .* list"),
    "of other tensors": (
        lambda groups: optim.SGD([torch.zeros(2, requires_grad=True)], 0.1), None, {},
        r"must take all tensors of the groups that it is given, and no others",
    ),
    "of some of the tensors": (
        lambda groups: optim.SGD(groups[:1], 0.1), None, {}, "must take all tensors",
    ),
    "one that needs a closure": (
        lambda groups: optim.LBFGS([p for g in groups for p in g["params"]]), None, {},
        r"LBFGS cannot make a step from gradients alone .*closure",
    ),
    "one that keeps numbers": (
        lambda groups: Counting(groups, 0.1), None, {}, "Counting keeps count, which are no tensors"
    ),
    "no schedule": (adam, lambda optimizer, steps: 0.1, {}, "make a .*LRScheduler .* found float"),
    "by results": (
        adam, lambda optimizer, steps: schedules.ReduceLROnPlateau(optimizer), {},
        "the number of steps alone, found ReduceLROnPlateau",
    ),
    "by chance": (
        adam, lambda optimizer, steps: schedules.LambdaLR(optimizer, lambda _: random.random()),
        {}, "schedule gives other step sizes when it is asked again",
    ),
    "below zero": (
        adam, lambda optimizer, steps: schedules.LambdaLR(optimizer, lambda step: 2 - step), {},
        r"schedule gives step sizes of \[-0\.001, -0\.001\]; they are 0 or more",
    ),
    "no number": (
        adam, lambda optimizer, steps: schedules.LambdaLR(optimizer, lambda step: math.nan), {},
        r"step sizes of \[nan, nan\]",
    ),
    "settings of SGD beside it": (
        adam, None, {"momentum": 0.5, "learning_rate": 0.2},
        "optimizer was given, and so were settings .*: learning_rate, momentum; leave these out",
    ),
    "settings of warm-up beside it": (
        None, by_steps, {"warmup_fraction": 0.5}, "schedule was given, .*: warmup_fraction; leave",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_with_is_refused_before_training(name, monkeypatch):
    optimizer, schedule, more, message = REFUSED[name]
    monkeypatch.setattr(loop.Trainer, "train", None)
    with pytest.raises(TrainingError, match=message):
        trained(None, optimizer, schedule, **more)


OTHERS = {
    "another step size": (lambda groups: optim.Adam(groups, 2e-3), None, "optimizer = Adam"),
    "another optimizer": (
        lambda groups: optim.AdamW(groups, 1e-3),
        None,
        "optimizer = Adam .*AdamW",
    ),
    "none": (None, None, "optimizer = Adam .* this one has missing"),
    "another schedule": (adam, by_steps, "schedule = WarmUpCosine, this one has LambdaLR"),
}


@pytest.fixture(scope="module")
def with_adam(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("adam") / "run", "name: run\n")
    trained(folder, adam, steps=2)
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_goes_on_with_its_own_optimizer_and_schedule_only(name, with_adam):
    optimizer, schedule, message = OTHERS[name]
    with pytest.raises(RunError, match=message):
        trained(with_adam, optimizer, schedule, steps=2)


def test_schedules_of_one_class_that_differ_are_told_apart(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "name: run\n")
    each = [lambda o, _, g=gamma: schedules.ExponentialLR(o, g) for gamma in (0.9, 0.8)]
    trained(folder, adam, each[0], steps=2)
    with pytest.raises(RunError, match="of a run with step sizes = "):
        trained(folder, adam, each[1], steps=2)
