"""What may decide in ``forward``: its cost is right, and it is learned exactly or refused."""

import itertools

import pytest
import torch
from tests.small import few_digits
from tests.spaces import SPACES, images, seeded, supernet
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from boundnas import Architecture, Supernet, TrainSettings, calibrate, elastic, extract, fit
from boundnas.cost import MACs, Parameters
from boundnas.errors import SpaceError
from boundnas.guard.learnable import check_learnable, check_used
from boundnas.randomness import stream
from boundnas.supernet.paths import paths


class Net(Supernet):
    """Two widths, a switch, a count, and a middle that a construct puts together."""

    def __init__(self, middle):
        super().__init__((3, 8, 8))
        self.op = self.dimension("op", (False, True), kind="op")
        self.count = self.dimension("count", (1, 2, 3), kind="count")
        self.width = self.dimension("width", (4, 6, 8))
        self.other = self.dimension("other", (4, 8))
        self.stem, self.head = elastic.Conv2d(3, self.width, 3), elastic.Linear(self.other, 5)
        self.neck = elastic.Conv2d(self.width, self.other, bias=True)
        self.extra = elastic.Conv2d(self.width, self.width, 3)
        self.more = elastic.BatchNorm2d(self.width)
        self.plain = nn.Conv2d(3, 3, 3, padding=1)
        self.middle = middle

    def forward(self, x, arch):
        x = self.middle(self, x, arch)
        return self.head(F.relu(self.neck(x, arch)).mean((2, 3)), arch)


def skip(net, x, arch):
    x = F.relu(net.stem(net.plain(x), arch))
    x = net.more(x + net.extra(x, arch), arch) if arch[net.op] else x
    return F.avg_pool2d(x, 2) if arch.size(net.count) > 1 else x


def skipped_only_by_the_largest(net, x, arch):
    x = net.stem(net.plain(x), arch)
    if arch.values["op"] and arch[net.count] == 3:
        return x
    return net.more(net.extra(x, arch), arch)


def resolution(net, x, arch):
    x = F.interpolate(net.plain(x), size=(4 * arch.size(net.count),) * 2)
    x = net.more(net.stem(x, arch), arch)
    return net.extra(x[:, :, ::2], arch) if arch[net.op] else net.extra(x, arch)


def repeats(net, x, arch):
    x = net.stem(net.plain(x), arch)
    for _ in range(arch.indices[1]):
        x = net.more(net.extra(x, arch), arch)
    return F.max_pool2d(x, 2) if arch == net.space.largest or arch[net.op] else x


def plain_layer_in_a_branch(net, x, arch):
    x = net.plain(net.plain(x)) if arch.value(net.op) else x
    x = net.more(net.stem(x[..., : 2 * arch[net.count]], arch), arch)
    return net.extra(x, arch)


def plain_layer_of_the_smaller(net, x, arch):
    if not arch.value(net.op):
        weight = net.plain.weight[:, :, 0]
        x = net.plain(x) * (weight @ weight).mean()
    x = net.more(net.stem(x[..., : 2 * arch[net.count]], arch), arch)
    return net.extra(x, arch)


def conjunction(net, x, arch):
    x = net.more(net.stem(net.plain(x), arch), arch)
    if arch[net.op] and arch[net.count] == 2 and arch[net.other] == 4:
        x = net.extra(x, arch)
    return x


def what_is_shown(net, x, arch):
    x = net.more(net.stem(net.plain(x), arch), arch)
    if "op=True" in repr(arch) or f"{arch}".endswith("other=4"):
        x = net.extra(F.avg_pool2d(x, arch.option(net.count) + 1), arch)
    return x


CONSTRUCTS = {
    skip: r"itself looks up op \(test_paths.py, line \d+\), count \(test_paths",
    skipped_only_by_the_largest: "itself looks up op .*, count .*, width .*, other",
    resolution: "itself looks up op .*, count .*; so",
    repeats: "itself looks up op .*, count .*, width .*, other",
    plain_layer_in_a_branch: "itself looks up op .*, count .*; so",
    plain_layer_of_the_smaller: "itself looks up op .*, count .*; so",
    conjunction: "itself looks up op .*, count .*, other .*; so",
    what_is_shown: "itself looks up op .*, count .*, width .*, other .*; so",
}
every = pytest.mark.parametrize("construct", CONSTRUCTS, ids=lambda c: c.__name__)


def architectures(space):
    """All of a small space, else the extremes and some."""
    if space.size <= 64:
        indices = itertools.product(*(range(len(d)) for d in space.dimensions))
        return [Architecture(space, i) for i in indices]
    generator = stream(0, "test")
    return [space.largest, space.smallest, *(space.sample(generator) for _ in range(6))]


def counted(net, x):
    """MACs of one image by PyTorch's counter, and the parameters, of a plain network."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    return counter.get_total_flops() // 2, sum(p.numel() for p in net.parameters())


@every
def test_costs_are_those_of_the_extracted_network_in_every_architecture(construct, figure):
    model = seeded(lambda: Net(construct))
    macs, parameters = MACs(model), Parameters(model)
    x, every = images(model, 1), architectures(model.space)
    for arch in every:
        calibrated = calibrate(model, arch, [images(model, 2)])
        net = extract(model, calibrated)
        assert (macs(arch), parameters(arch)) == counted(net, x), arch
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(x, calibrated)
        assert counter.get_total_flops() == 2 * macs(arch)
    figure(f"{construct.__name__}: MACs and parameters of {len(every)} networks, counted")


@every
def test_the_relaxed_cost_sees_what_each_option_of_a_branch_costs(construct):
    model = seeded(lambda: Net(construct))
    macs, space = MACs(model), model.space
    for arch in architectures(space):
        gates = [torch.eye(len(d))[i] for d, i in zip(space.dimensions, arch.indices, strict=True)]
        gates[0].requires_grad_()
        relaxed = macs.relaxed(arch.plain.carrying(gates=tuple(gates)))
        assert relaxed.item() == macs(arch)
        (found,) = torch.autograd.grad(relaxed, gates[0], allow_unused=True)
        off, on = (macs(Architecture(space, (op, *arch.indices[1:]))) for op in (0, 1))
        assert (found[1] - found[0]).item() == on - off


@every
def test_a_choice_of_forward_is_searched_but_not_learned(construct):
    model = seeded(lambda: Net(construct))
    check_used(model)
    with pytest.raises(SpaceError, match=rf"{CONSTRUCTS[construct]}.*or train with learn: none"):
        check_learnable(model)


def ordinary(net, x, arch):
    return net.more(net.extra(net.stem(net.plain(x), arch), arch), arch).relu()


class Chosen(Net):
    """Its switch and its count are a matter of elastic modules."""

    def __init__(self, middle):
        super().__init__(middle)
        self.se = elastic.SqueezeExcite(self.width, self.op)
        layers = [elastic.Conv2d(self.width, self.width, 1) for _ in range(3)]
        self.stage = elastic.Stage(layers, self.count)

    def forward(self, x, arch):
        x = self.stage(self.se(self.middle(self, x, arch), arch), arch)
        return self.head(F.relu(self.neck(x, arch)).mean((2, 3)), arch)


def test_what_elastic_modules_choose_is_learned():
    check_learnable(seeded(lambda: Chosen(ordinary)))


@pytest.mark.parametrize("name", SPACES)
def test_ordinary_spaces_are_learned(name):
    model = supernet(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    check_used(model)
    check_learnable(model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    uses = paths(model).uses.items()  # of functions, as attention, MACs follow the widths
    found = {d.kind for name, use in uses if not name.endswith(")") for d in use.dimensions}
    assert found <= {"resolution"}


def shortcut_where_widths_agree(net, x, arch):
    x = ordinary(net, x, arch)
    y = net.neck(x, arch)
    net.kept = y.shape[1] == x.shape[1]
    return x * 2 if net.kept else x


def number_from_a_width(net, x, arch):
    x = ordinary(net, x, arch)
    return x * x.shape[1] ** -0.5


def pooled_by_a_width(net, x, arch):
    x = ordinary(net, x, arch)
    return F.avg_pool2d(x, 2 if x.shape[1] > 4 else 1)


UNLEARNED = {
    shortcut_where_widths_agree: "forward of Chosen calls other functions .* where .*width",
    number_from_a_width: "forward of Chosen calls .* with other numbers, where width changes",
    pooled_by_a_width: "forward of Chosen calls .* with other numbers, where width changes",
}


@pytest.mark.parametrize("middle", UNLEARNED, ids=lambda m: m.__name__)
def test_what_follows_a_dimension_without_its_gradient_is_refused(middle):
    with pytest.raises(SpaceError, match=UNLEARNED[middle]):
        check_learnable(seeded(lambda: Chosen(middle)))


class CutOff(Supernet):
    """Gradients end before the layer whose kernel is searched."""

    def __init__(self):
        super().__init__((3, 4, 4))
        self.stem = elastic.Conv2d(3, 4, self.dimension("kernel", (1, 3)))
        self.head = elastic.Linear(4, self.dimension("hidden", (5, 7)))
        self.last = elastic.Linear(self.head.out_features, 5)

    def forward(self, x, arch):
        return self.last(self.head(self.stem(x, arch).mean((2, 3)).detach(), arch), arch)


def test_a_dimension_whose_gradient_is_cut_off_is_refused():
    with pytest.raises(SpaceError, match="no gradient of the outputs reaches kernel; so"):
        check_learnable(seeded(CutOff))


def test_a_dimension_that_changes_nothing_is_named():
    model = seeded(lambda: Net(ordinary))
    with pytest.raises(SpaceError, match="nothing in Net uses op, count: neither the output"):
        check_used(model)
    check_used(model, {model.op, model.count})
    with pytest.raises(SpaceError, match="uses count:"):
        check_used(model, {model.op})


class Halves(Supernet):
    """A layer with two names, one of them in a stage, and a module that PyTorch calls by itself."""

    def __init__(self):
        super().__init__((3, 4, 4))
        depth, width = self.dimension("depth", (1, 2)), self.dimension("width", (2, 4))
        self.stem = elastic.Conv2d(3, width, 1)
        shared = elastic.Conv2d(width, width, 3)
        self.stage = elastic.Stage([elastic.Conv2d(width, width, 1), shared], depth)
        self.again = shared
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(1))])
        self.head = elastic.Linear(width, 5)

    def forward(self, x, arch):
        x = self.stage(self.stem(x * self.scales[0], arch), arch)
        return self.head(self.again(x, arch).mean((2, 3)), arch)


def test_a_layer_of_two_names_counts_once_a_call_and_once_in_parameters():
    model = seeded(Halves)
    for arch in architectures(model.space):
        macs, parameters = counted(extract(model, arch), images(model, 1))
        assert MACs(model)(arch) == macs
        assert Parameters(model)(arch) == parameters
    with pytest.raises(SpaceError, match=r"stage.1 is used follows depth"):
        check_learnable(model)


class Digits(Net):
    """The same for images of one channel."""

    def __init__(self):
        super().__init__(skip)
        self.example = torch.zeros(1, 8, 8)
        self.plain = nn.Conv2d(1, 3, 3, padding=1)
        self.head = elastic.Linear(self.other, 10)


def test_training_refuses_it_before_the_first_step_unless_no_boundary_is_learned():
    model, data = seeded(Digits), few_digits()

    def train(**chosen):
        settings = TrainSettings(steps=1, batch_size=16, **chosen)
        fit(model, data, cost_range=(1e4, 1e5), settings=settings)

    before = {k: v.clone() for k, v in model.state_dict().items()}
    for learn in ("both", "max", "min"):
        with pytest.raises(SpaceError, match="forward itself looks up op"):
            train(learn=learn)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    train(learn="none")
    train(estimator="score_function")
