"""What stands between elastic layers is right or refused by name before training."""

import copy
import random
import time
from contextlib import nullcontext, suppress
from functools import partial

import numpy as np
import pytest
import torch
from tests.oracle import masked
from tests.small import few_digits
from tests.spaces import seeded, supernet
from torch import nn
from torch.nn import functional as F

from boundnas import Architecture, Supernet, TrainSettings, elastic, fit, guard
from boundnas.elastic.ghost import join, resized, split
from boundnas.elastic.varied import Options, vary
from boundnas.errors import SpaceError
from boundnas.guard.call import Trace
from boundnas.guard.varied import agree
from boundnas.space import Dimension, Joined
from boundnas.space.polynomial import amount


class Between(Supernet):
    """Two elastic layers of one width, and what a user calls between them."""

    def __init__(self, between, choices=(1, 2, 4, 8), parts=None, head=None):
        super().__init__((1, 8, 8))
        self.width = self.dimension("width", choices)
        self.a, self.b = elastic.Conv2d(1, self.width, 3), elastic.Conv2d(1, self.width, 3)
        self.norm = elastic.BatchNorm2d(self.width)
        self.fixed = elastic.Conv2d(1, 4, 3)
        self.across = elastic.Shortcut(4, self.width)
        self.wide = elastic.Conv2d(Joined((self.width, 1)), self.width)
        self.parts = nn.ModuleDict(parts() if parts else {})
        self.tail = elastic.Conv2d(self.width, 6, 3)
        self.head = head(self.width) if head else elastic.Linear(6, 3)
        self.between = between

    def forward(self, x, arch):
        y = self.norm(self.a(x, arch), arch)
        y = self.between(self, y, x, arch)
        if y.dim() == 2:
            return self.head(y, arch)
        return self.head(F.relu(self.tail(y, arch)).mean((2, 3)), arch)


def features(width):
    """A head that takes the searched channels themselves."""
    return elastic.Linear(width, 3)


def pixels(width):
    """One that takes every pixel of them as a feature."""
    return elastic.Linear(width.map(lambda c: 64 * c), 3)


def spatial(model, y, x, arch):
    return y * torch.sigmoid(model.fixed(x, arch).mean(1, keepdim=True))


def set_corner(model, y, x, arch):
    y = y.clone()
    y[..., 0, 0] = 0
    return y


def apply_in_place(model, y, x, arch):
    F.relu_(y)
    return y


def half_pixels(model, y, x, arch):
    left, right = y.chunk(2, 3)
    return torch.cat([right, left], 3)


def largest_pixels(model, y, x, arch):
    values, where = y.flatten(2).max(2)
    return values + 0 * where


def if_shapes_agree(model, y, x, arch):
    z = model.b(x, arch)
    return y + z if z.shape == y.shape else y


RIGHT = {
    "nothing": (lambda m, y, x, a: y, None),
    "relu": (lambda m, y, x, a: F.relu(y), None),
    "a sum of maps": (lambda m, y, x, a: y + m.b(x, a), None),
    "a product of maps": (lambda m, y, x, a: y * m.b(x, a).sigmoid(), None),
    "the images added": (lambda m, y, x, a: y + x, None),
    "one map over all channels": (spatial, None),
    "pixels cut off": (lambda m, y, x, a: F.interpolate(y[..., ::2, 1:], (5, 5)), None),
    "one pixel set": (set_corner, None),
    "a function in place": (apply_in_place, None),
    "a sum in place": (lambda m, y, x, a: m.b(x, a).add_(y), None),
    "pixels in two parts": (half_pixels, None),
    "softmax over pixels": (lambda m, y, x, a: F.softmax(y.flatten(2), 2).view(y.shape), None),
    "pixels turned around": (lambda m, y, x, a: y.flip(3).roll(1, 2).transpose(2, 3), None),
    "channels last and back": (lambda m, y, x, a: y.permute(0, 2, 3, 1).sin().movedim(3, 1), None),
    "padding": (lambda m, y, x, a: F.pad(y, (1, 0, 0, 1)), None),
    "an activation of one weight": (lambda m, y, x, a: m.parts["p"](y), lambda: {"p": nn.PReLU()}),
    "pooling modules": (lambda m, y, x, a: m.parts["p"](y), lambda: {"p": nn.MaxPool2d(2)}),
    "instance normalization": (lambda m, y, x, a: F.instance_norm(y), None),
    "layer normalization of pixels": (
        lambda m, y, x, a: m.parts["p"](y), lambda: {"p": nn.LayerNorm([8, 8])},
    ),
    "attention of heads": (
        lambda m, y, x, a: F.scaled_dot_product_attention(
            *[y.flatten(2)[..., None]] * 3, is_causal=True).view(y.shape), None,
    ),
    "shapes compared": (if_shapes_agree, None),
    "a mean": (lambda m, y, x, a: y.mean((2, 3)), features),
    "flatten": (lambda m, y, x, a: y.flatten(1), pixels),
    "a module that flattens": (lambda m, y, x, a: nn.Flatten()(y), pixels),
    "reshape by the sizes": (
        lambda m, y, x, a: y.reshape(y.shape[0], y.shape[1], -1).amax(2), features,
    ),
    "reshape by the images": (lambda m, y, x, a: y.reshape(len(x), -1), pixels),
    "view of all": (lambda m, y, x, a: y.contiguous().view(y.size(0), -1), pixels),
    "reshape by a product": (
        lambda m, y, x, a: y.reshape(-1, y.shape[1] * y.shape[2] * y.shape[3]), pixels,
    ),
    "reshape by the architecture": (
        lambda m, y, x, a: y.reshape(-1, a[m.width], 64).sum(2), features,
    ),
    "reshape and back": (
        lambda m, y, x, a: y.reshape(*y.shape[:2], 64).reshape(y.shape).tanh(), None,
    ),
    "squeeze and excite by hand": (
        lambda m, y, x, a: y * y.mean((2, 3)).sigmoid().view(y.size(0), y.size(1), 1, 1), None,
    ),
    "squeeze of named axes": (
        lambda m, y, x, a: F.adaptive_avg_pool2d(y, 1).squeeze(3).squeeze(2), features,
    ),
    "unflatten": (
        lambda m, y, x, a: y.flatten(1).unflatten(1, (y.shape[1], 64)).mean(2), features,
    ),
    "largest pixels": (largest_pixels, features),
    "a sample's own mean taken off": (lambda m, y, x, a: y - y.mean((2, 3), keepdim=True), None),
    "the batch's mean taken off": (lambda m, y, x, a: y - y.mean(0), None),
}  # fmt: skip


def model_of(case):
    """The supernet of a row of the table, in double precision, ready to be trained."""
    between, extra = case
    takes_width = extra is not None and extra.__code__.co_argcount == 1
    kind = {"head": extra} if takes_width else {"parts": extra}
    return seeded(lambda: Between(between, **kind)).double()


def gradient(model, option, fraction=1.0):
    """Of every option of the width, with one chosen; the batch is two samples, twice each."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 8, 8, generator=generator, dtype=torch.double).repeat(2, 1, 1, 1)
    gate = torch.eye(4, dtype=torch.double)[option].requires_grad_()
    arch = Architecture(model.space, (option,)).carrying(gates=(gate,), ghost_fraction=fraction)
    model(x, arch).square().sum().backward()
    return gate.grad


@pytest.mark.parametrize("name", RIGHT)
def test_functions_that_treat_channels_alike_have_the_right_gradient(name):
    model = model_of(RIGHT[name])
    guard.check(model)
    for option in range(4):
        found = gradient(model, option)
        torch.testing.assert_close(gradient(model, option, 0.5), found, rtol=1e-9, atol=1e-9)
        if name == "reshape by the architecture":
            continue  # the masked pass is of full width, whatever the architecture says
        with masked(model):
            expected = gradient(model, option)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def in_place_on_all(model, y, x, arch):
    y = y.clone()
    y[:, 0] = 0
    return y


def in_place_from_outside(model, y, x, arch):
    z = torch.zeros(len(x), 8, 8, 8, dtype=x.dtype)
    z[:, :1] += y[:, :1]
    return z


def written_beside(model, y, x, arch):
    z = torch.zeros_like(x)
    z[:] = y
    return y + z


def test_a_map_is_not_written_into_a_plain_one():
    model = seeded(lambda: Between(written_beside, choices=(1, 2)))
    with pytest.raises(
        SpaceError, match=r"line \d+: __setitem__ of the output of norm.* writes into"
    ):
        guard.check(model)


class Doubled(torch.autograd.Function):
    """A function of the user's own."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def over_channels(module):
    return (lambda m, y, x, a: m.parts["p"](y), lambda: {"p": module()})


MIXED = {
    "softmax": (lambda m, y, x, a: F.softmax(y, 1), None, "softmax"),
    "a module's softmax": (*over_channels(lambda: nn.Softmax(1)), "softmax"),
    "log_softmax": (lambda m, y, x, a: F.log_softmax(y, 1), None, "log_softmax"),
    "normalize": (lambda m, y, x, a: F.normalize(y), None, "normalize"),
    "group_norm": (lambda m, y, x, a: F.group_norm(y, 1), None, "group_norm"),
    "layer_norm": (lambda m, y, x, a: F.layer_norm(y, y.shape[1:]), None, "layer_norm"),
    "local_response_norm": (lambda m, y, x, a: F.local_response_norm(y, 3), None, "response_norm"),
    "flip": (lambda m, y, x, a: y.flip(1), None, "flip"),
    "roll": (lambda m, y, x, a: y.roll(1, 1), None, "roll"),
    "sort": (lambda m, y, x, a: y.sort(1)[0], None, "sort"),
    "topk": (lambda m, y, x, a: y.topk(1, 1)[0], None, "topk"),
    "cumsum": (lambda m, y, x, a: y.cumsum(1), None, "cumsum"),
    "sum": (lambda m, y, x, a: y * y.sum(1, keepdim=True), None, "sum"),
    "mean": (lambda m, y, x, a: y - y.mean(1, keepdim=True), None, "mean"),
    "mean of all": (lambda m, y, x, a: y - y.mean(), None, "mean"),
    "max": (lambda m, y, x, a: y - y.amax((1, 2, 3), keepdim=True), None, "amax"),
    "argmax": (lambda m, y, x, a: y * y.argmax(1, keepdim=True), None, "argmax"),
    "norm": (lambda m, y, x, a: y / y.norm(dim=1, keepdim=True), None, "norm"),
    "std": (lambda m, y, x, a: y / y.std(1, keepdim=True, correction=0), None, "std"),
    "cat of two": (lambda m, y, x, a: torch.cat([y, m.b(x, a)], 1), None, "beside"),
    "cat with a fixed one": (lambda m, y, x, a: torch.cat([m.fixed(x, a), y], 1), None, "4 and"),
    "cat with the images": (lambda m, y, x, a: torch.cat([y, x], 1), None, "and 1 here"),
    "stack": (lambda m, y, x, a: torch.stack([y, y], 1).flatten(1, 2), None, "flatten"),
    "repeat": (lambda m, y, x, a: y.repeat(1, 2, 1, 1), None, "repeat"),
    "channel shuffle": (
        lambda m, y, x, a: y.reshape(len(y), 2, y.shape[1] // 2, 8, 8).transpose(1, 2).reshape(
            y.shape), None, "reshape",
    ),
    "channel shuffle by the architecture": (
        lambda m, y, x, a: y.reshape(len(y), 2, a[m.width] // 2, 8, 8).transpose(1, 2).flatten(
            1, 2), None, "reshape",
    ),
    "pixel_shuffle": (lambda m, y, x, a: F.pixel_shuffle(y, 2), None, "pixel_shuffle"),
    "glu": (lambda m, y, x, a: F.glu(y, 1), None, "glu"),
    "chunk": (lambda m, y, x, a: y.chunk(2, 1)[0], None, "chunk"),
    "split": (lambda m, y, x, a: y.split(2, 1)[0], None, "split"),
    "a split in unequal parts": (
        lambda m, y, x, a: torch.cat([y, y], 1).split([y.shape[1] // 2, 3 * y.shape[1] // 2], 1)[1],
        None, "split",
    ),
    "a split by a number": (
        lambda m, y, x, a: torch.cat([y, y], 1).split(1, 1)[0], None, "split",
    ),
    "maps turned around": (
        lambda m, y, x, a: m.wide(torch.cat([x, y], 1), a), None, "1 and 1 of width",
    ),
    "a shortcut of another map": (
        lambda m, y, x, a: m.across(y, y, a), None, "across .*, whose channels are 1 of width .* 4",
    ),
    "unbind": (lambda m, y, x, a: y.unbind(1)[0], None, "unbind"),
    "one channel": (lambda m, y, x, a: y * y[:, :1], None, "getitem"),
    "one channel set": (in_place_on_all, None, "setitem"),
    "gram matrix": (lambda m, y, x, a: y.flatten(2) @ y.flatten(2).mT, None, "matmul"),
    "einsum": (lambda m, y, x, a: y * torch.einsum("nchw->nhw", y)[:, None], None, "einsum"),
    "attention": (
        lambda m, y, x, a: F.scaled_dot_product_attention(
            *[y.flatten(2).mT] * 3), None, "scaled_dot_product",
    ),
    "padding of channels": (lambda m, y, x, a: F.pad(y, (0, 0, 0, 0, 0, 1)), None, "pad"),
    "pooling of channels": (
        lambda m, y, x, a: F.avg_pool1d(y.flatten(2).mT, 1, 2), None, "avg_pool1d",
    ),
    "a flat view": (lambda m, y, x, a: y.reshape(-1, 64), pixels, "head"),
    "flatten of samples": (lambda m, y, x, a: y.flatten(0, 1), None, "flatten"),
    "squeeze": (lambda m, y, x, a: F.adaptive_avg_pool2d(y, 1).squeeze(), None, "squeeze"),
    "a plain convolution": (*over_channels(lambda: nn.Conv2d(8, 8, 1)), "conv2d"),
    "one weight per channel": (*over_channels(lambda: nn.PReLU(8)), "prelu"),
    "one constant per channel": (lambda m, y, x, a: y * torch.ones(8, 1, 1), None, "mul"),
    "as many constants": (
        lambda m, y, x, a: y * torch.arange(y.shape[1])[:, None, None], None, "arange",
    ),
    "divided by the width": (lambda m, y, x, a: y / y.shape[1], None, "div"),
    "scaled by the width": (lambda m, y, x, a: y * y.shape[1] ** -0.5, None, "active channels"),
    "branches on the width": (
        lambda m, y, x, a: y if y.shape[1] > 4 else y * 2, None, "active channels",
    ),
    "item": (lambda m, y, x, a: y * y.abs().amax().item(), None, "amax"),
    "tolist": (lambda m, y, x, a: y * y.detach()[0, 0, 0].tolist()[0], None, "getitem"),
    "numpy": (lambda m, y, x, a: y * float(y.detach().numpy().max()), None, "numpy"),
    "a copy into a plain map": (in_place_from_outside, None, "getitem"),
    "samples turned around": (lambda m, y, x, a: y + y.flip(0), None, "flip"),
    "samples side by side": (lambda m, y, x, a: torch.cat([y, y]), None, "cat"),
    "samples one by one": (
        lambda m, y, x, a: torch.stack([s.relu() for s in y]), None, "takes samples apart",
    ),
    "channels last": (lambda m, y, x, a: y.movedim(1, 3), None, "axis 3"),
    "samples on another axis": (lambda m, y, x, a: y.transpose(0, 1), None, "axis 0"),
    "an autograd function": (lambda m, y, x, a: Doubled.apply(y), None, "Doubled"),
    "no layer takes the channels": (lambda m, y, x, a: y.mean((2, 3)), lambda w: Same(), "returns"),
    "a sum in place of what is needed": (
        lambda m, y, x, a: y.exp_().add_(1), None, "modified by an inplace operation",
    ),
}  # fmt: skip


class Same(nn.Module):
    """Gives what it takes."""

    def forward(self, x, arch):
        return x


@pytest.mark.parametrize("name", MIXED)
def test_functions_that_do_not_are_refused_by_name(name):
    between, extra, word = MIXED[name]
    model = model_of((between, extra))
    with pytest.raises(SpaceError, match=word) as refusal:
        guard.check(model)
    assert "head" in word or "test_guard.py, line" in str(refusal.value)


class Own(nn.Module):
    """A module of a user's, on a fixed width."""

    def __init__(self, function):
        super().__init__()
        self.function, self.count, self.seen, self.shown = function, 0, [], {}
        self.register_buffer("buffer", torch.zeros(4))
        self.scale, self.generator = nn.Parameter(torch.ones(4)), torch.Generator()

    def forward(self, x):
        return self.function(self, x)


def own(function):
    return lambda: Own(function)


def counts_up(module, x):
    module.count += 1
    return x


def moves(module, x):
    module.buffer += x.detach().mean((0, 2, 3))
    return x


def moves_to(module, x):
    module.buffer = 0.9 * module.buffer + x.detach().mean((0, 2, 3))
    return x


def clamps(module, x):
    module.scale.data.mul_(0.5)
    return x * module.scale[:, None, None]


def keeps(module, x):
    module.seen.append(x.detach())
    return x


def remembers(module, x):
    module.last = x.detach()
    return x


def generated(module, x):
    return x * torch.rand(len(x), 1, 1, 1, generator=module.generator).to(x)


def seeds(module, x):
    torch.manual_seed(0)
    return x


def counts_beside(when=lambda module: True):
    """Counts in a list that a function alone knows."""
    calls = []

    def function(module, x):
        if when(module):
            calls.append(None)
        return x * (1 + 1e-12 * len(calls))

    return function


def draws_beside():
    generator = np.random.default_rng(0)
    return lambda module, x: x * generator.random()


FIXED = {  # module, what the refusal says, whether freezing it helps
    "batch norm": (lambda: nn.BatchNorm2d(4), r"p \(BatchNorm2d\).*elastic.BatchNorm2d\(4\)", True),
    "batch norm without weights": (lambda: nn.BatchNorm2d(4, affine=False), "BatchNorm2d", True),
    "a cumulative average": (lambda: nn.BatchNorm2d(4, momentum=None), "running_mean", True),
    "instance norm with statistics": (
        lambda: nn.InstanceNorm2d(4, track_running_stats=True), "running_mean", True,
    ),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), "_u", True,
    ),
    "a buffer": (own(moves), "buffer", False),
    "another buffer": (own(moves_to), "buffer", False),
    "a weight": (own(clamps), "scale", False),
    "a counter": (own(counts_up), "count", False),
    "a list": (own(keeps), "seen", False),
    "the last map": (own(remembers), "last", False),
    "a generator of its own": (own(generated), "generator", False),
    "a seed": (own(seeds), "draws random numbers of torch", False),
    "dropout": (lambda: nn.Dropout(0.5), "dropout draws.*elastic.Dropout", True),
    "dropout of channels": (lambda: nn.Dropout2d(0.5), "dropout2d", True),
    "alpha dropout": (lambda: nn.AlphaDropout(0.5), "alpha_dropout", True),
    "a random slope": (lambda: nn.RReLU(), "rrelu", True),
    "fractional pooling": (lambda: nn.FractionalMaxPool2d(2, 4), "fractional", False),
    "functional dropout": (own(lambda m, x: F.dropout(x, 0.5)), "dropout", False),
    "noise": (own(lambda m, x: x + torch.randn_like(x)), "randn_like", False),
    "random numbers of Python": (own(lambda m, x: x * random.random()), "Python", False),
    "random numbers of NumPy": (own(lambda m, x: x * np.random.rand()), "NumPy", False),
    "a random gate": (own(lambda m, x: F.gumbel_softmax(x)), "gumbel_softmax", False),
    "lazy": (lambda: nn.LazyConv2d(4, 1), "lazy", False),
    "a state that no module has": (own(counts_beside()), "gives something else every time", False),
    "a generator that no module has": (
        own(draws_beside()), "gives something else every time", False,
    ),
    "the time": (
        own(lambda m, x: x * time.perf_counter_ns()), "gives something else every time", False,
    ),
    "a state in training only": (
        own(counts_beside(lambda m: m.training)), "gives something else every time", False,
    ),
}  # fmt: skip


def on_fixed_width(make):
    def between(model, y, x, arch):
        return y + model.parts["p"](model.fixed(x, arch)).mean((1, 2, 3))[:, None, None, None]

    model = model_of((between, None))
    with torch.random.fork_rng(devices=[]):
        model.parts["p"] = make().double()
    return model


@pytest.mark.parametrize("name", FIXED)
def test_modules_with_state_or_randomness_are_refused_by_name(name):
    make, words, _ = FIXED[name]
    model = on_fixed_width(make)
    with pytest.raises(SpaceError, match=words):
        guard.check(model)


@pytest.mark.parametrize("name", [name for name, row in FIXED.items() if row[2]])
def test_what_the_user_froze_is_accepted(name):
    model = on_fixed_width(FIXED[name][0]).train()
    model.parts.p.eval()
    guard.check(model)


STATELESS = {
    "convolution": lambda: nn.Conv2d(4, 4, 1),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "no dropout": lambda: nn.Dropout(0.0),
    "batch norm without statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "softmax over a fixed width": lambda: nn.Softmax(1),
    "attention": lambda: nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(64, 2, 8, 0.0), nn.Unflatten(2, (8, 8))
    ),
    "an embedding of positions": own(lambda m, x: x + m.buffer.cumsum(0)[:, None, None]),
}


@pytest.mark.parametrize("name", STATELESS)
def test_modules_without_either_are_accepted(name):
    model = on_fixed_width(STATELESS[name])
    guard.check(model)
    guard.check(model.eval())


class Scaled(elastic.ElasticLayer):
    """A user's elastic layer: a weight for each channel."""

    def __init__(self, channels, apply):
        super().__init__()
        self.channels, self.apply_to = channels, apply
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x, arch):
        return self.apply_to(self, x, arch.size(self.channels))

    def macs(self, positions):
        return amount(0)

    def parameter_count(self):
        return amount(self.channels)

    def plain(self, arch):
        return None


def scaled_in_parts(layer, x, width):
    active, ghost = split(x)
    rest = None if ghost is None else ghost * layer.weight.detach()[width:, None, None]
    return join(active * layer.weight[:width, None, None], rest)


def scaled_naively(layer, x, width):
    return x * layer.weight[:width, None, None]


class Twice(elastic.Conv2d):
    """Calls the library's own forward."""

    def forward(self, x, arch):
        return super().forward(x.flip(1) if self.name == "parts.mixes" else x, arch) * 2


def of_fixed_draws(make):
    with torch.random.fork_rng(devices=[]):
        return make().double()


class Gateless(Scaled):
    """A product of all channels that forgets the options of their number."""

    def forward(self, x, arch):
        weight = self.weight[: arch.size(self.channels), None, None]
        return (split(x)[0] * weight).sum(1, keepdim=True)


def test_a_users_layer_without_a_gradient_for_its_width_is_refused():
    def between(model, y, x, arch):
        y = model.parts["before"](y, arch)  # which gives the same width a gradient
        return y + model.parts["p"](y, arch)

    model = model_of((between, None))
    model.parts["before"] = of_fixed_draws(lambda: elastic.Conv2d(model.width, model.width))
    model.parts["p"] = of_fixed_draws(lambda: Gateless(model.width, None))
    words = r"parts.p \(Gateless\) takes the output of parts.before .* no gradient"
    with pytest.raises(SpaceError, match=words):
        guard.check(model)
    model.parts["p"] = of_fixed_draws(lambda: Narrow(model.width, 1))
    guard.check(model)


class Narrow(elastic.Conv2d):
    """Derived from a layer that remembers them."""

    def forward(self, x, arch):
        return super().forward(x, arch) * 2


OWN_LAYERS = {  # what is wrong with it, if anything
    "in parts": (lambda w: Scaled(w, scaled_in_parts), None),
    "naively": (lambda w: Scaled(w, scaled_naively), r"test_guard.py, line \d+: mul of the output"),
    "of the library's": (lambda w: Twice(w, w, 3), None),
}


@pytest.mark.parametrize("name", OWN_LAYERS)
def test_a_users_elastic_layer_is_watched_too(name):
    make, words = OWN_LAYERS[name]
    model = model_of((lambda m, y, x, a: m.parts.p(y, a), None))
    model.parts["p"] = of_fixed_draws(lambda: make(model.width))
    with pytest.raises(SpaceError, match=words) if words else nullcontext():
        guard.check(model)


def test_a_mixing_call_before_the_librarys_own_forward_is_named():
    model = model_of((lambda m, y, x, a: m.parts.mixes(y, a), None))
    model.parts["mixes"] = of_fixed_draws(lambda: Twice(model.width, model.width, 3))
    with pytest.raises(SpaceError, match=r"test_guard.py, line \d+: flip of the output of norm"):
        guard.check(model)


def test_a_map_given_by_its_name_is_checked_like_any():
    model = model_of((lambda m, y, x, a: m.parts.p(x=y.transpose(1, 2), arch=a), None))
    model.parts["p"] = of_fixed_draws(lambda: elastic.Conv2d(model.width, model.width))
    with pytest.raises(SpaceError, match=r"parts.p \(Conv2d\) gets .* with channels on axis 2"):
        guard.check(model)


UNREGISTERED = {
    "a plain layer in a list": lambda m: [nn.Conv2d(1, 1, 1)],
    "an elastic layer in a dict": lambda m: {0: elastic.Conv2d(1, 1)},
    "a weight in a function": lambda m: (partial(torch.mul, nn.Parameter(torch.ones(1))),),
}


@pytest.mark.parametrize("name", UNREGISTERED)
def test_weights_that_nobody_would_train_are_refused(name):
    def between(model, y, x, arch):
        layer = model.hidden[0]
        x = layer(x, arch) if isinstance(layer, elastic.Conv2d) else layer(x)
        return y + model.b(x, arch)

    model = model_of((between, None)).float()
    with torch.random.fork_rng(devices=[]):
        model.hidden = UNREGISTERED[name](model)
    with pytest.raises(SpaceError, match=r"shape \(1,.* is no parameter of the model"):
        guard.check(model)


def test_an_elastic_layer_is_not_parametrized():
    model = model_of(RIGHT["nothing"])
    nn.utils.parametrizations.weight_norm(model.tail)
    with pytest.raises(SpaceError, match=r"tail \(.*Conv2d\): an elastic layer has no modules"):
        guard.check(model)


def fails_without_a_word(model, y, x, arch):
    assert y.shape[2] == 1
    return y


def test_an_error_without_a_text_has_its_name():
    with pytest.raises(SpaceError, match=r"line \d+: Between.forward fails in .*, AssertionError"):
        guard.check(model_of((fails_without_a_word, None)))


TOUCHED = {
    "nothing": own(lambda m, x: x),
    "a frozen module": FIXED["batch norm"][0],
    "an attribute": own(counts_up),
    "a buffer": own(moves),
    "a buffer put in the place of another": own(moves_to),
    "a weight": own(clamps),
    "the global generator": own(lambda m, x: F.dropout(x, 0.5)),
    "other generators": own(lambda m, x: x * random.random() * np.random.rand()),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TOUCHED)
def test_the_check_leaves_no_trace(name, training):
    model = on_fixed_width(TOUCHED[name]).train(training)
    model.parts.p.eval()
    parameter = next(model.parameters())
    parameter.grad = torch.ones_like(parameter)
    before = {k: (t, t.detach().clone()) for k, t in model.state_dict(keep_vars=True).items()}
    modes = {name: vars(m).copy() for name, m in model.named_modules()}
    generators = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    with suppress(SpaceError):
        guard.check(model)
    after = model.state_dict(keep_vars=True)
    assert after.keys() == before.keys()
    for name, (tensor, values) in before.items():
        assert after[name] is tensor
        assert torch.equal(tensor, values)
    assert {name: vars(m) for name, m in model.named_modules()} == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(parameter.grad, torch.ones_like(parameter))
    assert all(p is parameter or p.grad is None for p in model.parameters())
    assert generators[:2] == (random.getstate(), str(np.random.get_state()))
    assert torch.equal(generators[2], torch.get_rng_state())


def test_a_frozen_elastic_batch_norm_is_refused_by_name():
    model = model_of(RIGHT["nothing"])
    model.norm.eval()
    with pytest.raises(
        SpaceError, match=r"norm \(BatchNorm2d\) is in evaluation mode.*requires_grad_"
    ):
        guard.check(model)


@pytest.mark.parametrize("learn", ["both", "none"])
@pytest.mark.parametrize("name", ["cat of two", "softmax"])
def test_training_does_not_begin(name, learn):
    model = model_of(MIXED[name][:2]).float()
    before = copy.deepcopy(model.state_dict())
    settings = TrainSettings(steps=1, learn=learn)
    with pytest.raises(SpaceError, match=MIXED[name][2]):
        fit(model, few_digits(), cost_range=(1, 1e9), settings=settings)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


class Stages(Supernet):
    """Where only some networks come: a layer that depth cuts off, a branch, a third of choices."""

    def __init__(self, where):
        super().__init__((1, 8, 8))
        self.where = where
        width, depth = self.dimension("width", (2, 4)), self.dimension("depth", (1, 2), "depth")
        self.kind = self.dimension("kind", ("a", "b", "c"), "branch")
        self.stem = elastic.Conv2d(1, width)
        self.stage = elastic.Stage([Layer(width, None), Layer(width, where)], depth)
        self.head = elastic.Linear(width, 3)

    def forward(self, x, arch):
        x = self.stage(self.stem(x, arch), arch)
        if self.where == "branch" and arch[self.kind] == "b":
            x = x.softmax(1)
        if self.where == "values" and arch.values["kind"] == "b":
            x = x.softmax(1)
        return self.head(x.mean((2, 3)), arch)


class Layer(nn.Module):
    def __init__(self, width, where):
        super().__init__()
        self.conv, self.where = elastic.Conv2d(width, width), where

    def forward(self, x, arch):
        y = self.conv(x, arch)
        return y.softmax(1) if self.where == "stage" else F.relu(y)


@pytest.mark.parametrize("where", ["stage", "branch", "values"])
def test_what_only_some_networks_do_is_found(where):
    guard.check(seeded(lambda: Stages("nowhere")))
    with pytest.raises(SpaceError, match="softmax"):
        guard.check(seeded(lambda: Stages(where)))


class TwoWidths(Supernet):
    """A sum of maps whose widths are searched by themselves, and agree now and then."""

    def __init__(self):
        super().__init__((1, 8, 8))
        first, second = self.dimension("first", (2, 4)), self.dimension("second", (2, 4))
        self.a, self.b = elastic.Conv2d(1, first), elastic.Conv2d(1, second)
        self.head = elastic.Linear(first, 3)

    def forward(self, x, arch):
        return self.head((self.a(x, arch) + self.b(x, arch)).mean((2, 3)), arch)


def test_maps_of_two_widths_are_not_summed():
    with pytest.raises(
        SpaceError, match=r"line \d+: add of the output of a .* of first .* of second"
    ):
        guard.check(seeded(TwoWidths))


class ToLinear(Supernet):
    """A linear layer that gets pixels on the last axis."""

    def __init__(self):
        super().__init__((1, 8, 8))
        width = self.dimension("width", (2, 4))
        self.conv, self.head = elastic.Conv2d(1, width), elastic.Linear(width, 3)

    def forward(self, x, arch):
        return self.head(self.conv(x, arch).flatten(2), arch).mean(1)


def test_layers_on_tokens_are_accepted():
    guard.check(supernet("tokens"))


def test_a_linear_layer_takes_channels_on_the_last_axis():
    message = (
        r"line \d+: head \(Linear\) gets the output of conv \(Conv2d\) with channels on axis 1 and "
        "samples on axis 0; it takes samples on axis 0 and channels on the last axis"
    )
    with pytest.raises(SpaceError, match=message):
        guard.check(seeded(ToLinear))


@pytest.mark.parametrize(
    ("shape", "other", "sizes", "expected"),
    [
        ((4, 9, 3), (2, 9, 9), (4, 9, 1, 3), [2, 9, 3, 3]),
        ((4, 9, 6), (4, 9, 3), (4, 9, 2, 3), [4, 9, 1, 3]),
        ((4, 1, 3), (4, 1, 9), (4, 1, 1, 3), [4, 1, 3, 3]),
        ((4, 1, 6), (4, 1, 2), (4, 6), [4, 2]),
        ((4, 2, 1, 1), (3, 5, 1, 1), (4, 2), [3, 5]),
        ((4, 2, 3, 5), (4, 1, 3, 5), (4, 30), [4, 15]),
    ],
)
def test_sizes_follow_the_channels_to_where_a_reshape_takes_them(shape, other, sizes, expected):
    assert resized(shape, other, sizes) == expected


def raw_fault(model, y, x, arch):
    return y if arch[model.width] < 8 else [][1]


def test_any_error_of_forward_is_named_before_training():
    with pytest.raises(
        SpaceError, match=r"test_guard.py, line \d+: Between.forward fails in the arch"
    ):
        guard.check(model_of((raw_fault, None)))


class InPlace(Supernet):
    """A function in place after a layer that computes other options from what it gave or got."""

    def __init__(self, where):
        super().__init__((1, 8, 8))
        self.where = where
        width, kernel = self.dimension("width", (2, 4)), self.dimension("kernel", (1, 3))
        depth, kind = self.dimension("depth", (1, 2)), self.dimension("kind", ("relu", "swish"))
        self.stem, self.act = elastic.Conv2d(1, width, kernel), elastic.Activation(kind)
        self.stage = elastic.Stage([elastic.Conv2d(width, width) for _ in range(2)], depth)
        self.head = elastic.Linear(width, 3)

    def forward(self, x, arch):
        x = 1.0 * x
        y = self.stem(x, arch)
        if self.where == "images":
            x.add_(1)
        z = self.act(y, arch)
        if self.where == "before":
            y.add_(1)
        z = self.stage(z, arch)
        if self.where == "after":
            F.relu_(z)
        return self.head(z.mean((2, 3)), arch)


@pytest.mark.parametrize("where", ["images", "before", "after"])
def test_what_other_options_are_computed_from_is_not_changed_in_place(where):
    guard.check(seeded(lambda: InPlace("nowhere")))
    with pytest.raises(SpaceError, match="modified by an inplace operation"):
        guard.check(seeded(lambda: InPlace(where)))


def test_the_option_of_all_channels_is_compared_with_its_parts():
    few, many = torch.ones(2, 3, 2), torch.ones(2, 3, 4)
    known = join(few, few)
    known.__dict__["trace"] = Trace(channels=2)
    width = Dimension("width", (2, 4))
    right = vary(few, Options(width, [few, many]))
    wrong = vary(few, Options(width, [few, 2 * many]))
    assert agree(right, known)
    assert not agree(wrong, known)
    assert not agree([right, wrong], [known, known])
    assert right.__dict__["trace"].channels == 2
