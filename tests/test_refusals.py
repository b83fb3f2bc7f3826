"""What a supernet cannot be built of, called with or named by: refused where it is said."""

import copy
import logging
import math
import pickle

import pytest
import torch
from tests.small import mobilenet
from tests.spaces import images, seeded
from torch import nn

from boundnas import Dimension, Supernet, calibrate, elastic, models
from boundnas.cost import Cost, MACs, Parameters
from boundnas.errors import CostError, SpaceError
from boundnas.space import Derived, SearchSpace
from boundnas.space.polynomial import Largest, Polynomial, amount

WIDTH = Dimension("width", (4, 8))
RATIO = Dimension("ratio", (0.25, 0.5, 2))

SIZES = {
    "width -1": (lambda: elastic.Conv2d(3, -1), "Conv2d: out_channels must be .* 1, found -1"),
    "width 0": (lambda: elastic.Conv2d(0, 4), "Conv2d: in_channels .* found 0"),
    "width 7.5": (lambda: elastic.BatchNorm2d(7.5), r"BatchNorm2d: channels .* found 7\.5"),
    "a pair": (lambda: elastic.Conv2d((4, 4), 4), r"in_channels .* found \(4, 4\)"),
    "a switch": (lambda: elastic.Linear(True, 4), "Linear: in_features .* found True"),
    "no classes": (lambda: elastic.Linear(4, 0), "Linear: out_features .* found 0"),
    "a searched 0": (
        lambda: elastic.DepthwiseConv2d(Dimension("w", (0, 4))),
        r"DepthwiseConv2d: channels .* found 0 \(dimension w\)",
    ),
    "text": (lambda: elastic.Linear(Dimension("w", ("a", "b")), 4), r"found 'a' \(dimension w\)"),
    "stride -1": (lambda: elastic.Conv2d(3, 4, 3, stride=-1), "stride .* found -1"),
    "three strides": (lambda: elastic.DepthwiseConv2d(4, 3, (2, 2, 2)), r"stride .*\(2, 2, 2\)"),
    "three kernels": (lambda: elastic.Conv2d(3, 4, (3, 3, 3)), r"kernel_size .*\(3, 3, 3\)"),
    "kernel 2.5": (lambda: elastic.Conv2d(3, 4, 2.5), r"kernel_size .* found 2\.5"),
    "kernel 0": (lambda: elastic.DepthwiseConv2d(4, 0), "kernel_size .* found 0"),
    "kernel 4": (lambda: elastic.Conv2d(3, 4, 4), r"a kernel of 4 .* has no centre"),
    "squeezed by 0": (lambda: elastic.SqueezeExcite(4, reduction=0), "reduction .* found 0"),
    "half enabled": (
        lambda: elastic.SqueezeExcite(4, Dimension("se", (0, 1))),
        r"enabled is True, False or a dimension over \(False, True\), found 0, 1",
    ),
    "nothing left": (
        lambda: elastic.Linear(RATIO.map(lambda r: int(2 * r)), 4),
        r"in_features .* found 0 \(ratio = 0\.25\)",
    ),
    "a fraction": (
        lambda: elastic.Linear(4, RATIO.map(lambda r: 15 * r)),
        r"out_features .* found 3\.75 \(ratio = 0\.25\)",
    ),
    "no number": (
        lambda: RATIO.map(lambda r: math.nan),
        r"ratio = 0\.25: what follows it is .* found nan",
    ),
    "nothing": (lambda: WIDTH.map(lambda w: None), "width = 4: what follows it is .* found None"),
    "repeated": (lambda: Dimension("w", (4, 4)), "every choice must differ, found 4, 4"),
    "infinite": (lambda: Dimension("w", (4, math.inf)), "choices are finite numbers.*4, inf"),
    "not a number": (lambda: Dimension("w", (math.nan, 4)), "choices are finite numbers"),
    "pairs": (lambda: Dimension("w", ((3, 3), (5, 5))), "choices are finite numbers"),
    "image size 0": (lambda: Supernet((3, 0, 8)), r"input_shape is .* found \(3, 0, 8\)"),
    "image size 8.5": (lambda: Supernet((3, 8.5, 8)), "input_shape is"),
    "no channels": (lambda: models.mobilenet_v2(0.1, in_channels=0), "input_shape is"),
    "no axes": (lambda: Supernet(()), r"input_shape is .* found \(\)"),
    "a space without classes": (
        lambda: models.mobilenet_v2(0.1, classes=0), "MobileNet: classes .* found 0"
    ),
    "no last layer": (lambda: models.mobilenet_v2(0.1, last_width=-8), "last_width .* found -8"),
    "multiplier 0": (lambda: models.mobilenet_v2(0.0), "a width multiplier is .* found 0.0"),
    "multiplier nan": (lambda: models.mobilenet_v2(math.nan), "a width multiplier is .* found nan"),
    "multiplier -1": (lambda: models.width_only(-1), "a width multiplier is .* found -1"),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_what_cannot_be_built_says_what_was_found(name):
    build, message = SIZES[name]
    with pytest.raises(SpaceError, match=message):
        build()


def test_a_map_is_given_the_choices_as_they_are():
    assert RATIO.map(lambda r: round(8 * r)).choices == (2, 4, 16)
    assert Dimension("a", ("relu", "swish")).map(lambda name: len(name)).choices == (4, 5)
    assert Dimension("se", (False, True)).map(lambda on: on is True).choices == (False, True)
    twice = WIDTH.map(lambda w: 3 * w).map(lambda w: w // 4)
    assert twice == Derived((WIDTH,), (3, 6))


def test_a_setting_follows_several_dimensions_and_says_at_which_options_it_cannot():
    ratio, only = Dimension("ratio", (1, 2, 5)), Dimension("only", (7,))
    hidden = WIDTH.map(lambda c, r, one, k: c * r + one + k, ratio, only, 1)
    assert hidden == Derived(
        (WIDTH, ratio), tuple(c * r + 8 for c in WIDTH.choices for r in (1, 2, 5))
    )
    assert ratio.map(min, hidden).dimensions == (ratio, WIDTH)
    found = hidden.map(lambda h, c: h - c, WIDTH)  # of dimensions that it follows already
    assert found.choices == tuple(c * r + 8 - c for c in WIDTH.choices for r in (1, 2, 5))
    first, second = WIDTH.choices[:2]
    with pytest.raises(SpaceError, match=f"w.* = {first}, ratio = 2: what follows it .* None"):
        WIDTH.map(lambda c, r: None if r == 2 else 1, ratio)
    few = WIDTH.map(lambda c, r: 0 if (c, r) == (second, 5) else 1, ratio)
    with pytest.raises(SpaceError, match=rf"channels .* found 0 \(w.* = {second}, ratio = 5\)"):
        elastic.BatchNorm2d(few)
    assert only.map(lambda one: one + 1) == Derived((only,), (8,))


class Excited(Supernet):
    """Squeeze-and-excite over a width that follows another."""

    def __init__(self):
        super().__init__((1, 8, 8))
        width = self.dimension("width", (4, 8))
        middle = width.map(lambda w: 3 * w)
        self.conv, self.se = elastic.Conv2d(1, middle), elastic.SqueezeExcite(middle)
        self.norm, self.head = elastic.BatchNorm2d(middle), elastic.Linear(middle, 10)

    def forward(self, x, arch):
        return self.head(self.norm(self.se(self.conv(x, arch), arch), arch).mean((2, 3)), arch)


def test_a_squeezed_width_follows_a_derived_one():
    se = seeded(Excited).se
    assert se.reduce.out_features.choices == (3, 6) == se.expand.in_features.choices


IMAGES = {
    "channels": (
        lambda x: x[:, :2],
        r"images of this model .* \(N, 3, 4, 4\), found \(2, 2, 4, 4\)",
    ),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), "channels come first: x.permute"),
    "one image": (lambda x: x[0], r"add the batch axis: x\[None\]"),
    "flat": (lambda x: x.flatten(1), r"found \(2, 48\)"),
    "pixels": (lambda x: x.to(torch.uint8), "torch.uint8 .*, from pixels with boundnas.data.norm"),
    "half": (lambda x: x.half(), "images are torch.float16 .* torch.float32; convert"),
    "double": (lambda x: x.double(), "images are torch.float64"),
}


class Small(Supernet):
    def __init__(self):
        super().__init__((3, 4, 4))
        self.conv = elastic.Conv2d(3, self.dimension("width", (2, 4)))
        self.head = elastic.Linear(self.conv.out_channels, 5)

    def forward(self, x, arch):
        return self.head(self.conv(x, arch).mean((2, 3)), arch)


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_another_kind_are_blamed_and_not_a_layer(name):
    model = seeded(Small)
    change, message = IMAGES[name]
    with pytest.raises(SpaceError, match=message):
        model(change(images(model, 2)), model.space.largest)


def test_images_of_another_size_may_be_tried():
    model = seeded(Small)
    assert model(torch.zeros(2, 3, 9, 7), model.space.largest).shape == (2, 5)


AXES = {
    "linear": (lambda: elastic.Linear(4, 8), (4,), r"\(N, \.\.\., features\), found \(4,\)"),
    "conv": (lambda: elastic.Conv2d(4, 8), (4, 4, 4), r"\(N, C, H, W\), found \(4, 4, 4\)"),
    "depthwise": (lambda: elastic.DepthwiseConv2d(4), (2, 4), r"\(N, C, H, W\), found"),
    "norm": (lambda: elastic.BatchNorm2d(4), (2, 4), r"\(N, C, H, W\), found \(2, 4\)"),
}


@pytest.mark.parametrize("name", AXES)
def test_a_layer_refuses_inputs_of_other_axes(name):
    build, shape, message = AXES[name]
    layer, space = seeded(lambda: nn.ModuleList([build()]))[0], seeded(Small).space
    layer.name = "neck"
    with pytest.raises(SpaceError, match=rf"neck \({type(layer).__name__}\) takes .*{message}"):
        layer(torch.zeros(shape), space.largest)


class Late(Supernet):
    """Layers made after the space was looked at."""

    def __init__(self):
        super().__init__((1, 8, 8))
        self.width = self.dimension("width", (4, 8))
        self.conv, self.norm = elastic.Conv2d(1, self.width), elastic.BatchNorm2d(self.width)
        assert len(self.space) == 1
        self.late = elastic.Conv2d(self.width, self.width, 3)
        self.later = nn.ModuleList([elastic.BatchNorm2d(self.width)])
        self.head = elastic.Linear(self.width, 10)

    def forward(self, x, arch):
        x = self.norm(self.conv(x, arch), arch)
        for norm in self.later:
            x = norm(self.late(x, arch), arch)
        return self.head(x.mean((2, 3)), arch)


def names(model):
    """What the normalizations of a pass call themselves."""
    return list(
        calibrate(model, model.space.largest, [images(model, 4)]).carried.statistics.moments
    )


def test_names_are_right_at_every_call():
    model = seeded(Late)
    assert names(model) == ["norm", "later.0"]
    model.later.append(elastic.BatchNorm2d(model.width))
    assert names(model) == ["norm", "later.0", "later.1"]
    del model.later[0]
    assert names(model) == ["norm", "later.0"]
    model.later.insert(0, elastic.BatchNorm2d(model.width))
    assert names(model) == ["norm", "later.0", "later.1"]
    model.moved = model.later
    del model.later
    model.later = [model.moved[0]]
    assert names(model) == ["norm", "moved.0"]
    model.norm = nn.ModuleDict({"of": elastic.BatchNorm2d(model.width)})["of"]
    assert names(model) == ["norm", "moved.0"]
    assert model.norm.name == "norm"


def test_a_layer_of_two_models_answers_to_the_one_that_calls_it():
    one, other = seeded(Late), seeded(Late)
    other.shared = nn.ModuleList([one.norm])
    other.later = other.shared
    assert names(other) == ["norm", "later.0"] or names(other) == ["norm", "shared.0"]
    assert names(one) == ["norm", "later.0"]
    assert names(other)[1] != "norm"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_a_copy_names_its_own_layers(again):
    model = seeded(Late)
    names(model)
    copied = again(model)
    copied.later.append(elastic.BatchNorm2d(copied.width))
    assert names(copied) == ["norm", "later.0", "later.1"]
    assert names(model) == ["norm", "later.0"]


RANGES = {
    "reversed": ((2e4, 1e4), "range is 0 < lower < upper, .*found 20000.0 to 10000.0 multiply"),
    "nan": ((math.nan, 1e4), "found nan to"),
    "infinite": ((1e4, math.inf), "to inf"),
    "negative": ((-1e4, 2e4), "found -10000.0"),
    "text": (("1e4", 2e4), "found 1e4 to"),
    "switch": ((True, 2e4), "found True"),
    "millions": (
        (0.012, 0.04),
        r"no network .* 1\.2e-08 to 4e-08 MMACs: they reach from 0\.01032 to 0\.045584 MMACs"
        r".*, or another width; if 0\.012 to 0\.04 MMACs was meant, that is lower: 0\.012, "
        r"upper: 0\.04 in a configuration, and cost_range=\(12000, 40000\) from Python, in "
        r"multiply-accumulates$",
    ),
    "times a million": (
        (12e9, 40e9),
        r"12000 to 40000 MMACs: they .*; if 0\.012 to 0\.04 MMACs was meant, that is lower: ",
    ),
    "nothing near": ((12e19, 40e19), "that overlaps this, or another width$"),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_a_range_that_cannot_be_meant_says_what_was_likely_meant(name):
    (lower, upper), message = RANGES[name]
    with pytest.raises(CostError, match=message):
        MACs(mobilenet()).check_range(lower, upper)


def test_limits_beyond_the_reach_are_said_once_each(caplog):
    cost = MACs(mobilenet())
    with caplog.at_level(logging.WARNING):
        cost.check_range(12e3, 40e3)
        assert not caplog.messages
        cost.check_range(5e3, 60e3)
    lower, upper = caplog.messages
    assert "the lower limit of 0.005 to 0.06 MMACs is beyond what this space reaches" in lower
    assert "from 0.01032 to 0.045584 MMACs; the smallest counts instead" in lower
    assert upper.startswith("the upper limit of")


def own(polynomial, **texts):
    texts = {"name": "energy", "unit": "mJ"} | texts
    return type("Own", (Cost,), {**texts, "_polynomial": lambda self, model: polynomial(model)})


def width_of(model):
    return amount(model.space.dimensions[0])


COSTS = {
    "no name": (own(width_of, name=""), "Own: a cost has a name, a text such as 'energy'"),
    "no unit": (own(width_of, unit=None), "Own: a cost has a unit, a text such as 'mJ'"),
    "taken": (own(width_of, name="macs"), "Own: the name 'macs' is taken"),
    "taken for nanoseconds": (own(width_of, name="latency"), "Own: the name 'latency' is taken"),
    "nothing": (type("Own", (Cost,), {"name": "l", "unit": "ms"}), "Own does not say what it"),
    "a number": (own(lambda m: 5), "energy: _polynomial gives sums .* found a int"),
    "a fraction": (
        own(lambda m: amount(m.space.dimensions[0], lambda w: 0.5 * int(w))),
        r"energy: costs are whole numbers, found 2\.0; choose a smaller unit",
    ),
    "too much": (
        own(lambda m: amount(m.space.dimensions[0], lambda w: w * 10**20)),
        r"energy: a cost fits in a whole number of 64 bits, .* reach 8e\+20; choose a larger unit",
    ),
    "too much in products": (
        own(lambda m: 2**31 * amount(m.space.dimensions[0], lambda w: w * 2**29)),
        "choose a larger unit",
    ),
    "one of several": (
        own(lambda m: Largest((amount(1), Polynomial(((0.5, ()),))))),
        r"numbers, found 0\.5",
    ),
    "a factor": (own(lambda m: Polynomial(((0.5, ()),))), r"whole numbers, found 0\.5"),
}


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_that_cannot_be_says_what_it_lacks(name):
    cost, message = COSTS[name]
    with pytest.raises(CostError, match=message):
        cost(seeded(Late))


@pytest.mark.parametrize("name", ["macs", "energy"])
def test_a_cost_is_of_its_models_architectures_only(name):
    model = seeded(Late)
    cost = MACs(model) if name == "macs" else own(width_of)(model)
    arch = mobilenet().space.largest
    twin = SearchSpace([Dimension("width", (4, 9))]).largest  # of as many options
    for other in (arch, twin, twin.carrying(gates=(torch.eye(2)[1],))):
        for count in (cost, cost.relaxed):
            with pytest.raises(SpaceError, match=f"{name}: this architecture is of another space"):
                count(other)


def test_a_cost_below_zero_is_refused_with_its_architecture():
    model = seeded(Late)
    cost = own(lambda m: 6 + -1 * width_of(m))(model)
    assert cost(model.space.smallest) == 2
    with pytest.raises(CostError, match="energy: a cost is zero or more, found -2 for width=8"):
        cost(model.space.largest)


def test_the_reach_is_found_where_a_larger_option_costs_less():
    model = seeded(Small)
    cost = own(lambda m: amount(m.space.dimensions[0], {2: 9, 4: 3}.get))(model)
    assert cost.reach == (3, 9)
    assert Parameters(model).reach == (2 * 3 + 5 * 2 + 5, 4 * 3 + 5 * 4 + 5)
