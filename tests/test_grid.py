"""Which blocks are measured, and that all other networks follow from them."""

import itertools
from functools import cache

import pytest
import torch
from tests.latency import MODELS, extracted, latency_model
from tests.spaces import SPACES, images, seeded
from tests.times import counted_nanoseconds, latency, plan, table_of
from torch import nn

from boundnas import Supernet, elastic, extract, models
from boundnas.cost import Latency
from boundnas.errors import CostError
from boundnas.latency.grid import Plan
from boundnas.randomness import stream
from boundnas.space import Architecture, Joined
from boundnas.supernet.signature import digest


@pytest.mark.parametrize("name", [n for n in MODELS if n not in SPACES])
def test_the_grid_gives_the_time_of_every_elasticized_network(name):
    """As of the other supernets by the laws of all costs."""
    model = latency_model(name)
    cost, x, space = latency(model), images(model, 1), model.space
    for arch in (space.smallest, space.largest, *(space.sample(stream(0, "g", i)) for i in "ab")):
        assert cost(arch) == counted_nanoseconds(extracted(model, arch), x), arch


class Says(nn.Module):
    """Looks a dimension up and says what it is."""

    def __init__(self, dimension):
        super().__init__()
        self.dimension = dimension

    def forward(self, x, arch):
        return arch[self.dimension]


class Hidden(Supernet):
    """Light nodes whose presence depends on what shows at no single change of an architecture."""

    def __init__(self):
        super().__init__((3, 4, 4))
        self.width = self.dimension("width", (4, 6, 8, 9))
        self.a, self.b = (self.dimension(n, (False, True), "switch") for n in "ab")
        self.middle = self.dimension("middle", (1, 2, 3), "mode")
        self.far = self.dimension("far", (False, True), "switch")
        self.first, self.second = elastic.Conv2d(3, self.width, 3), elastic.Conv2d(self.width, 5)
        self.head, self.says = elastic.Linear(5, 2), Says(self.far)

    def forward(self, x, arch):
        y = self.first(x, arch)
        y = y.sin() if arch[self.width] == 6 else y  # between the ends another thing is done
        y = self.second(y, arch)
        y = y.relu() if arch[self.a] or arch[self.b] else y  # one of the two is enough
        y = y.cos() if arch[self.middle] == 2 else y  # the ends do the same
        y = y.tanh() if self.says(y, arch) else y  # looked up elsewhere
        return self.head(y.mean((2, 3)), arch)


@pytest.mark.parametrize("level", [0, 1])
def test_what_a_block_depends_on_is_found_however_hidden(level):
    model = seeded(Hidden)
    cost, x = Latency(model, table_of(model, level)), images(model, 1)
    for indices in itertools.product(*(range(len(d)) for d in model.space.dimensions)):
        arch = Architecture(model.space, indices)
        assert cost(arch) == counted_nanoseconds(extract(model, arch), x), arch


class Wide(Supernet):
    """One layer of many dimensions, side by side or each with another effect."""

    def __init__(self, joined):
        super().__init__((3, 4, 4))
        widths = [self.dimension(f"width{i}", (2, 3, 5)) for i in range(5)]
        switches = [self.dimension(f"switch{i}", (False, True), "switch") for i in range(13)]
        self.switches = [] if joined else switches
        self.each = nn.ModuleList(elastic.Conv2d(3, width) for width in widths)
        self.last = elastic.Conv2d(Joined(tuple(widths)), widths[0])
        self.head = elastic.Linear(widths[0], 2)

    def forward(self, x, arch):
        x = torch.cat([layer(x, arch) for layer in self.each], 1)
        x = self.last(x, arch)
        for number, switch in enumerate(self.switches):
            x = x + number if arch[switch] else x
        return self.head(x.mean((2, 3)), arch)


def test_maps_side_by_side_count_by_their_sum():
    model = seeded(lambda: Wide(joined=True))
    last = next(b for b in table_of(model, 0).blocks if b.name == "last")
    own, beside = last.axes
    assert own.dimensions == ("width0",)
    assert own.at == ((0, pytest.approx(1 / 3), 1),)
    assert beside.dimensions == ("width1", "width2", "width3", "width4")
    assert beside.at == (pytest.approx((0, 1 / 12, 1 / 4)),) * 4
    assert len(last.times) == 4


def test_a_block_that_depends_on_too_much_is_refused_by_name():
    with pytest.raises(CostError, match=r"^last: how long it takes depends on width0, switch0, .*"):
        Plan(seeded(lambda: Wide(joined=False)))


@cache
def deep():
    """What is measured of a supernet of widths with many options; not to be changed."""
    return Plan(seeded(lambda: models.mobilenet_v2(0.25, image_size=8)))


def test_levels_refine_and_each_block_is_measured_once():
    found = deep()
    assert found.levels == 4
    levels = [found.signatures(level) for level in (0, 1)]
    every = [signature for level in levels for signature in level]
    assert len(set(every)) == len(every)
    assert {block.signature for block in found.blocks(levels[1][:9])} == {*levels[1][:9]}


def test_a_block_takes_the_finest_grid_that_is_measured_whole():
    found = plan(latency_model("vit"))
    coarse, fine = (list(map(digest, found.signatures(level))) for level in (0, 1))
    measured = dict.fromkeys(coarse, 5)
    points = [axis.points for block in found.times(measured) for axis in block.axes]
    assert max(points) == 2
    some = found.times(measured | dict.fromkeys(fine[:-1], 7))
    assert {axis.points for block in some for axis in block.axes} == {1, 2, 3}
    with pytest.raises(CostError, match=r"^patches: not all of its coarsest grid is measured"):
        found.times(dict.fromkeys(fine, 7))


@pytest.fixture
def looked(monkeypatch):
    """The levels whose signatures were looked for, in this order."""
    levels, signatures = [], Plan.signatures

    def noted(self, level):
        levels.append(level)
        return signatures(self, level)

    monkeypatch.setattr(Plan, "signatures", noted)
    return levels


def test_no_level_is_looked_at_beyond_those_that_were_measured(looked):
    found = deep()
    measured = {digest(s): 1 for s in found.signatures(0)}
    looked.clear()
    found.times(measured)
    assert looked == [0]
    found.times(measured | {"something else": 1})
    assert looked == [0, 0, 1]
    with pytest.raises(CostError, match="coarsest grid"):
        found.times({"something else": 1})
    assert looked == [0, 0, 1, 0]


def test_a_level_that_adds_nothing_does_not_end_what_was_measured(monkeypatch):
    found = Plan(latency_model("vit"))
    levels = [found.signatures(level) for level in range(found.levels)]
    assert len(levels) == 2
    measured = {digest(s): n for n, s in enumerate(itertools.chain(*levels))}
    expected = found.times(measured)
    monkeypatch.setattr(Plan, "levels", 3)
    found._needed = [levels[0], (), levels[1]]
    assert found.times(measured) == expected
