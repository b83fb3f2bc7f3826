"""An extracted network cut into blocks: laws over every kind of network."""

import itertools
from functools import cache, partial

import pytest
import torch
from tests.latency import MODELS, extracted, latency_model
from tests.spaces import images, seeded
from tests.times import counted_nanoseconds, latency
from torch import fx, nn

from boundnas import Supernet, elastic, models
from boundnas.cost import MACs
from boundnas.errors import CostError
from boundnas.latency.blocks import blocks_of
from boundnas.randomness import stream
from boundnas.space import Architecture
from boundnas.supernet.extract import outlined
from boundnas.supernet.signature import signature

every = pytest.mark.parametrize("name", MODELS)
OUTSIDE = ("placeholder", "output", "get_attr")


@cache
def nets(name):
    """Networks of a supernet by their architectures; not to be changed."""
    model = latency_model(name)
    space = model.space
    return {arch: extracted(model, arch) for arch in (space.largest, space.sample(stream(0, "b")))}


def chained(net, blocks, x):
    """What the blocks give one after the other, as the network gives it."""
    nodes = list(net.graph.nodes)
    values = {nodes[0].name: x}
    for node in nodes:
        if node.op == "call_function" and node.args[0] is nodes[0] and isinstance(x, dict):
            values[node.name] = x[node.args[1]]
    for block in blocks:
        results = block.net(*(values[name] for name in block.takes))
        values |= dict(zip(block.gives, results, strict=True))
    return torch.fx.node.map_arg(nodes[-1].args[0], lambda node: values[node.name])


@every
@torch.no_grad()
def test_blocks_one_after_the_other_are_the_network_bit_for_bit(name):
    for arch, net in nets(name).items():
        x = images(latency_model(name), 2, seed=5)
        assert torch.equal(chained(net, blocks_of(net, batch=2), x), net(x)), arch


@every
def test_the_blocks_hold_every_node_once(name):
    for net in nets(name).values():
        blocks = blocks_of(net)
        inner = sorted(n.name for n in net.graph.nodes if n.op not in OUTSIDE)
        held = [n.name for b in blocks for n in b.net.graph.nodes if n.op not in OUTSIDE]
        assert sorted(held) == inner
        assert len({b.name for b in blocks}) == len(blocks)


@every
def test_each_block_multiplies_and_all_of_them_as_often_as_is_counted(name):
    model = latency_model(name)
    macs, modules = MACs(model), dict(model.named_modules())
    for arch, net in nets(name).items():
        blocks = blocks_of(net, batch=3)
        assert sum(b.macs for b in blocks) == 3 * macs(arch)
        assert all(b.macs for b in blocks)
        assert {b.name.partition(" (")[0].partition("()")[0] for b in blocks} <= {*modules}


def by_name(model, arch):
    return {block.name: block for block in blocks_of(extracted(model, arch))}


def test_a_signature_says_what_is_computed_and_on_which_shapes_alone():
    build = lambda: models.mobilenet_v3(0.25, image_size=16)  # noqa: E731
    model = seeded(build)
    space = model.space
    one, other = by_name(model, space.largest), by_name(seeded(build, 1), space.largest)
    signatures = {name: block.signature for name, block in one.items()}
    assert signatures == {name: block.signature for name, block in other.items()}
    same = [f"stages.3.{i}.depthwise.conv" for i in (1, 2, 3)]
    assert len({signatures[name] for name in same}) == 1
    strided = "stages.3.0.depthwise.conv"
    assert signatures[strided] != signatures[same[0]]
    assert one[strided].kind != one[same[0]].kind


class Held:
    """Two numbers in an object that says nothing of itself."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)


def told(held):
    """The signature of a layer that holds this."""
    layer = torch.nn.ReLU()
    layer.held = held
    net = fx.symbolic_trace(torch.nn.Sequential(layer))
    return signature(net.graph, net, [torch.zeros(1)], ()).text


HELD = {  # what a layer may hold, made again and again, and another one
    "a set": (lambda: {"b", "a", "c"}, lambda: {"b", "a"}),
    "a partial function": (lambda: partial(torch.sum, dim=1), lambda: partial(torch.sum, dim=2)),
    "an object": (lambda: Held(1, 2), lambda: Held(1, 3)),
    "a type": (lambda: torch.float64, lambda: torch.float32),
    "a function": (lambda: torch.sum, lambda: torch.mean),
}


@pytest.mark.parametrize("name", HELD)
def test_a_signature_tells_what_layers_hold_and_not_where_it_lies(name):
    same, other = HELD[name]
    assert told(same()) == told(same()) != told(other())
    assert " at 0x" not in told(same())


def test_a_set_is_told_in_one_order_whatever_python_draws_for_it():
    assert "held=('a', 'b', 'c')" in told({"c", "a", "b"})


CHANGES = {  # an option, the block that it changes, and whether that does the same work on others
    "width": ("stage4.layer2.width", 0, "stages.3.1.expand.conv", True),
    "kernel": ("stage4.kernel", 0, "stages.3.1.depthwise.conv", False),
    "activation": ("stage4.activation", 0, "stages.3.1.expand.conv", False),
    "se": ("stage4.se", 0, "stages.3.1.depthwise.conv", False),
}


@pytest.mark.parametrize(("dimension", "option", "block", "alike"), CHANGES.values(), ids=CHANGES)
def test_the_kind_of_a_block_is_what_it_does_whatever_its_size(dimension, option, block, alike):
    model = seeded(lambda: models.mobilenet_v3(0.25, image_size=16))
    space = model.space
    position = [d.name for d in space.dimensions].index(dimension)
    arch = space.largest.with_option(space.dimensions[position], option)
    before, after = by_name(model, space.largest), by_name(model, arch)
    assert before[block].signature != after[block].signature
    assert (before[block].kind == after[block].kind) == alike
    untouched = "stages.5.0.expand.conv"
    assert before[untouched].signature == after[untouched].signature


class Sizes(Supernet):
    """What passes between layers is more than maps: sizes, several tensors, a weight used twice."""

    def __init__(self):
        super().__init__({"map": torch.zeros(3, 4, 4), "more": torch.zeros(8)})
        width = self.dimension("width", (4, 6))
        self.first, self.second = elastic.Conv2d(3, width, 3), elastic.Conv2d(width, 8)
        self.scale, self.head = nn.Parameter(torch.rand(8)), elastic.Linear(8, 2)

    def forward(self, x, arch):
        y = self.first(x["map"] * 2, arch)
        n, size = y.shape[0], y.shape[2:].numel()
        y = self.second(y, arch).view(n, 8, size) * self.scale[:, None]
        pair = y.mean(2) * self.scale, y.amax(2)
        return {"once": self.head(pair[0] + pair[1], arch), "twice": self.head(x["more"], arch)}


class Pairs(Sizes):
    """Two tensors pass as one value."""

    def forward(self, x, arch):
        pair = torch.chunk(self.first(x["map"], arch), 2, 1)
        y = self.second(self.first(x["map"], arch), arch)
        (more,) = torch._foreach_mul(pair, y.mean())[:1]
        return self.head(y.mean((2, 3)), arch) + more.mean()


@torch.no_grad()
def test_sizes_and_parts_of_inputs_pass_from_block_to_block():
    model = seeded(Sizes)
    net, x = extracted(model, model.space.largest), images(model, 2)
    blocks = blocks_of(net, 2)
    assert [block.name for block in blocks] == ["first", "second", "head", "head (2)"]
    assert all(isinstance(x, torch.Tensor) for block in blocks for x in block.inputs)
    found, expected = chained(net, blocks, x), net(x)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


class Late(Supernet):
    """What is computed of the inputs alone and used in the end."""

    def __init__(self):
        super().__init__((3, 4, 4))
        width = self.dimension("width", (4, 6))
        self.first, self.head = elastic.Conv2d(3, width, 3), elastic.Linear(width, 2)

    def forward(self, x, arch):
        brightness = x.mean((1, 2, 3)).sin()
        y = self.first(x, arch).mean((2, 3))
        return self.head(y, arch) * brightness[:, None]


def test_what_takes_nothing_of_a_layer_goes_with_the_first_that_takes_it():
    model = seeded(Late)
    first, head = blocks_of(extracted(model, model.space.largest))
    held = [[n.name for n in block.graph.nodes if n.op not in OUTSIDE] for block in (first, head)]
    assert "sin" not in held[0]
    assert {"mean", "sin", "getitem", "mul"} <= {*held[1]}


def test_several_tensors_as_one_value_between_blocks_are_refused():
    model = seeded(Pairs)
    with pytest.raises(CostError, match=r"^second: it takes several tensors as one value from"):
        blocks_of(extracted(model, model.space.largest))


class Idle(Supernet):
    """Light nodes that no block reads, beside a first layer that is not in every network."""

    def __init__(self):
        super().__init__((3, 6, 6))
        self.depth = self.dimension("depth", (0, 1), kind="depth")
        self.width = self.dimension("width", (2, 3, 5))
        self.maybe, self.conv = elastic.Conv2d(3, 3), elastic.Conv2d(3, self.width, 3)
        self.head = elastic.Linear(self.width, 2)

    def forward(self, x, arch):
        x.exp().sin()
        aside = x.mean((2, 3)).softmax(1)
        if arch[self.depth]:
            x = self.maybe(x, arch)
        y = self.conv(x, arch)
        y.exp()
        y.add_(1)
        return self.head(y.mean((2, 3)), arch), aside


def test_nodes_that_no_block_reads_are_in_one_block_of_every_network_and_timed_there():
    model = seeded(Idle)
    cost = latency(model)
    for indices in itertools.product(range(2), range(3)):
        net = outlined(model, Architecture(model.space, indices))
        blocks = blocks_of(net)
        within = [n.name for b in blocks for n in b.graph.nodes if n.op not in OUTSIDE]
        assert sorted(within) == sorted(n.name for n in net.graph.nodes if n.op not in OUTSIDE)
        assert {"exp", "sin", "mean", "softmax"} <= {n.name for n in blocks[0].graph.nodes}
        assert "softmax" in blocks[0].gives
        x = images(model, 2)
        for found, expected in zip(chained(net, blocks_of(net, 2), x), net(x), strict=True):
            assert torch.equal(found, expected)
        assert counted_nanoseconds(net, x[:1]) == cost(Architecture(model.space, indices))


class Unread(Idle):
    """A layer, a product of maps and a written map, of which one is for nothing."""

    def __init__(self, which):
        super().__init__()
        self.which = which

    def forward(self, x, arch):
        y = self.conv(x, arch)
        if self.which == "layer":
            self.maybe(x, arch).relu()
        if self.which == "product":
            y @ y
        if self.which == "written":
            y.mul_(y @ y)
        return self.head(y.mean((2, 3)), arch)


@pytest.mark.parametrize(("which", "name"), [("layer", "maybe"), ("product", r"\(\)\.matmul")])
def test_what_multiplies_for_nothing_is_refused_as_not_every_runtime_computes_it(which, name):
    model = seeded(lambda: Unread(which))
    net = outlined(model, model.space.largest)
    with pytest.raises(CostError, match=f"^{name}: nothing reads what it computes, so runtimes"):
        blocks_of(net)


def test_what_is_written_into_a_map_that_is_read_later_is_not_for_nothing():
    model = seeded(lambda: Unread("written"))
    names = [block.name for block in blocks_of(outlined(model, model.space.largest))]
    assert names == ["conv", "().matmul", "head"]
