"""Estimators of a policy's gradient: unbiased, each by its own formula, and part of a step."""

import itertools

import pytest
import torch
from tests.small import batch, digest, few_digits, mobilenet
from tests.test_sandwich import SEED, STEP, drawn, sandwich
from torch.nn import functional as F

from boundnas import TrainSettings, fit
from boundnas.fit.start import start_policy
from boundnas.method.policy import Policy
from boundnas.method.variants import ESTIMATORS
from boundnas.method.variants.estimators import measure_valued, score_function
from boundnas.randomness import stream
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.task import kl_divergence

SPACE = SearchSpace(
    [Dimension("a", (1, 2, 3)), Dimension("one", (1,)), Dimension("b", (1, 2)),
     Dimension("c", (1, 2, 3, 4))]
)  # fmt: skip
COMPARING = {"score_function": score_function, "measure_valued": measure_valued}
DRAWS = 5_000


def policy(temperature=0.5):
    logits = torch.randn(len(SPACE), 4, generator=stream(0, "logits"), dtype=torch.float64)
    return Policy(SPACE, logits, temperature)


def objective(arch):
    """Interactions of all dimensions: nothing additive."""
    a, _, b, c = (float(v) for v in arch.values.values())
    return torch.tensor(a * c - 3 * (b == 2) * (a == 2) + (c - 2) ** 2 * b, dtype=torch.float64)


def enumerated(of):
    """Every architecture of the space with its probability."""
    for indices in itertools.product(*(range(len(d)) for d in SPACE.dimensions)):
        arch = Architecture(SPACE, indices)
        yield arch, of.log_probability(arch).exp()


def true_gradient(of):
    expected = sum(p * objective(arch) for arch, p in enumerated(of))
    return torch.autograd.grad(expected, of.logits)[0]


def test_probabilities_of_all_architectures_sum_to_one():
    total = sum(p.detach() for _, p in enumerated(policy()))
    torch.testing.assert_close(float(total), 1.0)


@pytest.mark.parametrize("name", COMPARING)
def test_the_mean_of_many_estimates_is_the_true_gradient(name):
    of, generator, estimates = policy(), stream(1, name), []
    for _ in range(DRAWS):
        arch = of.sample(generator, learns=False)
        surrogate = COMPARING[name](of, arch, objective(arch), objective, generator)
        estimates.append(torch.autograd.grad(surrogate, of.logits)[0])
    found = torch.stack(estimates)
    error = found.std(0) / DRAWS**0.5
    truth = true_gradient(of)
    exists = error > 0
    assert exists.sum() == 9, "every option of three dimensions"
    assert ((found.mean(0) - truth).abs() <= 4 * error)[exists].all()
    assert (truth[exists].abs() > 4 * error[exists]).sum() >= 4, "precise enough to tell"
    assert not truth[~exists].any()


@pytest.mark.parametrize("name", COMPARING)
def test_a_constant_objective_teaches_nothing(name):
    of, generator = policy(), stream(2, name)
    arch = of.sample(generator, learns=False)
    surrogate = COMPARING[name](of, arch, torch.ones(()), lambda _: torch.ones(()), generator)
    assert not torch.autograd.grad(surrogate, of.logits)[0].any()


def test_a_certain_dimension_can_be_compared_too():
    logits = torch.zeros(len(SPACE), 4)
    logits[:, 0] = 1e6
    of, generator = Policy(SPACE, logits), stream(3, "certain")
    arch = of.sample(generator, learns=False)
    for _ in range(20):
        surrogate = measure_valued(of, arch, torch.ones(()), objective, generator)
        gradient = torch.autograd.grad(surrogate, of.logits)[0]
        assert gradient.isfinite().all()
        assert not gradient.any()


@pytest.mark.parametrize("name", COMPARING)
def test_a_step_hands_the_policies_the_comparison_on_its_own_batch(name):
    plain, s, (images, labels) = sandwich(learn="both"), sandwich(estimator=name), batch()
    scalars = plain.step(images, labels, STEP)
    assert s.step(images, labels, STEP) == scalars, "the networks are the same"
    for one, other in zip(s.model.parameters(), plain.model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:  # with gates, sums are formed in another order
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    lower, upper = s.budgets[0].range

    @torch.no_grad()
    def max_objective(arch):
        arch = arch.plain.carrying(noise=stream(SEED, "dropout", STEP))
        loss = F.cross_entropy(s.model(images, arch), labels)
        return loss + 5 * max(0, 1 - s.budgets[0].cost(arch) / upper)

    @torch.no_grad()
    def min_objective(arch):
        teacher = drawn(s, "max").plain.carrying(noise=stream(SEED, "dropout", STEP))
        loss = kl_divergence(s.model(images, arch), s.model(images, teacher))
        return loss + 5 * max(0, s.budgets[0].cost(arch) / lower - 1)

    for boundary, of, measure in (
        ("max", s.boundaries.max, max_objective),
        ("min", s.boundaries.min, min_objective),
    ):
        arch = drawn(s, boundary)
        generator = stream(SEED, f"{boundary}_policy_comparison", STEP)
        surrogate = COMPARING[name](of, arch, measure(arch), measure, generator)
        expected = torch.autograd.grad(surrogate, of.logits)[0]
        torch.testing.assert_close(of.logits.grad, expected, rtol=1e-4, atol=1e-6)
    assert s.boundaries.max.logits.grad.any()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_between_its_steps_a_policy_costs_and_learns_nothing(name, monkeypatch):
    s, plain, (images, labels) = sandwich(estimator=name, policy_every=4), sandwich(), batch()
    passes = []
    monkeypatch.setattr(type(s.model), "__call__", counting(type(s.model).__call__, passes))
    for step in (4, 5, 6, 7):
        passes.clear()
        assert s.step(images, labels, step) == plain.step(images, labels, step)
        learns = step == 4
        assert (s.boundaries.max.logits.grad is not None) == learns
        assert (s.boundaries.min.logits.grad is not None) == learns
        assert len(passes) - 4 == 4 + 2 * (learns and name != "straight_through")
        s.boundaries.max.logits.grad = s.boundaries.min.logits.grad = None


def counting(call, passes):
    def counted(*args, **kwargs):
        passes.append(args)
        return call(*args, **kwargs)

    return counted


@pytest.mark.parametrize("name", COMPARING)
def test_a_run_moves_its_boundaries_in_some_of_its_steps(name):
    settings = TrainSettings(steps=5, batch_size=16, estimator=name, policy_every=2)
    run = fit(mobilenet(), few_digits(), cost_range=(15e3, 25e3), settings=settings)
    for boundary, of in (("max", run.boundaries.max), ("min", run.boundaries.min)):
        start = start_policy(run.model, boundary, settings, 0, run.budgets)
        assert not torch.equal(of.logits, start.logits)


@pytest.mark.parametrize("name", COMPARING)
def test_fixed_boundaries_need_no_comparison(name):
    states = []
    for options in ({"estimator": name}, {}):
        settings = TrainSettings(steps=3, batch_size=16, learn="none", **options)
        run = fit(mobilenet(), few_digits(), cost_range=(15e3, 25e3), settings=settings)
        states.append(digest(run.model))
    assert states[0] == states[1]
