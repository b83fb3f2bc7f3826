import copy
import pickle
from dataclasses import replace

import pytest
import torch
from tests.costs import counted_macs
from tests.spaces import SPACES, images, seeded, supernet
from torch import nn
from torch.nn import functional as F

from boundnas import Supernet, calibrate, elastic, extract
from boundnas.cost import MACs, Parameters
from boundnas.errors import CalibrationError, ExportError, SpaceError
from boundnas.randomness import stream


def architectures(space, number):
    """The smallest, the largest and random ones; dimensions of one option are in the spaces."""
    drawn = (space.sample(stream(0, "architecture", i)) for i in range(number - 2))
    return [space.smallest, space.largest, *drawn]


@pytest.mark.parametrize("name", SPACES)
def test_an_extracted_network_equals_its_slice_of_the_supernet(name, full, figure):
    model = supernet(name).eval()
    x, calibration = images(model, 3, seed=1), images(model, 8)
    number = 500 if full else 15
    for arch in architectures(model.space, number):
        calibrated = calibrate(model, arch, [calibration])
        net = extract(model, calibrated)
        with torch.no_grad():
            assert torch.equal(net(x), model(x, calibrated)), arch
            assert torch.equal(net(x[:1]), model(x[:1], calibrated)), arch
    figure(f"{name}: {number} networks compute what their slices do, bit for bit")


@pytest.mark.parametrize("name", SPACES)
def test_costs_are_those_counted_on_the_extracted_network(name, full, figure):
    model = supernet(name)
    macs, parameters = MACs(model), Parameters(model)
    x, calibration = images(model, 1), images(model, 4)
    number = 200 if full else 8
    for arch in architectures(model.space, number):
        net = extract(model, calibrate(model, arch, [calibration]))
        assert counted_macs(net, x) == macs(arch), arch
        assert sum(p.numel() for p in net.parameters()) == parameters(arch), arch
    figure(f"{name}: MACs and parameters of {number} networks, counted")


def extracted(name, arch="largest"):
    model = supernet(name)
    arch = calibrate(model, getattr(model.space, arch), [images(model, 4)])
    return model, arch, extract(model, arch)


@pytest.mark.parametrize("name", SPACES)
def test_an_extracted_network_is_made_of_plain_layers_in_evaluation(name):
    _, _, net = extracted(name)
    for module in net.modules():
        assert type(module).__module__.startswith("torch.")
        assert not module.training
    assert not any(isinstance(m, nn.Dropout) for m in net.modules())


@pytest.mark.parametrize("name", SPACES)
def test_an_extracted_network_is_copied_and_pickled_without_this_package(name):
    model, _, net = extracted(name, "smallest")
    x = images(model, 2)
    content = pickle.dumps(net)
    assert b"boundnas" not in content
    assert b"tests" not in content
    for twin in (copy.deepcopy(net), pickle.loads(content)):  # noqa: S301
        assert torch.equal(twin(x), net(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_extraction_leaves_the_supernet_as_it_is(name, training):
    model = supernet(name).train(training)
    before = copy.deepcopy(model.state_dict())
    x = images(model, 2)
    arch = calibrate(model, model.space.largest, [images(model, 4)])
    net = extract(model, arch)
    expected = net(x)
    for parameter in net.parameters():
        parameter.data.fill_(9)
    assert all(m.training is training for m in model.modules())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for parameter in model.parameters():
        parameter.data.zero_()
    twin = extract(supernet(name), arch)
    assert torch.equal(twin(x), expected)


def test_a_network_without_its_statistics_is_not_extracted():
    model = supernet("own_network")
    with pytest.raises(CalibrationError, match=r"norm: .* extracted only with its statistics; use"):
        extract(model, model.space.smallest)


def test_a_layer_that_was_not_calibrated_is_named():
    model = seeded(lambda: Renamed())
    arch = calibrate(model, model.space.smallest, [images(model, 4)])
    named = {"norm": arch.carried.statistics.moments["bn"]}
    foreign = arch.carrying(statistics=replace(arch.carried.statistics, moments=named))
    with pytest.raises(CalibrationError, match=r"bn: no statistics under this name; .* norm"):
        extract(model, foreign)


def test_an_architecture_of_another_space_is_not_extracted():
    with pytest.raises(
        SpaceError, match=r"of another space .*\): it has .* where the other has .*; take it"
    ):
        extract(supernet("own_network"), supernet("sample_wise").space.smallest)


class Renamed(Supernet):
    def __init__(self):
        super().__init__((3, 4, 4))
        width = self.dimension("width", (2, 4))
        self.conv, self.bn = elastic.Conv2d(3, width), elastic.BatchNorm2d(width)

    def forward(self, x, arch):
        return self.bn(self.conv(x, arch), arch).mean((2, 3))


class Tokens(Supernet):
    """Of what is held and made, told sizes that are read off the images."""

    def __init__(self, tokens):
        super().__init__((3, 4, 4))
        self.tokens = tokens
        self.conv = elastic.Conv2d(3, 8)
        self.token, self.places = (nn.Parameter(torch.randn(1, n, 8)) for n in (1, 40))
        self.hidden = elastic.Linear(8, self.dimension("width", (2, 4)))

    def forward(self, x, arch):
        x = self.conv(x, arch).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens(self, x), x], 1)
        return self.hidden(x + self.places[:, : x.shape[1]], arch).mean((1, 2))


TOLD = {
    "expand": lambda net, x: net.token.expand(x.shape[0], -1, -1),
    "expand by a tuple": lambda net, x: net.token.expand((len(net.token) * x.size(0), 1, 8)),
    "repeat": lambda net, x: net.token.repeat(x.shape[0], 1, 1),
    "zeros": lambda net, x: torch.zeros(x.shape[0], 2, x.shape[2]) + net.token,
    "new ones": lambda net, x: net.token.new_ones((x.shape[0], 1, 8)),
    "arange": lambda net, x: torch.arange(x.shape[0] * 8.0).view(x.shape[0], 1, 8),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_a_model_holds_may_be_told_sizes_of_its_images(name):
    model = seeded(lambda: Tokens(TOLD[name])).eval()
    before = {each: getattr(torch.Tensor, each) for each in ("expand", "__getitem__")}
    net = extract(model, model.space.largest)
    assert {each: getattr(torch.Tensor, each) for each in before} == before
    for number in (1, 3):
        x = images(model, number)
        assert torch.equal(net(x), model(x, model.space.largest))


class Branching(Supernet):
    """Whose ``forward`` does what the function given to it says."""

    def __init__(self, decide):
        super().__init__((3, 4, 4))
        self.decide = decide
        self.conv = elastic.Conv2d(3, self.dimension("width", (2, 4)))

    def forward(self, x, arch):
        y = self.conv(x, arch)
        return y if self.decide(y, arch) else F.relu(y)


@pytest.mark.parametrize(
    "decide",
    [
        lambda x, arch: x.mean() > 0,
        lambda x, arch: float(x.sum()) > 0,
        lambda x, arch: len(x) > 1,
        lambda x, arch: x.shape[-1] > 2,
    ],
    ids=["tensor", "number", "length", "shape"],
)
def test_a_forward_that_branches_on_tensors_is_refused(decide):
    model = seeded(lambda: Branching(decide))
    with pytest.raises(ExportError, match=r"Branching\.forward cannot .* may depend on arch, not"):
        extract(model, model.space.smallest)
    assert model.training


def test_a_forward_may_branch_on_the_architecture():
    model = seeded(lambda: Branching(lambda x, arch: arch.indices[0] == 0)).eval()
    x = images(model, 2)
    for arch in (model.space.smallest, model.space.largest):
        assert torch.equal(extract(model, arch)(x), model(x, arch))


class Elsewhere(Branching):
    """Goes another way while it is traced, one that cannot be gone."""

    def forward(self, x, arch):
        y = self.conv(x, arch)
        return y if isinstance(x, torch.Tensor) else y.reshape(7, 11)


def test_a_network_that_fails_where_the_model_does_not_is_refused():
    model = seeded(lambda: Elsewhere(None))
    with pytest.raises(ExportError, match=r"Elsewhere: the extracted network fails where model\("):
        extract(model, model.space.smallest)
    assert model.training


class Tied(Supernet):
    """Layers and a parameter that are used twice."""

    def __init__(self):
        super().__init__((3, 6, 6))
        width = self.dimension("width", (2, 4))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.stem, self.conv = elastic.Conv2d(3, width), elastic.Conv2d(width, width, 3)
        self.norm = elastic.BatchNorm2d(width)

    def forward(self, x, arch):
        x = self.stem(x, arch) * self.scale
        for _ in range(2):
            x = F.max_pool2d(self.norm(self.conv(x, arch), arch), 2) * self.scale
        return x.flatten(2).amax(2)


@pytest.mark.parametrize("index", [0, 1])
def test_parts_used_twice_are_extracted_once(index):
    model = seeded(Tied).eval()
    arch = model.space.architecture({"width": (2, 4)[index]})
    calibrated = calibrate(model, arch, [images(model, 4)])
    net, x = extract(model, calibrated), images(model, 2, seed=1)
    assert torch.equal(net(x), model(x, calibrated))
    assert counted_macs(net, x[:1]) == MACs(model)(arch)
    assert sum(p.numel() for p in net.parameters()) == Parameters(model)(arch)


class Named(Supernet):
    """Whose layers are called with their arguments by name."""

    def __init__(self):
        super().__init__((3, 4, 4))
        width = self.dimension("width", (2, 4))
        self.conv, self.drop = elastic.Conv2d(3, width), elastic.Dropout(0.5)

    def forward(self, x, arch):
        return self.drop(arch=arch, x=self.conv(x=x, arch=arch)).mean((2, 3))


def test_layers_may_be_called_with_their_arguments_by_name():
    model = seeded(Named).eval()
    x = images(model, 2)
    for arch in (model.space.smallest, model.space.largest):
        assert torch.equal(extract(model, arch)(x), model(x, arch))
