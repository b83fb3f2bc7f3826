"""A moving average of the weights: what is searched, checkpointed and opened, and by which rule."""

import torch
from tests.small import digest, few_digits
from tests.spaces import seeded
from tests.test_recipe import Net

import boundnas as bn
from boundnas import Observer, TrainSettings, fit
from boundnas.search import Evaluator

STEPS, DECAY, COST_RANGE = 9, 0.3, (2e3, 4e3)
MEASURED = bn.SearchSettings(calibration_images=32)


class Steps(Observer):
    """Keeps the weights after each step."""

    def begin(self, run, step):
        self.model, self.seen = run.model, []

    def step(self, row):
        self.seen.append([p.detach().clone() for p in self.model.parameters()])


class PartlyFixed(Net):
    """A network with a constant and a frozen weight."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.full((), 0.3))
        self.head.bias.requires_grad_(False)

    def forward(self, x, arch):
        return super().forward(x + self.shift, arch)


def trained(folder=None, observers=(), ema=DECAY, make=Net):
    settings = TrainSettings(steps=STEPS, batch_size=16, checkpoint_every=2, ema=ema)
    return fit(seeded(make), few_digits(), cost_range=COST_RANGE, settings=settings,
               folder=folder, observers=observers)  # fmt: skip


def test_the_model_ends_with_the_average_of_its_steps():
    steps = Steps()
    run = trained(observers=[steps])
    expected = [w.double() for w in steps.seen[0]]
    for n, weights in enumerate(steps.seen[1:], 1):
        decay = min(DECAY, (1 + n) / (10 + n))
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, weights, strict=True)]
    found = list(run.model.parameters())
    for value, one, last in zip(found, expected, steps.seen[-1], strict=True):
        torch.testing.assert_close(value.double(), one, rtol=1e-5, atol=1e-7)
        assert not torch.equal(value, last)
    assert min(DECAY, (1 + STEPS) / (10 + STEPS)) == DECAY > 3 / 12, "both parts of the rule count"


def test_the_steps_and_the_boundaries_are_as_without_an_average():
    run, plain = trained(), trained(ema=None)
    assert run.metrics == plain.metrics
    assert run.trajectory == plain.trajectory
    for (_, one), (_, other) in zip(run.boundaries.items(), plain.boundaries.items(), strict=True):
        assert digest(one) == digest(other)
    assert digest(run.model) != digest(plain.model)


def test_what_does_not_train_stays_bit_for_bit():
    run, before = trained(make=PartlyFixed), seeded(PartlyFixed)
    for name in ("shift", "head.bias"):
        assert torch.equal(run.model.state_dict()[name], before.state_dict()[name])
    assert not torch.equal(run.model.head.weight, before.head.weight)


def test_a_run_opens_with_the_average(tmp_path):
    run = trained(tmp_path / "run")
    opened = bn.open(tmp_path / "run", model=seeded(Net), data=few_digits())
    assert digest(opened.model) == digest(run.model)


def test_validation_while_training_measures_what_the_training_would_end_with():
    validation = bn.Validation(every=STEPS, between=1, settings=MEASURED)
    run = trained(observers=[validation])
    assert digest(run.model) == digest(trained().model), "it changes no byte"
    evaluator = Evaluator(run.model, run.data, MEASURED, run.seed, run.costs, run.task)
    row = validation.rows[-1]
    for found in (row["max"], row["min"], *row["between"]):
        expected = evaluator(run.model.space.architecture(found["architecture"]))
        assert found["score"] == expected.score
