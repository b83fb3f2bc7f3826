"""What travels with an architecture: its parts combine, and are no part of what it is."""

import itertools
from dataclasses import fields, replace

import pytest
import torch
from tests.oracle import masked
from tests.spaces import images, seeded, supernet
from torch.nn import functional as F

from boundnas import Dimension, Supernet, calibrate, elastic
from boundnas.randomness import stream
from boundnas.space import Architecture, Pass
from boundnas.supernet.calibrate import Seen
from boundnas.supernet.trail import Watched

VALUES = {
    "gates": (torch.ones(1),),
    "noise": torch.Generator(),
    "ghost_fraction": 0.5,
    "statistics": Seen(),
    "settled": frozenset({Dimension("settled", (1, 2))}),
    "folds": True,
    "masked": True,
    "drawn": lambda layer, shape: None,
    "recomputes": True,
}
PAIRS = list(itertools.permutations(VALUES, 2))


def test_every_part_of_a_pass_stands_in_the_table():
    assert list(VALUES) == [f.name for f in fields(Pass)]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_part_that_is_given_leaves_the_others(first, second):
    space = supernet("own_network").space
    one = space.smallest.carrying(**{first: VALUES[first]})
    both = one.carrying(**{second: VALUES[second]})
    expected = {first: VALUES[first], second: VALUES[second]}
    for name in VALUES:
        assert getattr(both.carried, name) is expected.get(name, getattr(Pass(), name))
    assert both == one == space.smallest != space.largest.carrying(**expected)
    assert len({both, one, space.smallest}) == 1
    assert both.plain.carried is space.smallest.carried
    assert replace(both, indices=space.largest.indices).carried is both.carried


def test_what_an_architecture_gives_is_what_it_carries():
    space = supernet("own_network").space
    gates = tuple(torch.ones(len(d)) for d in space.dimensions)
    arch = Architecture(space, space.largest.indices, Pass(**VALUES | {"gates": gates}))
    assert (arch.noise, arch.ghost_fraction, arch.folds) == (VALUES["noise"], 0.5, True)
    assert arch.gate(space.dimensions[1]) is gates[1]
    plain = arch.plain
    assert (plain.noise, plain.ghost_fraction, plain.folds, plain.gates) == (None, 1.0, False, None)
    assert plain.gate(space.dimensions[1]) is plain.statistics("norm", torch.ones(2, 8)) is None


def test_what_watches_an_architecture_goes_on_watching_what_is_made_of_it():
    space, seen = supernet("own_network").space, []
    watched = Watched.of(space.largest, seen.extend).carrying(noise=VALUES["noise"])
    assert not seen
    assert watched[space.dimensions[1]] == 5
    assert seen == [space.dimensions[1]]
    assert watched.noise is VALUES["noise"]


ALL = ("gates", "noise", "statistics")
TOGETHER = {
    "own_stages": [ALL[:1], ALL[:2], ALL[::2], ALL],
    "own_network": [ALL[:1], ALL[::2]],
    "sample_wise": [ALL[:1], ALL[:2]],
    "noisy": [ALL[:1], ALL[:2], ALL[::2], ALL],
}
CASES = [(name, parts) for name, each in TOGETHER.items() for parts in each]


class Noisy(Supernet):
    """Noise after and before a normalization."""

    def __init__(self):
        super().__init__((3, 6, 6))
        width, kernel = self.dimension("width", (3, 5, 8)), self.dimension("kernel", (1, 3, 5))
        self.conv, self.norm = elastic.Conv2d(3, width, kernel), elastic.BatchNorm2d(width)
        self.dropout, self.second = elastic.Dropout(0.3), elastic.BatchNorm2d(width)
        self.head = elastic.Linear(width, 4)

    def forward(self, x, arch):
        x = self.second(self.dropout(self.norm(self.conv(x, arch), arch).relu(), arch), arch)
        return self.head(self.dropout(x.mean((2, 3)), arch), arch)


def model_of(name):
    return (seeded(Noisy) if name == "noisy" else supernet(name)).double()


def carrying(model, arch, parts):
    """Called with a model that is not masked, as calibration has no gates."""
    if "statistics" in parts:
        arch = calibrate(model, arch, [images(model, 6, seed=1)])
    pairs = zip(model.space.dimensions, arch.indices, strict=True)
    one_hot = (F.one_hot(torch.tensor(i), len(d)).double().requires_grad_() for d, i in pairs)
    return arch.carrying(gates=tuple(one_hot))


def passed(model, x, arch, parts):
    """Logits, and the gradients of weights and gates."""
    if "noise" in parts:
        arch = arch.carrying(noise=stream(0, "noise"))
    logits = model(x, arch)
    leaves = [*model.parameters(), *arch.gates]
    loss = F.cross_entropy(logits, torch.arange(len(x)) % logits.shape[1])
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return logits, gradients


@pytest.mark.parametrize(("name", "parts"), CASES)
@pytest.mark.parametrize("seed", range(2))
def test_parts_of_a_pass_act_together_as_in_the_masked_pass(name, parts, seed):
    model = model_of(name)
    x, arch = images(model, 5), model.space.sample(stream(seed, "architecture"))
    arch = carrying(model, arch, parts)
    logits, gradients = passed(model, x, arch, parts)
    with masked(model):
        expected, slow = passed(model, x, arch, parts)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)
    scale = max(float(g.abs().max()) for g in slow)
    for found, held in zip(gradients, slow, strict=True):
        torch.testing.assert_close(found, held, rtol=1e-8, atol=1e-9 * scale)


@pytest.mark.parametrize(("name", "parts"), [case for case in CASES if len(case[1]) > 1])
def test_every_part_changes_what_a_pass_computes(name, parts):
    model = model_of(name)
    x, arch = images(model, 5), model.space.sample(stream(0, "architecture"))
    found = {
        passed(model, x, carrying(model, arch, some), some)[0].sum().item()
        for some in (parts, *(parts[:i] + parts[i + 1 :] for i in range(1, len(parts))))
    }
    assert len(found) == len(parts)
