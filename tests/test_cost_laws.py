"""What holds for every cost: exact, differentiable, refused in time; and one of one's own."""

import json
from functools import cache
from itertools import permutations, product

import numpy as np
import pytest
import torch
from tests.costs import COSTS, own_cost
from tests.small import few_digits, mobilenet
from tests.spaces import SPACES, images, shared

from boundnas import calibrate, extract, fit
from boundnas.cost.terms import Terms
from boundnas.errors import CostError
from boundnas.fit.loop import Trainer
from boundnas.method.policy import Policy, point_mass
from boundnas.randomness import stream
from boundnas.space import Architecture, Dimension
from boundnas.space.polynomial import PRIME, amount, chosen, tabulated, value_hash
from boundnas.store.lines import read_jsonl


@cache
def built(name, cost):
    """A supernet of the table and a cost of it; not to be changed."""
    model = shared(name)
    return model, cost(model)


@cache
def extracted(name):
    """The smallest and another network of a supernet of the table; not to be changed."""
    model = shared(name)
    archs = model.space.smallest, model.space.sample(stream(0, "law"))
    return {a: extract(model, calibrate(model, a, [images(model, 4)])) for a in archs}


every = pytest.mark.parametrize(("cost", "count"), COSTS.values(), ids=COSTS)
spaces = pytest.mark.parametrize("name", SPACES)


@every
@spaces
def test_a_cost_is_what_is_counted_of_the_extracted_network(name, cost, count):
    model, found = built(name, cost)
    for arch, net in extracted(name).items():
        assert found(arch) == count(net, images(model, 1)), arch


@every
@spaces
def test_the_relaxed_cost_is_the_exact_cost_at_one_hot_gates(name, cost, count):
    model, found = built(name, cost)
    longest = max(map(len, model.space.dimensions))
    policy = Policy(model.space, torch.zeros(len(model.space), longest))
    for step in range(20):
        arch = policy.sample(stream(0, "gumbel", step))
        assert found.relaxed(arch).item() == found(arch)
    plain = point_mass(model.space, "max").sample(stream(0, "gumbel"))
    assert found.relaxed(plain).item() == found(plain)


@every
@spaces
def test_its_gradient_reaches_every_option_by_finite_differences(name, cost, count):
    model, found = built(name, cost)
    space = model.space
    arch = space.sample(stream(1, "architecture"))
    hot = [torch.eye(len(d), dtype=torch.float64)[i] for d, i in zip(
        space.dimensions, arch.indices, strict=True)]  # fmt: skip

    deciding = Terms([max(found.polynomial.parts, key=lambda part: part.value(arch))], space)

    def at(gates):
        return float(deciding.relaxed(torch.cat(gates)))

    gates = tuple(gate.clone().requires_grad_() for gate in hot)
    found.relaxed(arch.carrying(gates=gates)).backward()
    for i, gate in enumerate(gates):
        for option in range(len(gate)):
            sides = []
            for step in (1 / 4, -1 / 4):  # exact, as each gate is squared at most
                moved = [g.clone() for g in hot]
                moved[i][option] += step
                sides.append(at(moved))
            slope = (sides[0] - sides[1]) * 2
            assert gate.grad[option].item() == pytest.approx(slope, rel=1e-9, abs=1e-9)


@every
def test_a_range_that_no_network_meets_is_refused_before_training(cost, count, monkeypatch):
    monkeypatch.setattr(Trainer, "train", None)
    model = mobilenet()
    found = cost(model)
    smallest, largest = found.reach
    for cost_range in ((smallest / 4, smallest / 2), (2 * largest, 3 * largest)):
        with pytest.raises(CostError, match=rf"costs .* {found.unit}: they reach from .* to "):
            fit(model, few_digits(), cost=found, cost_range=cost_range)


@pytest.mark.parametrize("cost", [c for n, (c, _) in COSTS.items() if n != "latency"])
@spaces
def test_a_larger_option_never_costs_less(name, cost):
    model, cost = built(name, cost)
    space = model.space
    assert cost.reach == (cost(space.smallest), cost(space.largest))
    for step in range(20):
        a, b = (space.sample(stream(0, side, step)) for side in "ab")
        pairs = list(zip(a.indices, b.indices, strict=True))
        low, high = (Architecture(space, tuple(map(pick, pairs))) for pick in (min, max))
        assert cost(low) <= min(cost(a), cost(b)) <= max(cost(a), cost(b)) <= cost(high)
        assert isinstance(cost(a), int)


@pytest.fixture
def seeds():
    """The example seeds the initial weights."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.usefixtures("seeds")
def test_a_cost_of_ones_own_goes_from_training_to_the_report(tmp_path):
    own_cost.main(tmp_path / "whole")
    assert (tmp_path / "whole" / "best.onnx").exists()
    rows = read_jsonl(tmp_path / "whole" / "search" / "evaluations.jsonl")[1:]
    for row in rows:
        costs = row["costs"]
        assert costs["energy"] == 46 * costs["macs"] + 6400 * costs["parameters"]
    assert list(json.loads((tmp_path / "whole" / "front.json").read_text())["ranges"]) == ["energy"]
    assert '"energy":' in (tmp_path / "whole" / "report.html").read_text()


def test_a_cost_of_ones_own_takes_at_most_sixty_lines():
    with open(own_cost.__file__) as file:
        assert len(file.readlines()) <= 60


def test_polynomials_of_equal_values_have_one_hash_however_they_are_written():
    dimensions = [
        Dimension(name, tuple(range(1, n + 1))) for name, n in zip("abc", (2, 3, 4), strict=True)
    ]
    table = np.random.default_rng(0).integers(0, 10**6, (2, 3, 4))
    orders = permutations(range(3))
    written = [tabulated([dimensions[i] for i in o], table.transpose(o)) for o in orders]
    single = [
        np.prod([chosen(d, {j}) for d, j in zip(dimensions, at, strict=True)]) * int(table[at])
        for at in product(*map(range, table.shape))
    ]
    written += [sum(single), sum(reversed(single)), written[0] + 5 + (-5)]
    (found,) = set(map(value_hash, written))
    assert 0 <= found < PRIME
    for at in product(*map(range, table.shape)):
        other = table.copy()
        other[at] += 1
        assert value_hash(tabulated(dimensions, other)) != found


def test_a_hash_tells_options_dimensions_and_powers_apart():
    a, b = Dimension("a", (1, 2, 3)), Dimension("b", (1, 2, 3))
    several = [amount(a), amount(b), amount(a) * amount(a), amount(a) * amount(b), amount(4)]
    several += [chosen(a, {j}) for j in range(3)]
    assert len(set(map(value_hash, several))) == len(several)
    assert value_hash(amount(a) * amount(a)) == value_hash(amount(a, lambda value: value**2))
    assert value_hash(chosen(a, {0}) + chosen(a, {1, 2})) == value_hash(amount(1))
