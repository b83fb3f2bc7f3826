import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.spaces import SPACES, supernet

from boundnas.errors import SpaceError
from boundnas.method.policy import (
    BOUNDARIES,
    Boundaries,
    Policy,
    initial_policy,
    point_mass,
    random_policy,
)
from boundnas.randomness import stream
from boundnas.space import Dimension, SearchSpace

SPACE = SearchSpace(
    [
        Dimension("width", (8, 16, 24, 40)),
        Dimension("only", (3,)),
        Dimension("function", ("relu", "swish"), "activation"),
        Dimension("kernel", (3, 5, 7), "kernel"),
    ]
)
SIZES = [len(d) for d in SPACE.dimensions]


def policy_of(*rows, space=SPACE, temperature=0.1):
    """A policy with these probabilities."""
    logits = torch.zeros(len(rows), max(map(len, rows)))
    for logit, row in zip(logits, rows, strict=True):
        logit[: len(row)] = torch.tensor(row).log() * temperature
    return Policy(space, logits, temperature)


SKEWED = ((0.1, 0.2, 0.3, 0.4), (1.0,), (0.75, 0.25), (0.2, 0.5, 0.3))


@pytest.mark.parametrize("std", [1e-3, math.sqrt(1e-3), 0.3])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_start_is_monotone_towards_its_boundary(boundary, std):
    for seed in range(20):
        policy = initial_policy(SPACE, boundary, stream(seed, "start"), std)
        for row, size in zip(policy.probabilities, SIZES, strict=True):
            ordered = row[:size] if boundary == "max" else row[:size].flip(0)
            assert (ordered.diff() >= 0).all()
            assert (row[size:] == 0).all()
        assert policy.mode == (SPACE.largest if boundary == "max" else SPACE.smallest)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_another_start_has_the_probabilities_of_eq_7_by_distance(boundary):
    start = SPACE.sample(stream(0, "start"))
    usual = initial_policy(SPACE, boundary, stream(1, "start")).probabilities
    policy = initial_policy(SPACE, boundary, stream(1, "start"), start=start)
    assert policy.mode == start
    for row, same, size, first in zip(
        policy.probabilities, usual, SIZES, start.indices, strict=True
    ):
        assert torch.equal(row.sort().values, same.sort().values)
        by_distance = sorted(range(size), key=lambda j: abs(j - first))
        assert (row[by_distance].diff() <= 0).all()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", SPACES)
def test_probabilities_of_every_dimension_sum_to_one(name, boundary):
    space = supernet(name).space
    policy = initial_policy(space, boundary, stream(0, "start"))
    torch.testing.assert_close(policy.probabilities.sum(-1), torch.ones(len(space)))
    assert not policy.probabilities.requires_grad


def test_a_wider_increment_gives_a_more_peaked_start():
    tops = [
        initial_policy(SPACE, "max", stream(0, "start"), std).probabilities[0, 3].item()
        for std in (1e-3, 1e-2, 1e-1)
    ]
    assert 0.25 < tops[0] < tops[1] < tops[2]


def test_the_temperature_divides_the_logits():
    logits = torch.tensor([[0.1, 0.3, 0.2, 0.4], [0, 0, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0]])
    policy = Policy(SPACE, logits, temperature=0.5)
    torch.testing.assert_close(policy.probabilities[0], (logits[0] / 0.5).softmax(-1))


@pytest.mark.parametrize("gumbel_temperature", [0.3, 1.0, 5.0])
def test_samples_are_as_frequent_as_probable(gumbel_temperature):
    policy, draws = policy_of(*SKEWED), 4000
    counts = [torch.zeros(size, dtype=torch.float64) for size in SIZES]
    for step in range(draws):
        arch = policy.sample(stream(0, "gumbel", step), gumbel_temperature)
        for count, index in zip(counts, arch.indices, strict=True):
            count[index] += 1
    for count, row in zip(counts, SKEWED, strict=True):
        expected = draws * torch.tensor(row, dtype=torch.float64)
        chi_square = ((count - expected) ** 2 / expected).sum().item()
        assert chi_square < 21.1  # exceeded by one in 10,000 with three degrees of freedom


@given(st.integers(0, 2**63 - 1))
def test_gates_are_exactly_one_hot_at_the_chosen_option(seed):
    arch = policy_of(*SKEWED).sample(stream(seed, "gumbel"))
    for size, index, gate in zip(SIZES, arch.indices, arch.gates, strict=True):
        assert gate.tolist() == [float(i == index) for i in range(size)]


def test_the_gradient_is_that_of_the_gumbel_softmax_sample():
    policy = policy_of(*SKEWED).double()
    weights = torch.arange(1.0, 11.0, dtype=torch.float64).square()
    arch = policy.sample(stream(3, "gumbel"), gumbel_temperature=0.7)
    (torch.cat(arch.gates) @ weights).backward()
    uniform = torch.rand(4, 4, generator=stream(3, "gumbel"), dtype=torch.float64)
    logits = policy.logits.detach().requires_grad_()
    soft = [
        ((row[:size] / 0.1 - (-u[:size].log()).log()) / 0.7).softmax(-1)
        for row, u, size in zip(logits, uniform, SIZES, strict=True)
    ]
    (torch.cat(soft) @ weights).backward()
    torch.testing.assert_close(policy.logits.grad, logits.grad, rtol=1e-9, atol=1e-12)
    assert [s.argmax().item() for s in soft] == list(arch.indices)


def test_one_option_has_no_gate_and_no_gradient():
    policy = policy_of(*SKEWED)
    arch = policy.sample(stream(0, "gumbel"))
    assert arch.gate(SPACE.dimensions[1]) is None
    assert arch.gate(5) is None
    assert arch.gate(SPACE.dimensions[0].map(lambda c: c // 4)) is arch.gates[0]
    (torch.cat(arch.gates) @ torch.arange(10.0)).backward()
    assert policy.logits.grad[1].tolist() == [0, 0, 0, 0]
    assert (policy.logits.grad[0] != 0).all()


def test_moments_are_those_computed_by_hand():
    mean, std = policy_of(*SKEWED).moments()
    assert mean.tolist() == pytest.approx([27.2, 3, 0.25, 5.2])
    by_hand = [math.sqrt(130.56), 0, math.sqrt(0.1875), 1.4]
    assert std.tolist() == pytest.approx(by_hand, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_point_mass_is_its_boundary_and_trains_nothing(boundary):
    policy = point_mass(SPACE, boundary)
    edge = SPACE.largest if boundary == "max" else SPACE.smallest
    assert policy.mode == edge
    assert not any(p.requires_grad for p in policy.parameters())
    numbers = [d.numbers[i] for d, i in zip(SPACE.dimensions, edge.indices, strict=True)]
    assert policy.moments()[0].tolist() == numbers
    assert policy.moments()[1].tolist() == [0] * len(SPACE)


@pytest.mark.parametrize("name", SPACES)
def test_between_fixed_boundaries_everything_is_allowed(name):
    space = supernet(name).space
    assert Boundaries(point_mass(space, "max"), point_mass(space, "min")).allowed == space.whole


@pytest.mark.parametrize(
    ("phi", "theta", "closed", "printed"),
    [
        pytest.param([0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 2, 3], [0, 1, 2], id="point masses"),
        pytest.param([0, 0, 1, 0], [0, 1, 0, 0], [1, 2], [1], id="narrowed"),
        pytest.param([0, 1, 0, 0], [0, 1, 0, 0], [1], [], id="both on one"),
        pytest.param([0.5, 0, 0, 0.5], [1, 0, 0, 0], [0, 1, 2, 3], [0, 1, 2], id="at tau"),
        pytest.param([0.6, 0, 0, 0.4], [1, 0, 0, 0], [0], [], id="below tau"),
        pytest.param([0.25] * 4, [0.25] * 4, [1, 2], [1], id="uniform"),
        pytest.param([1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 2, 3], [], id="crossing"),
        pytest.param([0, 1, 0, 0], [0, 0, 1, 0], [1, 2], [], id="crossing in the middle"),
    ],
)
def test_random_networks_are_drawn_between_the_boundaries(phi, theta, closed, printed):
    phi, theta = torch.tensor([phi, theta], dtype=torch.float32)
    for eq6, options in (("closed", closed), ("printed", printed)):
        weights = random_policy(phi, theta, 0.5, eq6)
        expected = [1 / len(options) if j in options else 0 for j in range(4)]
        assert weights.tolist() == pytest.approx(expected)


# Probabilities in eighths have exact sums.
eighths = st.lists(st.integers(0, 4), min_size=8, max_size=8).map(
    lambda draws: torch.tensor([draws.count(j) / 8 for j in range(5)])
)


@given(eighths, eighths, st.sampled_from([0.25, 0.5, 0.75]))
def test_eq_6_allows_what_both_boundaries_reach_with_probability_tau(phi, theta, tau):
    for eq6, first in (("closed", 0), ("printed", 1)):
        expected = [
            j for j in range(5) if sum(phi[j + first :]) >= tau and sum(theta[: j + 1]) >= tau
        ]
        weights = random_policy(phi, theta, tau, eq6)
        found = weights.nonzero().flatten().tolist()
        if expected or eq6 == "printed":
            assert found == expected
        else:
            assert found == between_the_medians(phi, theta)
        if found:
            assert weights[found].tolist() == pytest.approx([1 / len(found)] * len(found))


def between_the_medians(phi, theta):
    medians = [next(j for j in range(5) if sum(p[: j + 1]) >= 0.5) for p in (phi, theta)]
    return list(range(min(medians), max(medians) + 1))


@given(eighths, eighths, st.sampled_from([0.25, 0.5, 0.75]))
def test_the_closed_reading_never_leaves_a_dimension_empty(phi, theta, tau):
    weights = random_policy(phi, theta, tau)
    assert weights.sum().item() == pytest.approx(1)


def test_the_random_policy_carries_no_gradient():
    phi = torch.tensor([0.5, 0.5], requires_grad=True)
    assert not random_policy(phi, phi).requires_grad


def stepped(x):
    """A hard step whose gradient is that of ``clamp((x + 1) / 2, 0, 1)``, by plain autograd."""
    soft = ((x + 1) / 2).clamp(0, 1)
    return soft + ((x >= -1e-6).to(x) - soft).detach()


@pytest.mark.parametrize("eq6", ["closed", "printed"])
@pytest.mark.parametrize("seed", range(4))
def test_a_random_network_hands_its_gradient_to_both_policies_through_eq_6(seed, eq6):
    space = SearchSpace([d for d in SPACE.dimensions if len(d) > 2])
    sizes, generator, tau = [len(d) for d in space.dimensions], stream(seed, "test"), 0.2
    max_policy, min_policy = (
        initial_policy(space, boundary, generator, std=0.02).double() for boundary in BOUNDARIES
    )
    arch = space.sample(generator, Boundaries(max_policy, min_policy, tau, eq6).allowed)
    coefficients = torch.randn(sum(sizes), generator=generator, dtype=torch.float64)
    sample = Boundaries(max_policy, min_policy, tau, eq6).gated(arch)
    assert sample == arch
    for size, index, gate in zip(sizes, arch.indices, sample.gates, strict=True):
        assert gate.tolist() == [float(i == index) for i in range(size)]
    (torch.cat(sample.gates) @ coefficients).backward()

    logits = [p.logits.detach().clone().requires_grad_() for p in (max_policy, min_policy)]
    total = torch.zeros((), dtype=torch.float64)
    for row, (size, c) in enumerate(zip(sizes, coefficients.split(sizes), strict=True)):
        phi, theta = ((each[row, :size] / 0.1).softmax(-1) for each in logits)
        weights = []
        for j in range(size):
            reach = phi[j:].sum() if eq6 == "closed" else phi[j + 1 :].sum()
            weights.append(stepped(reach - tau) * stepped(theta[: j + 1].sum() - tau))
        weights = torch.stack(weights)
        total = total + c @ (weights / weights.sum().clamp_min(1))
    total.backward()
    for policy, expected in zip((max_policy, min_policy), logits, strict=True):
        assert expected.grad.any()
        torch.testing.assert_close(policy.logits.grad, expected.grad, rtol=1e-9, atol=1e-12)


def test_learned_boundaries_narrow_each_dimension_by_itself():
    high = policy_of((0.1, 0.1, 0.7, 0.1), (1.0,), (0.9, 0.1), (0.1, 0.1, 0.8))
    low = policy_of((0.1, 0.8, 0.05, 0.05), (1.0,), (0.9, 0.1), (0.8, 0.1, 0.1))
    assert Boundaries(high, low).allowed == ((1, 2), (0,), (0,), (0, 1, 2))


def test_an_empty_support_names_the_dimension_and_the_remedy():
    high = policy_of((0.1, 0.1, 0.7, 0.1), (1.0,), (0.1, 0.9), (0.1, 0.1, 0.8))
    low = policy_of((0.1, 0.8, 0.05, 0.05), (1.0,), (0.9, 0.1), (0.8, 0.1, 0.1))
    message = r"only: no option lies between .* \(tau = 0\.5\); use eq6: closed, or a smaller tau"
    with pytest.raises(SpaceError, match=message):
        _ = Boundaries(high, low, eq6="printed").allowed


def test_equal_streams_draw_equal_networks():
    policy = policy_of(*SKEWED)
    first, second = (policy.sample(stream(0, "gumbel")) for _ in range(2))
    assert first == second
    assert first.noise is None
