"""Algorithm 1: what a step adds up, who teaches whom, the plain sandwich as a special case."""

import math

import pytest
import torch
from tests.oracle import masked
from tests.small import COST_RANGE, batch, digest, few_digits, mobilenet
from torch.nn import functional as F

from boundnas import TrainSettings, fit
from boundnas.cost import Budget, MACs
from boundnas.data import TrainingOrder, augment, normalize
from boundnas.errors import SpaceError
from boundnas.fit.guard import Guard
from boundnas.fit.start import start_boundaries, start_policy
from boundnas.method.sandwich import Sandwich
from boundnas.method.variants import chosen
from boundnas.method.variants.nasvit import add_projected, set_aside
from boundnas.randomness import stream
from boundnas.task import Classification, kl_divergence

SEED, STEP = 3, 7

RANGES = {
    "both penalties": (9e3, 60e3),  # below the smallest and above the largest network
    "no penalty": (60e3, 61e3),
}


def sandwich(cost_range=COST_RANGE, **options):
    model = mobilenet()
    # A flat start, so that the boundaries draw different networks in different steps, and gradients
    # of the whole batch, as the losses that they are compared with have.
    flat = {"start_std": 1e-3, "start_temperature": 1.0, "ghost_fraction": 1}
    settings = TrainSettings(steps=12, **flat | options)
    return sandwich_of(model, settings, cost_range, SEED)


def sandwich_of(model, settings, cost_range, seed):
    cost = MACs(model)
    budgets, variants = [Budget(cost, cost_range)], chosen(settings, cost)
    boundaries = start_boundaries(model, settings, seed, budgets)
    return Sandwich(model, Classification(), boundaries, budgets, settings, seed, variants)


def drawn(s, boundary, step=STEP):
    policy = getattr(s.boundaries, boundary)
    return policy.sample(stream(SEED, f"{boundary}_policy", step))


def divergence(student, teacher):
    """KL(teacher || student), written out."""
    p, q = teacher.detach().softmax(-1), student.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1).mean()


def four_losses(s, images, labels):
    """The losses of Algorithm 1 on the architectures of the step, each with its own graph."""
    (cost, (lower, upper)), *_ = s.budgets
    lower = max(lower, cost.reach[0])

    def largest():
        arch = drawn(s, "max")
        noise = stream(SEED, "dropout", STEP)
        arch = arch.plain.carrying(gates=arch.gates, noise=noise)
        return arch, s.model(images, arch)

    arch, logits = largest()
    yield F.cross_entropy(logits, labels) + 5 * (1 - cost.relaxed(arch) / upper).clamp_min(0)
    teacher = largest()[1].detach()
    arch = drawn(s, "min")
    penalty = (cost.relaxed(arch) / lower - 1).clamp_min(0)
    yield divergence(s.model(images, arch), teacher) + 5 * penalty
    generator = stream(SEED, "random_policy", STEP)
    for _ in range(2):
        arch = s.model.space.sample(generator, s.boundaries.allowed)
        yield divergence(s.model(images, arch), teacher)


@pytest.mark.parametrize("cost_range", RANGES.values(), ids=RANGES)
def test_a_step_adds_the_gradients_of_four_separate_losses(cost_range):
    s, (images, labels) = sandwich(cost_range), batch()
    parameters = [*s.model.parameters(), s.boundaries.max.logits, s.boundaries.min.logits]
    expected = [torch.zeros_like(p) for p in parameters]
    for loss in four_losses(s, images, labels):
        for total, gradient in zip(
            expected, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            total += 0 if gradient is None else gradient
    s.step(images, labels, STEP)
    for parameter, total in zip(parameters, expected, strict=True):
        found = torch.zeros_like(total) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-6)


def test_random_networks_teach_the_policies_when_they_are_asked_to():
    quiet, s, (images, labels) = sandwich(), sandwich(grad_from_random=True), batch()
    plain = quiet.step(images, labels, STEP)
    assert s.step(images, labels, STEP) == plain, "no value changes"
    arch = drawn(s, "max")
    noise = stream(SEED, "dropout", STEP)
    logits = s.model(images, arch.plain.carrying(noise=noise))
    expected = [quiet.boundaries.max.logits.grad, quiet.boundaries.min.logits.grad]
    policies = [s.boundaries.max.logits, s.boundaries.min.logits]
    generator = stream(SEED, "random_policy", STEP)
    for _ in range(2):
        arch = s.model.space.sample(generator, s.boundaries.allowed)
        arch = s.boundaries.gated(arch)
        with masked(s.model):
            loss = divergence(s.model(images, arch), logits)
        for total, gradient in zip(expected, torch.autograd.grad(loss, policies), strict=True):
            assert gradient.any()
            total += gradient
    for parameter, total in zip(policies, expected, strict=True):
        torch.testing.assert_close(parameter.grad, total, rtol=1e-3, atol=1e-5)
    for one, other in zip(s.model.parameters(), quiet.model.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_what_opposes_the_students_is_projected_out_of_the_max_network():
    s, (images, labels) = sandwich(conflict="project"), batch()
    parameters = list(s.model.parameters())
    teacher, *others = (
        torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        for loss in four_losses(s, images, labels)
    )
    s.step(images, labels, STEP)
    opposed = agreeing = 0
    for parameter, m, *each in zip(parameters, teacher, *others, strict=True):
        g = sum(each)  # NASViT lets the gradients of all students add up
        inner = float((g * m).sum())
        conflict = inner < 0 and float(g.norm()) > 1e-5 * float(m.norm())
        opposed, agreeing = opposed + conflict, agreeing + (inner > 0)
        expected = g + (m - inner / float((g * g).sum()) * g if conflict else m)
        if parameter.grad is None:
            assert not expected.any()
        else:
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)
    assert min(opposed, agreeing) > 3


MAX_AND_STUDENTS = {
    "of the issue": ((1.0, 0.0), (-1.0, 1.0), (-0.5, 1.5)),
    "no conflict": ((1.0, 0.0), (1.0, 1.0), (2.0, 1.0)),
    "orthogonal": ((1.0, 0.0), (0.0, 2.0), (1.0, 2.0)),
    "opposite: only the students count": ((4.0, 0.0), (-0.5, 0.0), (-0.5, 0.0)),
    "far from orthogonal": ((100.0, 0.0), (-1.0, 1.0), (49.0, 51.0)),
    "students of rounding": ((1.0, 2.0), (-1e-7, 0.0), (1.0 - 1e-7, 2.0)),
    "students that are small, and meant": ((1.0, 2.0), (-(2.0**-10), 0.0), (-(2.0**-10), 2.0)),
    "students without gradient": ((1.0, 2.0), (0.0, 0.0), (1.0, 2.0)),
    "the max network alone": ((1.0, 2.0), None, (1.0, 2.0)),
    "students alone": (None, (3.0, -1.0), (3.0, -1.0)),
    "nobody": (None, None, None),
}


@pytest.mark.parametrize(("m", "g", "expected"), MAX_AND_STUDENTS.values(), ids=MAX_AND_STUDENTS)
def test_the_projection_by_hand(m, g, expected):
    weight, other = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    m, g = (None if row is None else torch.tensor(row) for row in (m, g))
    weight.grad, other.grad = m, torch.ones(2)
    held = set_aside([weight, other])
    assert weight.grad is None
    weight.grad, other.grad = g, torch.ones(2)
    add_projected([weight, other], held)
    assert (None if weight.grad is None else tuple(weight.grad.tolist())) == (
        None if expected is None else pytest.approx(expected)
    )
    assert other.grad.tolist() == [2, 2], "each weight is projected by itself"


def test_each_boundary_learns_from_its_own_network_alone():
    s, (images, labels) = sandwich(RANGES["both penalties"]), batch()
    policies = [s.boundaries.max.logits, s.boundaries.min.logits]
    received = [
        [g is not None and bool(g.any()) for g in gradients]
        for gradients in (
            torch.autograd.grad(loss, policies, allow_unused=True)
            for loss in list(four_losses(s, images, labels))[:2]
        )
    ]
    assert received == [[True, False], [False, True]]


def test_the_teacher_gets_no_gradient_from_its_students():
    student, teacher = (torch.randn(4, 10, generator=stream(i, "test")) for i in range(2))
    student.requires_grad_()
    teacher.requires_grad_()
    loss = kl_divergence(student, teacher)
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(loss, divergence(student, teacher))
    assert float(kl_divergence(teacher, teacher).detach()) == pytest.approx(0, abs=1e-6)


def test_a_step_changes_no_weight_and_draws_nothing_from_the_global_generator():
    s, (images, labels) = sandwich(), batch()
    before, state = digest(s.model, s.boundaries.max, s.boundaries.min), torch.get_rng_state()
    first = s.step(images, labels, STEP)
    assert digest(s.model, s.boundaries.max, s.boundaries.min) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert s.step(images, labels, STEP) == first


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("cost_range", [(9e3, 60e3), (60e3, 61e3), (12e3, 30e3)])
def test_penalties_are_the_relative_excess_over_the_range(cost_range, step):
    s = sandwich(cost_range)
    lower, upper = cost_range
    lower = max(lower, 10_320)  # the smallest network: less cannot be asked of it
    scalars = s.step(*batch(), step)
    largest = s.boundaries.max.sample(stream(SEED, "max_policy", step))
    smallest = s.boundaries.min.sample(stream(SEED, "min_policy", step))
    cost = s.budgets[0].cost
    assert scalars["max macs"] == cost(largest)
    assert scalars["min macs"] == cost(smallest)
    assert float(scalars["penalty_max"]) == pytest.approx(max(0, 1 - cost(largest) / upper))
    assert float(scalars["penalty_min"]) == pytest.approx(max(0, cost(smallest) / lower - 1))


@pytest.mark.parametrize("networks", [0, 1, 3])
def test_the_random_loss_is_the_mean_over_the_random_networks(networks):
    s, (images, labels) = sandwich(random_networks=networks), batch()
    calls = []
    s.model.register_forward_hook(lambda *_: calls.append(1))
    loss = float(s.step(images, labels, STEP)["loss_random"])
    assert len(calls) == 2 + networks
    assert loss > 0 if networks else loss == 0


def plain_sandwich(model, images_of, seed, settings):
    """Sandwich sampling as it was before boundaries were learned, from nothing of the trainer."""
    named = dict(model.named_parameters())
    undecayed = {name for name in named if name.endswith("bias") or ".norm." in name}
    optimizer = torch.optim.SGD(
        [
            {"params": [p for name, p in named.items() if name not in undecayed]},
            {"params": [named[name] for name in undecayed], "weight_decay": 0.0},
        ],
        lr=0.0,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )
    space, steps = model.space, settings.steps
    order = TrainingOrder(len(images_of.train), settings.batch_size, seed)
    warmup = round(steps * settings.warmup_fraction)
    peak, start = settings.learning_rate, settings.warmup_start
    model.train()
    for step in range(steps):
        cosine = (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        for group in optimizer.param_groups:
            ramp = start + (peak - start) * step / warmup
            group["lr"] = ramp if step < warmup else peak * cosine
        images, labels = images_of.train.take(order.indices(step))
        images = augment(images, stream(seed, "augment", step), images_of.padding, images_of.flip)
        images = normalize(images, images_of.mean, images_of.std)

        noise = stream(seed, "dropout", step)
        teacher = model(images, space.largest.carrying(noise=noise))
        F.cross_entropy(teacher, labels).backward()
        generator = stream(seed, "random_policy", step)
        for arch in (space.smallest, space.sample(generator), space.sample(generator)):
            F.kl_div(
                model(images, arch).log_softmax(-1),
                teacher.detach().log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            ).backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.clamp_(-1, 1)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("seed", [0, 1])
def test_learning_no_boundary_is_the_plain_sandwich_rule_to_the_last_byte(seed):
    settings = TrainSettings(steps=12, batch_size=16, learn="none", warmup_fraction=0.25)
    run = fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings, seed=seed)
    baseline = mobilenet()
    start = digest(baseline)
    plain_sandwich(baseline, few_digits(), seed, settings)
    assert digest(run.model) == digest(baseline) != start


@pytest.mark.parametrize("learn", ["both", "max", "min", "none"])
def test_exactly_the_boundaries_asked_for_are_learned(learn):
    settings = TrainSettings(steps=3, batch_size=16, learn=learn)
    run = fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings)
    space = run.model.space
    fixed = {"max": space.largest, "min": space.smallest}
    for boundary, policy in (("max", run.boundaries.max), ("min", run.boundaries.min)):
        start = start_policy(run.model, boundary, settings, 0, run.budgets)
        moved = not torch.equal(policy.logits, start.logits)
        assert moved == policy.learned == (learn in ("both", boundary))
        if not moved:
            assert policy.sample(stream(0, "test")) == fixed[boundary]
            assert policy.probabilities.sum() == len(space)


def test_a_step_in_bfloat16_comes_to_about_the_same():
    exact, s, (images, labels) = sandwich(), sandwich(), batch()
    scalars = exact.step(images, labels, STEP)
    with torch.autocast("cpu", torch.bfloat16):
        found = s.step(images, labels, STEP)
    for name, value in scalars.items():
        if name.startswith("loss"):
            assert float(found[name]) == pytest.approx(float(value), rel=0.1, abs=0.02)
    Guard(s, 1.0).check(images, labels, STEP, found)
    ours, theirs = (torch.cat([g.flatten() for g in Guard(x, 1.0).gradients]) for x in (s, exact))
    assert F.cosine_similarity(ours, theirs, dim=0) > 0.95


def test_without_random_networks_eq_6_may_allow_nothing():
    s, (images, labels) = sandwich(random_networks=0, eq6="printed", tau=0.99), batch()
    with pytest.raises(SpaceError):
        _ = s.boundaries.allowed
    assert s.step(images, labels, STEP)["loss_random"] == 0


def test_every_rank_drops_other_features(monkeypatch):
    images, labels = batch()
    losses = []
    for number in (0, 0, 1):
        monkeypatch.setattr("boundnas.method.sandwich.rank", lambda number=number: number)
        losses.append(float(sandwich().step(images, labels, STEP)["loss_max"]))
    assert losses[0] == losses[1] != losses[2]
