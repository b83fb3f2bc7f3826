"""Peak memory: the plan by hand, batches, precision, elasticized networks, and the largest."""

import pytest
import torch
from tests.layers import chain
from tests.memory import held
from tests.networks import NETWORKS
from tests.small import mobilenet
from tests.spaces import images, seeded
from torch import nn
from torch.nn import functional as F

from boundnas import Supernet, calibrate, elastic, elasticize, extract
from boundnas.cost import Cost, Largest, MACs, PeakMemory, amount
from boundnas.cost.plan import Plan
from boundnas.errors import CostError
from boundnas.randomness import stream
from boundnas.space.polynomial import Polynomial


class Hand(Supernet):
    """A network of which every moment can be counted by hand: maps of 6 by 6 pixels."""

    def __init__(self, steps, layers):
        super().__init__((1, 6, 6))
        width = self.dimension("width", (2, 4))
        self.conv = elastic.Conv2d(1, width)
        if "next" in layers:
            self.next = elastic.Conv2d(width, width)
        if "norm" in layers:
            self.norm = elastic.BatchNorm2d(width)
        self.head = elastic.Linear(width, 3)
        self.steps = steps

    def forward(self, x, arch):
        return self.head(self.steps(self, self.conv(x, arch), arch).mean((2, 3)), arch)


X, MAP = 36, 36 * 4
"""Numbers of the input, and of a map of four channels."""

BY_HAND = {  # what happens to a map, the numbers held at the widest moment, and further layers
    "one layer": (lambda net, x, arch: x, X + MAP + 4),
    "layer after layer": (lambda net, x, arch: net.next(x, arch), X + 2 * MAP, "next"),
    "in place": (lambda net, x, arch: net.norm(F.relu(x), arch).tanh() * 2, X + MAP + 4, "norm"),
    "taken again": (lambda net, x, arch: x + F.relu(x).sigmoid(), X + 2 * MAP),
    "gated": (lambda net, x, arch: F.silu(x), X + 2 * MAP),
    "a shortcut": (
        lambda net, x, arch: x + net.next(net.next(x, arch), arch).relu(),
        X + 3 * MAP,
        "next",
    ),
    "added into the shortcut": (
        lambda net, x, arch: x + net.norm(net.next(net.next(x, arch), arch), arch),
        X + 2 * MAP,
        "next",
        "norm",
    ),
    "not into what it takes": (lambda net, x, arch: x + net.next(x, arch), X + 2 * MAP, "next"),
    "not into what is taken later": (
        lambda net, x, arch: (x + net.next(net.next(x, arch), arch)) * x,
        X + 3 * MAP,
        "next",
    ),
    "another shape": (lambda net, x, arch: x.flatten(2).unflatten(2, (6, 6)), X + MAP + 4),
    "times its mean": (
        lambda net, x, arch: net.next(x * x.mean((2, 3), keepdim=True), arch),
        X + 2 * MAP,
        "next",
    ),
    "moved": (lambda net, x, arch: x.transpose(2, 3), X + 2 * MAP),
    "half of it": (lambda net, x, arch: x[:, :, :3], X + MAP * 3 // 2),
    "smaller, held by nothing": (lambda net, x, arch: F.max_pool2d(x, 2), X + MAP + MAP // 4),
    "attention": (
        lambda net, x, arch: F.scaled_dot_product_attention(x, x.tanh(), x.sin()),
        X + 3 * MAP + MAP,  # three operands, of which one becomes the result, and 6 by 6 scores
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_plan_is_what_is_counted_by_hand(name):
    steps, numbers, *layers = BY_HAND[name]
    model = seeded(lambda: Hand(steps, layers))
    cost = PeakMemory(model)
    assert cost(model.space.largest) == 4 * numbers
    for arch in (model.space.smallest, model.space.largest):
        net = extract(model, calibrate(model, arch, [images(model, 4)]))
        assert cost(arch) == held(net, images(model, 1))


def test_it_grows_with_the_batch_and_with_precision():
    model = mobilenet()
    one, many = PeakMemory(model), PeakMemory(model, batch=5)
    double = PeakMemory(mobilenet().double())
    for step in range(5):
        arch = model.space.sample(stream(step, "batch"))
        assert many(arch) == 5 * one(arch)
        assert double(arch) == 2 * one(arch)
    net = extract(model, calibrate(model, arch, [images(model, 8)]))
    assert many(arch) == held(net, images(model, 5))


@pytest.mark.parametrize("what", ["batch", "block"])
@pytest.mark.parametrize("number", [0, True, 2.0])
def test_a_batch_or_block_that_is_none_is_refused(what, number):
    with pytest.raises(CostError, match=rf"{what} is a whole number of at least 1, found {number}"):
        PeakMemory(mobilenet(), **{what: number})


BLOCKS = {  # as `BY_HAND` where four channels are held together and there are two
    "layer after layer": X + 2 * MAP,
    "in place": X + MAP + 2,
    "a shortcut": X + 3 * MAP,
    "added into the shortcut": X + 2 * MAP,
    "times its mean": X + 2 * MAP,
    "half of it": X + MAP + MAP // 4,  # a piece is as large as its numbers
    "moved": X + MAP + MAP // 2,
    "smaller, held by nothing": X + MAP + MAP // 4,
}


class Fixed(Supernet):
    """A map of a width that is not searched, after one that is; of one or two axes."""

    def __init__(self, shape, kind):
        super().__init__((1, *shape))
        width = self.dimension("width", (2, 4))
        self.conv, self.fixed = kind(1, width), kind(width, 3)
        self.head = elastic.Linear(3, 5)

    def forward(self, x, arch):
        return self.head(self.fixed(self.conv(x, arch), arch).flatten(2).mean(2), arch)


@pytest.mark.parametrize(
    ("shape", "kind", "numbers"),
    [((6, 6), elastic.Conv2d, X + 2 * MAP), ((36,), elastic.Conv1d, X + (2 + 3) * 36)],
)
def test_blocks_are_of_images_and_of_widths_that_are_fixed_too(shape, kind, numbers):
    model = seeded(lambda: Fixed(shape, kind))
    assert PeakMemory(model, block=4)(model.space.smallest) == 4 * numbers


@pytest.mark.parametrize("name", BLOCKS)
def test_maps_hold_whole_blocks_of_channels(name):
    steps, numbers, *layers = BY_HAND[name]
    model = seeded(lambda: Hand(steps, layers))
    cost = PeakMemory(model, block=4)
    assert (cost(model.space.smallest), cost(model.space.largest)) == (
        4 * BLOCKS[name],
        4 * numbers,
    )
    net = extract(model, calibrate(model, model.space.smallest, [images(model, 4)]))
    assert held(net, images(model, 1), block=4) == 4 * BLOCKS[name]


def test_a_module_that_hides_what_it_holds_is_refused():
    class Net(Supernet):
        def __init__(self):
            super().__init__((5, 4))
            self.attention = nn.MultiheadAttention(4, 2)
            self.head = elastic.Linear(4, self.dimension("width", (2, 3)))
            self.last = elastic.Linear(self.head.out_features, 2)

        def forward(self, x, arch):
            y = self.attention(x, x, x, need_weights=False)[0]
            return self.last(self.head(y, arch), arch).mean(1)

    model = seeded(Net)
    with pytest.raises(CostError, match=r"attention \(MultiheadAttention\): what it holds while"):
        Plan(model, model.space.largest, 1)


def test_recurrent_layers_are_refused_by_name():
    with pytest.raises(CostError, match=r"steps\.2 \(Recurrent\): what it holds while it runs"):
        PeakMemory(seeded(lambda: chain("GRU")))


class Wide(nn.Module):
    """Maps that are kept until the end, beside one another, and a block that depth cuts off."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down, self.deep = nn.Conv2d(8, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, padding=1)
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        early = F.silu(self.stem(x))
        y = F.interpolate(F.relu(self.deep(F.relu(self.down(early)))), scale_factor=2)
        return self.head(torch.cat([early, y], 1).mean((2, 3)))


ELASTICIZED = {"skips": (Wide, (3, 8, 8))} | {
    name: NETWORKS[name] for name in ("dense", "attention by hand", "text", "upwards")
}


@pytest.mark.parametrize("name", ELASTICIZED)
def test_networks_of_others_are_counted_too(name):
    build, given = ELASTICIZED[name]
    example = given if isinstance(given, torch.Tensor) else torch.zeros(*given)
    model = elasticize(seeded(build).eval(), example[None])
    costs = [PeakMemory(model, block=block) for block in (1, 8)]
    for step in range(4):
        arch = model.space.sample(stream(step, "others"))
        net = extract(model, calibrate(model, arch, [images(model, 4)]))
        for cost in costs:
            assert cost(arch) == held(net, images(model, 1), cost.block), arch


def test_what_decides_alone_has_a_gradient_and_of_equal_ones_the_first():
    model = mobilenet()
    first, second = model.space.dimensions[:2]
    wide, other = amount(first, {2: 5, 4: 9}.get), amount(second, {4: 9, 8: 7}.get)
    kind = type(
        "Widest",
        (Cost,),
        {"name": "widest", "unit": "B", "_polynomial": lambda *_: 2 * Largest((wide, other)) + 1},
    )
    cost = kind(model)
    arch = model.space.largest
    for indices, value, slopes in (
        ((0, 1), 15, [[0, 0], [18, 14]]),
        ((1, 0), 19, [[10, 18], [0, 0]]),
    ):
        arch = arch.with_option(first, indices[0]).with_option(second, indices[1])
        gates = tuple(torch.eye(len(d), dtype=torch.float64)[i].requires_grad_() for d, i in zip(
            model.space.dimensions, arch.indices, strict=True))  # fmt: skip
        relaxed = cost.relaxed(arch.carrying(gates=gates))
        assert relaxed.item() == cost(arch) == value
        relaxed.backward()
        assert [gate.grad.tolist() for gate in gates[:2]] == slopes
    assert cost.reach == (15, 19)
    assert cost.dimensions == {first, second}


def test_a_largest_is_added_to_and_multiplied():
    model = mobilenet()
    peak, macs = PeakMemory(model).polynomial, MACs(model).polynomial
    arch = model.space.largest
    assert (3 * peak + macs).value(arch) == 3 * peak.value(arch) + macs.value(arch)
    assert (macs + peak + 2).value(arch) == (peak + 2 + macs).value(arch)
    both = Largest((amount(1), amount(5))) + Largest((amount(2), amount(7)))
    assert both.value(arch) == 12
    for factor in (0, -1, 0.5, amount(2), peak):
        with pytest.raises((CostError, TypeError), match="whole number above zero"):
            peak * factor
    with pytest.raises(CostError, match="needs at least one"):
        Largest(())
    assert Polynomial(()).parts == (Polynomial(()),)
