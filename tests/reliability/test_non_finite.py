"""Row 9: a value that is not finite stops training with everything as before the step."""

import math

import pytest
import torch
from tests.small import COST_RANGE, batch, digest, few_digits, files, mobilenet
from tests.test_sandwich import sandwich_of

from boundnas import TrainSettings, fit
from boundnas.cost import MACs
from boundnas.errors import TrainingError
from boundnas.fit.guard import Guard
from boundnas.store import checkpoint
from boundnas.store.folder import RunFolder

PASSES = ("max", "min", "random", "random")
STEP = 7
BAD = {
    "nan": (math.nan, 1.0),
    "nan without a limit": (math.nan, None),
    "inf": (math.inf, None),
    "a number that an update overflows from": (3e31, None),
}
"""A bad value, and the limit on gradients with which it is one; a limit cuts off infinity too."""


class Passes:
    """Says which pass of a step a model is in, by counting its calls."""

    def __init__(self, model):
        self.count = -1
        model.register_forward_pre_hook(self._count)

    def _count(self, _, inputs):
        # The checks before training take fewer images, or none where forward is traced.
        self.count += isinstance(inputs[0], torch.Tensor) and len(inputs[0]) >= 8

    @property
    def step(self):
        return self.count // len(PASSES)

    @property
    def number(self):
        return self.count % len(PASSES)


def sandwich(model, **options):
    settings = TrainSettings(steps=10, batch_size=8, **options)
    return sandwich_of(model, settings, COST_RANGE, 0)


def refused(s, message):
    """The step is refused with the message, and nothing has changed."""
    images, labels = batch()
    before = digest(s.model, s.boundaries.max, s.boundaries.min)
    scalars = s.step(images, labels, STEP)
    with pytest.raises(TrainingError, match=message):
        Guard(s, s.settings.clip_value).check(images, labels, STEP, scalars)
    assert digest(s.model, s.boundaries.max, s.boundaries.min) == before
    assert all(p.grad is None for p in (*s.model.parameters(), s.boundaries.max.logits))


def test_a_good_step_is_not_refused():
    s = sandwich(mobilenet())
    images, labels = batch()
    scalars = s.step(images, labels, STEP)
    gradients = [p.grad.clone() for p in s.model.parameters() if p.grad is not None]
    Guard(s, s.settings.clip_value).check(images, labels, STEP, scalars)
    kept = [p.grad for p in s.model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients, kept, strict=True))


def test_an_infinite_gradient_is_cut_off_as_the_limit_says():
    model = mobilenet()
    passes = Passes(model)
    weight = model.stem.conv.weight
    weight.register_hook(lambda g: torch.full_like(g, math.inf) if passes.count == 0 else None)
    settings = TrainSettings(steps=1, batch_size=16, warmup_fraction=0.0, weight_decay=0.0)
    before = weight.detach().clone()
    fit(model, few_digits(), cost_range=COST_RANGE, cost=MACs(mobilenet()), settings=settings)
    moved = (weight.detach() - before).abs()
    assert moved.max() == pytest.approx(1.9 * 0.1)  # rate times a gradient of 1, with Nesterov


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("number", range(len(PASSES)))
def test_a_loss_that_is_not_finite_names_its_network(number, value):
    s = sandwich(mobilenet())
    passes = Passes(s.model)
    s.model.register_forward_hook(lambda *a: a[-1] * value if passes.number == number else None)
    refused(s, rf"^step {STEP}: the loss of the {PASSES[number]} network is (nan|inf); the weights")


# In every network: not of the second layer, nor of squeeze-and-excitation.
PARAMETERS = sorted(
    name
    for name, _ in mobilenet().named_parameters()
    if not name.startswith("stages.0.1.") and ".se." not in name
)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("name", PARAMETERS[::3])
def test_a_gradient_that_is_not_finite_names_its_tensor_and_network(name, number, bad):
    value, limit = BAD[bad]
    s = sandwich(mobilenet(), clip_value=limit)
    passes = Passes(s.model)
    parameter = dict(s.model.named_parameters())[name]

    def spoil(gradient):
        if passes.number != number:
            return gradient
        gradient = gradient.clone()
        gradient.view(-1)[-1] = value
        return gradient

    parameter.register_hook(spoil)
    role = PASSES[number]
    refused(s, rf"^step {STEP}: the {role} network has a gradient of \S+ at {name}; the weights")


@pytest.mark.parametrize("boundary", ["max", "min"])
@pytest.mark.parametrize("bad", BAD)
def test_a_policy_gradient_that_is_not_finite_names_the_policy(boundary, bad):
    value, limit = BAD[bad]
    s = sandwich(mobilenet(), clip_value=limit)
    policy = getattr(s.boundaries, boundary)
    policy.logits.register_hook(lambda gradient: gradient * value)
    refused(s, rf"^step {STEP}: the {boundary} network has a gradient of \S+ at {boundary}_policy;")


def test_a_fault_that_does_not_come_again_is_said_to_be_one():
    s = sandwich(mobilenet())
    passes = Passes(s.model)
    s.model.register_forward_hook(lambda *a: a[-1] * math.nan if passes.count == 1 else None)
    refused(s, rf"^step {STEP}: a loss or gradient was not finite, and it was finite when computed")


@pytest.mark.parametrize("number", range(len(PASSES)))
def test_training_stops_with_what_the_step_before_left(number, tmp_path):
    kept = {}
    for steps in (2, 5):
        model = mobilenet()
        cost = MACs(model)
        passes = Passes(model)
        bad = (2 * len(PASSES) + number, 3 * len(PASSES) + number)  # again when it is looked into
        model.register_forward_hook(
            lambda *a, p=passes, bad=bad: a[-1] * math.nan if p.count in bad else None
        )
        folder = RunFolder.create(tmp_path / str(steps), "name: run\n")
        settings = TrainSettings(steps=5, batch_size=16, checkpoint_every=steps)
        with pytest.raises(TrainingError, match=f"^step 2: .* {PASSES[number]} network"):
            fit(model, few_digits(), cost_range=COST_RANGE, cost=cost, settings=settings,
                folder=folder)  # fmt: skip
        kept[steps] = digest(model)
        saved = checkpoint.newest(folder.checkpoints)
        assert (saved.step if saved else None) == (2 if steps == 2 else None)
        assert not [name for name in files(folder.path) if "partial" in name]
    for name, value in model.state_dict().items():
        saved = checkpoint.newest(tmp_path / "2" / "checkpoints")
        assert torch.equal(value, saved.tensors[f"model/{name}"])
    assert kept[2] == kept[5]
