"""Any network as a supernet: laws over a table of plain networks, rules, refusals, the report."""

import copy
from functools import cache

import pytest
import torch
from tests.costs import counted_macs, counted_parameters
from tests.networks import NETWORKS, network, refusal
from tests.oracle import masked
from tests.small import few_digits
from tests.test_gradient import assert_near, gradients_of
from torch import nn
from torch.nn import functional as F

import boundnas as bn
from boundnas import guard
from boundnas.cost import Bytes, MACs, Parameters
from boundnas.errors import ConvertError
from boundnas.guard.learnable import check_learnable
from boundnas.method.policy import BOUNDARIES, initial_policy
from boundnas.randomness import stream
from boundnas.supernet.inputs import noise
from boundnas.supernet.weights_file import weights_file

every = pytest.mark.parametrize("name", NETWORKS)
each = pytest.mark.parametrize(
    "name", [n for n in NETWORKS if n not in ("vgg view", "vgg reshape")]
)


@cache
def elastic(name, sort=True):
    """A network of the table made elastic; not to be changed."""
    model, example = network(name)
    return bn.elasticize(model, example, sort=sort)


def batch(name, number=4):
    return noise(elastic(name), number, stream(0, "batch"))


def doubled(x):
    return x.double() if x.is_floating_point() else x


@every
def test_the_largest_network_is_the_original_bit_for_bit(name):
    model, _ = network(name)
    made = copy.deepcopy(elastic(name, sort=False)).eval()
    with torch.no_grad():
        found, expected = made(batch(name), made.original), model(batch(name))
    if name.startswith(
        ("torch's attention", "by channel", "norms of one")
    ):  # which are computed otherwise
        torch.testing.assert_close(found, expected)
    else:
        assert torch.equal(found, expected)


@each
def test_sorting_channels_changes_the_largest_network_by_rounding(name):
    model, _ = network(name)
    made = copy.deepcopy(elastic(name)).double().eval()
    net = bn.extract(elastic(name), elastic(name).original).double()
    x = doubled(batch(name))
    with torch.no_grad():
        torch.testing.assert_close(net(x), model.double()(x), rtol=1e-5, atol=1e-6)
    assert made.space == elastic(name).space


@each
def test_an_extracted_network_equals_its_slice_bit_for_bit(name):
    made = elastic(name)
    for i in range(2):
        drawn = made.space.sample(stream(0, "architecture", i))
        arch = bn.calibrate(made, drawn if i else made.space.smallest, [batch(name, 8)])
        net = bn.extract(made, arch)
        x = batch(name, 3)
        with torch.no_grad():
            assert torch.equal(net(x), copy.deepcopy(made).eval()(x, arch))


@each
def test_costs_are_what_is_counted_on_the_extracted_network(name):
    made, x = elastic(name), batch(name, 1)
    macs, parameters = MACs(made), Parameters(made)
    for i in range(2):
        drawn = made.space.sample(stream(1, "architecture", i))
        arch = bn.calibrate(made, drawn if i else made.space.largest, [batch(name, 4)])
        net = bn.extract(made, arch)
        assert (counted_macs(net, x), counted_parameters(net, x)) == (macs(arch), parameters(arch))
    assert made.report.macs == macs(made.space.largest)


@each
def test_the_gradient_equals_that_of_the_masked_network(name):
    boundary = sorted(BOUNDARIES)[len(name) % 2]
    made = copy.deepcopy(elastic(name)).double().train()
    policy = initial_policy(made.space, boundary, stream(0, "start"), std=0.07).double()
    x = doubled(batch(name, 5))
    values, found, weights = gradients_of(made, policy, x, 0)
    with masked(made):
        expected = gradients_of(made, policy, x, 0)
    torch.testing.assert_close(values, expected[0], rtol=1e-9, atol=1e-11)
    scale = expected[1].norm()
    for dimension, one, other in zip(made.space.dimensions, found, expected[1], strict=True):
        assert_near(one, other, 1e-9, scale, dimension.name)
    total = sum(gradient.norm() for gradient in expected[2].values())
    for weight, gradient in expected[2].items():
        assert_near(weights[weight], gradient, 1e-9, total, weight)


@each
def test_it_passes_the_check_before_training(name):
    made = copy.deepcopy(elastic(name))
    guard.check(made)
    check_learnable(made)


def test_the_network_is_left_as_it_is_and_nothing_global_is_drawn():
    model, example = network("resnet")
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    made = bn.elasticize(model, example)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.layer1[0].relu.inplace
    assert not {id(p) for p in model.parameters()} & {id(p) for p in made.parameters()}


def test_dimensions_are_named_after_the_modules_and_cover_width_kernel_and_depth():
    found = {d.name: d.choices for d in elastic("resnet").space.dimensions}
    assert found == {
        "stem.width": (2, 4, 6, 8),
        "stem.kernel": (3, 5),
        "layer1.0.conv1.width": (2, 4, 6, 8),
        "layer1.1.conv1.width": (2, 4, 6, 8),
        "layer1.depth": (1, 2),
        "layer2.0.conv1.width": (4, 8, 12, 16),
        "layer2.0.shortcut.0.width": (4, 8, 12, 16),
        "layer2.1.conv1.width": (4, 8, 12, 16),
        "layer2.2.conv1.width": (4, 8, 12, 16),
        "layer2.depth": (2, 3),
    }


DIMENSIONS = {
    "dense": {
        "first.width": (2, 4, 6, 8),
        "convs.0.width": (1, 2, 3, 4),
        "convs.1.width": (1, 2, 3, 4),
        "mix.width": (2, 4, 6, 8),
    },
    "grouped": {"first.width": (4, 8, 12, 16), "large.kernel": (3, 5, 7)},
    "attention": {"blocks.0.qkv.heads": (1, 2, 3, 4), "blocks.depth": (1, 2)},
    "attention with a bias": {"blocks.0.qkv.heads": (1, 2, 3, 4), "blocks.depth": (1, 2)},
    "attention by hand": {"blocks.1.q.heads": (1, 2, 3, 4), "blocks.depth": (1, 2)},
    "attention of norms": {"embed.heads": (1, 2, 3, 4)},
    "attention of pixels": {"stem.width": (2, 4, 6, 8), "qkv.heads": (1, 2, 3, 4)},
    "computed weights": {
        "stem.conv2d.width": (2, 4, 6, 8),
        "stem.conv2d.kernel": (3, 5),
        "linear.heads": (1, 2, 3, 4),
        "linear2.width": (2, 4, 6, 8),
    },
    "weight norms": {
        "0.conv2d.width": (2, 4, 6, 8),
        "2.conv_transpose2d.width": (4, 6, 8, 10, 12),
        "4.conv2d.width": (2, 4, 6, 8),
        "5.conv_transpose2d.width": (1, 2, 3, 4),
    },
    "torch's attention": {
        "encoder.layers.depth": (1, 2),
        "encoder.layers.0.self_attn.query.heads": (1, 2, 3, 4),
        "attention.query.heads": (1, 2),
        "embed.width": (4, 8, 12, 16),
    },
    "torch's attention, both ways": {
        "both.encoder.layers.0.self_attn.query.heads": (1, 2, 3, 4),
        "both.decoder.layers.1.multihead_attn.query.heads": (1, 2, 3, 4),
        "more.layers.0.linear1.width": (2, 4, 6, 8),
        "attention.query.heads": (1, 2),
    },
    "drawing": {"body.0.width": (2, 4, 6, 8), "body.3.width": (4, 6, 8, 10, 12)},
    "upwards": {"down.width": (4, 8), "up.width": (4, 6, 8, 10, 12)},
    "tokens": {"embed.width": (2, 4, 6, 8), "blocks.depth": (2, 3)},
    "convnext": {"stem.width": (2, 4, 6, 8), "up.width": (4, 8, 12, 16)},
    "text": {"embed.width": (2, 4, 6, 8), "blocks.depth": (1, 2)},
    "norms of one group": {
        "0.width": (2, 4, 6, 8),
        "3.width": (4, 6, 8, 10, 12),
        "6.width": (2, 4, 6, 8),
    },
    "recurrent": {
        "embed.width": (2, 4, 6, 8),
        "lstm.layers.0.width": (2, 3, 4, 5, 6),
    },
    "tied": {"embed.width": (2, 4, 6, 8), "block.fc1.width": (4, 6, 8, 10, 12)},
    "by channel": {
        "body.0.width": (4, 8, 12, 16),
        "body.3.width": (4, 6, 8, 10, 12),
        "head.0.width": (4, 8, 12, 16),
    },
    "pixels of channels": {
        "0.width": (8, 16, 24, 32),
        "2.width": (2, 4, 6, 8),
        "6.width": (4, 8, 12, 16),
    },
    "positions from tables": {"embed.width": (4, 8, 12, 16), "mlp.0.width": (4, 6, 8, 10, 12)},
    "positions in another order": {"mlp.0.width": (4, 6, 8, 10, 12)},
}


@pytest.mark.parametrize("name", DIMENSIONS)
def test_concatenations_parts_and_groups_have_the_widths_they_can(name):
    found = {d.name: d.choices for d in elastic(name).space.dimensions}
    assert DIMENSIONS[name].items() <= found.items()


def test_weights_that_a_hook_has_computed_for_training_are_normed_as_before():
    net, example = network("weight norms")
    net(example).sum().backward()
    made = bn.elasticize(net, example, sort=False)
    assert made.space == elastic("weight norms").space
    assert made.get_parameter("net.0.conv2d.weight_part1") is not net[0].weight_v
    with torch.no_grad():
        assert torch.equal(made.eval()(example, made.original), net(example))


class Overwrites(nn.Module):
    """Reads a map again that was changed in place, twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Linear(8, 2)

    def forward(self, x):
        x = self.conv(x)
        y = self.relu(x)
        z = x * y
        z.sigmoid_()
        z += x
        return self.fc(z.mean((2, 3)))


class Branches(nn.Module):
    """Asks for its width, and for its pixels."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        x = x.tanh() if x.shape[1] > 4 else x
        x = self.second(x)
        x = x.tanh() if x.shape[-1] > 1 else x
        return self.fc(x.mean((2, 3)))


class Filters(nn.Module):
    """Keeps its shape, and adds nothing to what it gets."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x):
        return torch.relu(self.conv(x))


def filters():
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(Filters(), Filters()), *pooled)


WIDTHS = {"overwrites": (Overwrites, ["conv.width"]), "branches": (Branches, ["second.width"]),
          "filters": (filters, ["0.width"])}  # fmt: skip


@pytest.mark.parametrize("name", WIDTHS)
def test_what_was_overwritten_what_was_asked_for_and_what_adds_nothing(name):
    build, expected = WIDTHS[name]
    with torch.random.fork_rng(devices=[]):
        made = bn.elasticize(build(), torch.randn(1, 3, 4, 4), sort=False)
    assert [d.name for d in made.space.dimensions] == expected


class Drops(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.entries, self.maps = nn.Conv2d(3, 8, 1), nn.Dropout(0.1), nn.Dropout2d(0.2)
        self.fc, self.out, self.last = nn.Linear(8, 16), nn.Linear(16, 4), nn.Dropout(0.3)

    def forward(self, x):
        x = F.dropout2d(self.maps(self.entries(self.conv(x))), 0.4, self.training)
        x = F.relu(self.fc(x.flatten(2).transpose(1, 2)))
        return self.out(self.last(F.dropout(x, training=self.training))).mean(1)


def test_dropout_stays_in_its_place_with_its_probability_and_draws_what_it_drew():
    with torch.random.fork_rng(devices=[]):
        made = bn.elasticize(Drops(), torch.zeros(1, 3, 4, 4))
    drops = {n: m for n, m in made.net.named_modules() if isinstance(m, bn.elastic.Dropout)}
    assert {n: (m.probability, m.axis, m.pixels) for n, m in drops.items()} == {
        "entries": (0.1, 1, True),
        "maps": (0.2, 1, False),
        "dropout2d": (0.4, 1, False),
        "dropout": (0.5, -1, True),
        "last": (0.3, -1, True),
    }


@pytest.mark.parametrize("sort", [False, True])
def test_a_table_and_the_layer_that_multiplies_by_it_stay_one_weight_of_every_network(sort):
    made = copy.deepcopy(elastic("tied", sort=sort))
    assert made.net.head.weight is made.net.embed.weight
    for arch in (made.space.smallest, made.space.largest):
        net = bn.extract(made, arch)
        assert net.get_submodule("net.head").weight is net.get_submodule("net.embed").weight
        assert Bytes(made)(arch) == len(weights_file(net.state_dict()))


TIED_OTHERWISE = {  # what of a table, a layer and its features
    "the layer comes first": lambda m, x: F.linear(m.ones, m.embed.weight) * m.last(m.seen(x)),
    "another function of it": lambda m, x: m.head(m.seen(x)) + m.seen(x) @ m.embed.weight.exp().T,
    "two layers": lambda m, x: m.head(m.seen(x)) * (m.seen(x) @ m.embed.weight.T),
    "another axis": lambda m, x: m.head(m.other(m.seen(x)).mT.contiguous()),
    "a map of another width": lambda m, x: m.head(F.normalize(m.seen(x), dim=-1)),
}


@pytest.mark.parametrize("name", TIED_OTHERWISE)
def test_a_table_that_is_used_otherwise_stays_as_it_is(name):
    class Used(type(network("tied")[0])):
        def __init__(self):
            super().__init__()
            self.register_buffer("ones", torch.ones(1, 8))
            self.other, self.last = nn.Linear(8, 8), nn.Linear(8, 5)

        def seen(self, ids):
            return self.norm(self.block(self.embed(ids)))

        def forward(self, ids):
            return TIED_OTHERWISE[name](self, ids).mean(1)

    with torch.random.fork_rng(devices=[]):
        made = bn.elasticize(Used(), torch.arange(8)[None] % 5)
    assert [d.name for d in made.space.dimensions] == ["block.fc1.width"]
    assert made.net.embed.weight.shape == (5, 8)
    assert "embed" in {row.module for row in made.report.rows if row.reason}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(8, 8) for _ in range(4))
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x).tanh()).tanh()).tanh())


def test_layers_that_share_a_weight_stay_as_they_are_and_share_it():
    with torch.random.fork_rng(devices=[]):
        made = bn.elasticize(Tied(), torch.zeros(1, 8))
    rows = {row.module: row.reason for row in made.report.rows}
    assert (rows["a"], rows["b"]) == ("shares a weight with b", "shares a weight with a")
    assert [d.name for d in made.space.dimensions] == ["c.width"]
    assert made.net.a.weight is made.net.b.weight


class TiedComputed(nn.Module):
    """A weight that is computed of one parameter at two places, and of one that a layer holds."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d, self.e = (nn.Linear(8, 8) for _ in range(5))

    def forward(self, x):
        x = F.linear(F.linear(x, self.a.weight.exp()).tanh(), self.a.weight.tanh()).tanh()
        x = self.d(self.c(F.linear(self.b(x), self.b.weight.mT).tanh()).tanh())
        return self.e(x) * self.e.weight.sum()


def test_weights_that_are_computed_of_a_shared_one_stay_as_they_are_and_share_it():
    with torch.random.fork_rng(devices=[]):
        made = bn.elasticize(TiedComputed(), torch.zeros(1, 8))
    rows = {row.module: row.reason for row in made.report.rows}
    assert (rows["linear"], rows["linear2"]) == (
        "shares a weight with linear2",
        "shares a weight with linear",
    )
    others = rows["linear3"], rows["b"]
    assert others == ("shares a weight with b", "shares a weight with linear3")
    assert rows["e"] == "shares a weight with e.weight"
    assert [d.name for d in made.space.dimensions] == ["c.width"]
    assert len(list(made.parameters())) == 9


def named(rules, name="resnet"):
    model, example = network(name)
    return {d.name: d.choices for d in bn.elasticize(model, example, rules).space.dimensions}


def test_rules_say_choices_ratios_kernels_and_depths_and_the_last_one_counts():
    found = named({
        "*": None,
        "layer1.0.*": bn.Rule(choices=(3, 8)),
        "layer2.*": bn.Rule(ratios=(0.5, 1), divisor=8),
        "stem": bn.Rule(kernel=(5,)),
        "layer2": bn.Rule(depth=(1, 3)),
        "layer2.2.*": None,
    })  # fmt: skip
    assert found == {
        "stem.width": (3, 8),
        "layer1.0.conv1.width": (3, 8),
        "layer2.0.conv1.width": (8, 16),
        "layer2.1.conv1.width": (8, 16),
        "layer2.depth": (1, 3),
    }


def test_rules_say_numbers_of_heads():
    rules = {"*": None, "blocks.0.*": bn.Rule(heads=(2, 4))}
    assert named(rules, "attention") == {"blocks.0.qkv.heads": (2, 4)}


WRONG_RULES = {
    "nothing has this name": ({"layer9.*": None}, "'layer9.*' matches no dimension"),
    "a fixed layer": ({"fc": bn.Rule(choices=(2, 4))}, "fc stays as it is: the network returns it"),
    "no kernel there": ({"layer1.*": bn.Rule(kernel=(3,))}, "stem.kernel"),
    "too wide": ({"stem": bn.Rule(choices=(8, 16))}, "it can have 1 to 8"),
    "not its own": ({"stem": bn.Rule(choices=(2, 4))}, "the last is the network's own, 8"),
    "an even kernel": ({"stem": bn.Rule(kernel=(4, 5))}, "it can have 3 to 5, odd"),
    "too deep": ({"layer2": bn.Rule(depth=(2, 4))}, "it can have 1 to 3"),
    "no rule": ({"stem": (8, 16)}, "rules are a bn.Rule, or None"),
}


@pytest.mark.parametrize("name", WRONG_RULES)
def test_a_rule_that_nothing_meets_is_refused_and_says_what_there_is(name):
    rules, message = WRONG_RULES[name]
    model, example = network("resnet")
    with pytest.raises(ConvertError) as error:
        bn.elasticize(model, example, rules)
    assert message in str(error.value)


WRONG_RULE = {
    "descending": ({"choices": (8, 4)}, "choices are whole numbers of at least 1, ascending"),
    "ratios of zero": ({"ratios": (0.0, 1.0)}, "ratios lie in (0, 1]"),
    "ratios without 1": ({"ratios": (0.5,)}, "1 is one"),
    "two ways": ({"choices": (4, 8), "divisor": 2}, "by choices, or by ratios and a divisor"),
    "a divisor of 0": ({"divisor": 0}, "at least 1"),
}


@pytest.mark.parametrize("name", WRONG_RULE)
def test_a_rule_that_cannot_be_is_refused(name):
    given, message = WRONG_RULE[name]
    with pytest.raises(ConvertError) as error:
        bn.Rule(**given)
    assert message in str(error.value)


def test_the_report_says_what_is_searched_and_what_stays_fixed_why_and_where():
    made = elastic("mixed")
    rows = {row.module: row for row in made.report.rows}
    assert rows["middle"].dimensions == ("first.width",)
    assert rows["opaque"].reason.startswith("stays as it is: it reads the value of a tensor")
    assert "networks.py, line" in rows["opaque"].source
    assert rows["norm"].dimensions == ("first.width",)
    assert rows["norm()"].kind == "boundary"
    assert rows["narrow"].reason == "norm sums over its channels"
    assert rows["narrow"].dimensions == ("wide.width",)
    assert rows["fc"].reason == "the network returns it"
    assert 0.5 < made.report.searched_macs < 1
    assert "wide.width; fixed: norm sums over its channels" in str(made.report)
    assert not made.net.opaque.norm.training


def test_sorting_puts_the_channels_with_the_largest_weights_first():
    norms = elastic("vgg flatten").get_submodule("net.features.0").weight.abs().flatten(1).sum(1)
    assert torch.equal(norms, norms.sort(descending=True).values)
    model, _ = network("vgg flatten")
    plain = elastic("vgg flatten", sort=False).get_submodule("net.features.0").weight
    assert torch.equal(plain, model.features[0].weight)


class Value(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def less(block, x, y):
    return x + y * (0.5 if block.training else 1.0)


def other(block, x, y):
    sums = x + y, x - y
    return sums[1] if block.training else sums[0]


def noisy(block, x, y):
    return x + y + torch.rand(len(x), 1, 1, 1) if block.training else x + y


def dropped(block, x, y):
    return x + F.dropout(y, 0.3, block.training)


def alike(block, x, y):
    kept = [x, y] if block.training else (x, y)
    return kept[0] + kept[1]


def kept(block, x, y):
    place = None if block.training else str(x.device)
    if block.training or place not in block.cache:
        block.cache[place] = block.scale.abs()
    return x + block.cache[place] * y


def counted(block, x, y):
    if block.training:
        block.seen.add_(1)
    return x + y


def attended(block, x, y):
    z = y.flatten(2).transpose(1, 2)
    z = F.scaled_dot_product_attention(z, z, z, dropout_p=0.2 if block.training else 0.0)
    return x + z.transpose(1, 2).reshape(x.shape)


class Training(nn.Module):
    """What a function does with a map and a convolution of it."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(8, 8, 3, padding=1), function
        self.scale, self.cache = nn.Parameter(torch.ones(1)), {}
        self.register_buffer("seen", torch.tensor(0))

    def train(self, mode=True):
        super().train(mode)  # and gives nothing, as some do

    def forward(self, x):
        return self.function(self, x, self.conv(x))


def trained(function):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1), Training(function), nn.Conv2d(8, 4, 4)
    )


IN_TRAINING = {  # whether the module stays in one piece, and what is left out
    "a factor": (less, True, 0),
    "another result": (other, True, 0),
    "random numbers": (noisy, True, 0),
    "dropout": (dropped, False, 0),
    "the same": (alike, False, 0),
    "the same, kept": (kept, False, 0),
    "a counter": (counted, False, 0),
    "dropout of attention": (attended, False, 1),
}


@pytest.mark.parametrize(("function", "stays", "left_out"), IN_TRAINING.values(), ids=IN_TRAINING)
def test_what_is_done_in_training_only_is_done_or_said(function, stays, left_out):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = trained(function), torch.randn(2, 3, 6, 6)
    made = bn.elasticize(net, x, sort=False)
    assert net.training
    rows = {row.module: row for row in made.report.rows}
    assert ("3" in rows) is stays
    if stays:
        assert "3 stays as it is: does something else in training, in " in rows["2"].reason
        assert "test_elasticize.py, line " in rows["3"].reason
    assert len(made.report.left_out) == left_out
    assert str(made.report).count("left out in training: dropout of attention") == left_out
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        expected = net(x)
        torch.manual_seed(1)
        found = made.train()(x, made.original)
        still = made.eval()(x, made.original)
    # Whether elastic layers drop does not follow the mode; see the test of dropout.
    assert torch.equal(found, expected) is (function not in (dropped, attended))
    assert torch.equal(found, still) is (function not in (less, other, noisy))


def test_a_network_that_does_something_else_in_training_itself_is_refused():
    message = r"Training\.forward does something else in training, in .*, line \d+, and as the"
    with torch.random.fork_rng(devices=[]), pytest.raises(ConvertError, match=message):
        bn.elasticize(Training(less), torch.zeros(1, 8, 4, 4))


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.conv(x + torch.rand_like(x)).mean((2, 3)))


class Together(nn.Module):
    """Does something with all samples between its layers."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
        self.fc, self.function = nn.Linear(8, 2), function

    def forward(self, x):
        return self.fc(self.function(self.conv(x).mean((2, 3))))


REFUSED = {
    "a mean of all samples": (
        lambda: Together(lambda x: x - x.mean(0)),
        "Together gives something else for a sample alone than beside others, from mean in ",
    ),
    "an answer by the place in the batch": (
        lambda: Together(lambda x: x * torch.arange(len(x))[:, None]),
        "Together gives something else for a sample alone than beside others, from arange in ",
    ),
    "products of samples, which show in no number": (
        lambda: Together(lambda x: x + 1e-9 * (x @ x.T @ x)),
        "Together multiplies samples with one another, by matmul in ",
    ),
    "control flow of its own": (
        Value,
        "Value.forward cannot be followed: it branches on",
    ),
    "nothing to search": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "the network ret"),
    "random in evaluation": (Random, "gives something else every time"),
    "a supernet": (lambda: copy.deepcopy(elastic("resnet")), "is a supernet already"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    build, message = REFUSED[name]
    assert message in refusal(build, 2)


def test_what_asks_for_a_second_sample_is_refused():
    message = "fails on a single sample: IndexError: "
    with torch.random.fork_rng(devices=[]), pytest.raises(ConvertError, match=message):
        bn.elasticize(Together(lambda x: x + 0 * x[1]), torch.zeros(2, 3, 2, 2))


class Rarely(nn.Module):
    """Computes more where a sample asks for it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        asking = x[:, :1] > 0
        return torch.where(asking, self.fc(x), x) if bool(asking.any()) else x


def test_products_by_values_are_no_products_of_samples():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = bn.elasticize(Together(nn.Sequential(Rarely(), nn.ReLU())), torch.zeros(1, 3, 2, 2))
    assert [d.name for d in made.space.dimensions] == ["conv.0.width"]


class Padding(nn.Module):
    """Does something where all along an axis is zero, and shows it in no other place."""

    def __init__(self, function, axis):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)
        self.function, self.axis = function, axis

    def forward(self, x):
        empty = x.abs().sum(self.axis, keepdim=True) == 0
        return self.last(self.first(self.function(x, empty)).relu().mean(1))


RECORDED_OTHERWISE = {
    "is": lambda x, m: x.masked_fill(m, 2) if m.dtype is torch.bool else x,
    "type": lambda x, m: x.masked_fill(m, 2) if type(m) is torch.Tensor else x,
}


@pytest.mark.parametrize("name", RECORDED_OTHERWISE)
@pytest.mark.parametrize("axis", [1, -1])
def test_another_way_while_it_is_recorded_is_noticed_where_only_zeros_show_it(name, axis):
    net, message = RECORDED_OTHERWISE[name], r"differ by \d.* on inputs with zeros\. Its"
    with torch.random.fork_rng(devices=[]), pytest.raises(ConvertError, match=message):
        bn.elasticize(Padding(net, axis), torch.ones(1, 4, 3))


class FromOne(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.last = nn.Embedding(2, 16), nn.Linear(16, 2)

    def forward(self, x):
        return self.last(self.embed(x - 1))


def test_whole_numbers_that_a_network_does_not_take_are_no_fault_of_it():
    with torch.random.fork_rng(devices=[]):
        assert bn.elasticize(FromOne(), torch.tensor([[1, 2, 2]])).space.dimensions


def test_a_converter_says_what_a_module_computes_in_layers_that_have_rules():
    model, example = network("mixed")

    def converted(module):
        return nn.Sequential(module.conv, module.norm)

    made = bn.elasticize(model, example, converters={type(model.opaque): converted})
    assert {"middle.width", "wide.width"} <= {d.name for d in made.space.dimensions}
    assert "opaque" not in {row.module for row in made.report.rows}


def test_a_wrong_converter_is_noticed():
    model, example = network("mixed")
    with pytest.raises(ConvertError, match="computes something else than Mixed: they differ by"):
        bn.elasticize(model, example, converters={type(model.opaque): lambda m: m.conv})


def test_one_step_of_training_searches_and_keeps_the_rest():
    model, _ = network("resnet")
    digits = few_digits()
    with torch.random.fork_rng(devices=[]):
        model.stem, model.fc = nn.Conv2d(1, 8, 5, 1, 2, bias=False), nn.Linear(16, 10)
    made = bn.elasticize(model, torch.zeros(1, 1, 8, 8))
    run = bn.fit(
        made, digits, cost_range=(2e4, 4e5), settings=bn.TrainSettings(steps=1, batch_size=16)
    )
    assert run.model is made
