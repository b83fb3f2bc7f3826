"""1x1 convolutions with a stride never reach oneDNN's weight gradient of them."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tests.oracle import masked
from tests.small import few_digits
from tests.spaces import images, seeded
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from boundnas import Supernet, TrainSettings, elastic, elasticize, fit
from boundnas.data import InMemory
from boundnas.data.image_data import SPLITS
from boundnas.elastic.strided import spared, strided
from boundnas.elastic.window import Window
from boundnas.method.sandwich import Sandwich
from boundnas.randomness import stream


class Convolutions(TorchDispatchMode):
    """Keeps which convolutions are differentiated: size of the kernel, stride."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "convolution_backward" in str(func) and args[10][1]:
            self.seen.append((args[2].shape[-1], max(args[4])))
        return func(*args, **(kwargs or {}))


class Shortcuts(Supernet):
    """Every layer that may come to be of one pixel with a stride."""

    def __init__(self, kernels=(1, 3), stride=2, bias=True, depthwise=True):
        super().__init__((2, 9, 9))
        width, kernel = self.dimension("width", (2, 4, 6)), self.dimension("kernel", kernels, "k")
        self.stem = elastic.Conv2d(2, width, 3, bias=True)
        self.short = elastic.Conv2d(width, width, 1, stride, bias=bias)
        self.searched = elastic.Conv2d(width, width, kernel, stride)
        self.deep = elastic.DepthwiseConv2d(width, kernel, stride, bias=bias) if depthwise else None
        self.deep1 = elastic.DepthwiseConv2d(width, 1, stride) if depthwise else None
        self.head = elastic.Linear(width, 3)

    def forward(self, x, arch):
        x = self.stem(x, arch).contiguous(memory_format=torch.channels_last)
        y = self.short(x, arch) + self.searched(x, arch)
        if self.deep is not None:
            y = y + self.deep(x, arch) + self.deep1(x, arch)
        return self.head(F.silu(y).mean((2, 3)), arch)


def relaxed(model, arch, fraction=1.0):
    weight = next(model.parameters())
    gates = tuple(
        F.one_hot(torch.tensor(i), len(d)).to(weight).requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    return arch.plain.carrying(gates=gates, ghost_fraction=fraction)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [2, 3, (1, 2)])
def test_no_weight_gradient_of_one_pixel_with_a_stride_is_asked_for(stride, training):
    model = seeded(lambda: Shortcuts(stride=stride)).train(training)
    x = images(model, 6).contiguous(memory_format=torch.channels_last)
    space = model.space
    archs = [space.smallest, space.largest, space.sample(stream(0, "one"))]
    with Convolutions() as mode:
        for arch in [*archs, *(relaxed(model, a, f) for a in archs for f in (1.0, 0.5))]:
            model(x, arch).square().sum().backward()
    assert (3, stride if isinstance(stride, int) else 2) in mode.seen
    assert (1, 1) in mode.seen
    assert not [(k, s) for k, s in mode.seen if k == 1 and s > 1]


@pytest.mark.parametrize("stride", [2, 3])
def test_the_gradients_are_those_of_the_masked_pass(stride):
    model = seeded(lambda: Shortcuts(stride=stride)).double()
    x = images(model, 4)
    for seed in range(6):
        arch = model.space.sample(stream(seed, "architecture"))
        found = gradients(model, x, arch)
        with masked(model):
            expected = gradients(model, x, arch)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def gradients(model, x, arch):
    arch = relaxed(model, arch)
    loss = model(x, arch).square().sum()
    weights = list(model.parameters())
    found = torch.autograd.grad(loss, [*arch.gates, *weights], materialize_grads=True)
    return list(found)


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_values_are_those_of_the_plain_convolution_bit_for_bit(kernel, stride, groups):
    draw = stream(0, "strided")
    x = torch.randn(4, 6, 9, 7, generator=draw).contiguous(memory_format=torch.channels_last)
    weight, bias = (
        torch.randn(6, 6 // groups, kernel, kernel, generator=draw),
        torch.randn(6, generator=draw),
    )
    inputs = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = strided(*inputs, Window((stride, stride), (kernel // 2,) * 2, (1, 1)), groups)
    exact = [t.double().clone().requires_grad_() for t in (x, weight, bias)]
    z = F.conv2d(*exact, stride, kernel // 2, groups=groups)
    assert torch.equal(y, F.conv2d(x, weight, bias, stride, kernel // 2, groups=groups))
    found = torch.autograd.grad(y.square().sum(), inputs)
    expected = torch.autograd.grad(z.square().sum(), exact)
    torch.testing.assert_close([f.double() for f in found], list(expected), rtol=1e-4, atol=1e-3)


class Opaque(nn.Module):
    """Cannot be followed, and is one piece of an elastic network."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        assert not x.isnan().any()
        return self.layer(x)


class PerSample(nn.Module):
    """Calls its layer without the batch axis."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return torch.stack([self.layer(one) for one in x.unbind()])


class Around(Supernet):
    """Plain layers between elastic ones."""

    def __init__(self, plain):
        super().__init__((2, 7, 7))
        width = self.dimension("width", (3, 5))
        self.stem, self.plain = elastic.Conv2d(2, 4, 3), plain
        self.neck, self.head = elastic.Conv2d(4, width, 3), elastic.Linear(width, 10)

    def forward(self, x, arch):
        x = self.plain(self.stem(x, arch).contiguous(memory_format=torch.channels_last))
        return self.head(self.neck(x, arch).relu().mean((2, 3)), arch)


def elasticized(layer):
    parts = [nn.Conv2d(2, 4, 3), Opaque(layer), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1)]
    net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(6, 10))
    return elasticize(net, torch.zeros(1, 2, 7, 7))


def kept(layer):
    parts = [nn.Conv2d(2, 4, 3), layer, nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1)]
    net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(6, 10))
    return elasticize(net, torch.zeros(1, 2, 7, 7), rules={"0.width": None, "1.width": None})


PLAIN = {
    "between elastic layers": lambda: Around(nn.Conv2d(4, 4, 1, 2)),
    "with a border": lambda: Around(nn.Conv2d(4, 4, 1, 3, padding=1, padding_mode="reflect")),
    "without one": lambda: Around(nn.Conv2d(4, 4, 1, 2, padding="valid", bias=False)),
    "of groups": lambda: Around(nn.Conv2d(4, 4, 1, (1, 2), groups=2)),
    "in a module of one piece": lambda: elasticized(nn.Conv2d(4, 4, 1, 2)),
    "that stays by a rule": lambda: kept(nn.Conv2d(4, 4, 1, 2)),
    "of single samples": lambda: Around(PerSample(nn.Conv2d(4, 4, 1, 2))),
}  # fmt: skip
"""Layers that are no elastic ones, by where they are."""


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # said when oneDNN is switched off
@pytest.mark.parametrize("name", PLAIN)
def test_training_spares_plain_layers_too_and_leaves_them_as_they_were(name):
    model, x = seeded(PLAIN[name]), torch.randn(5, 2, 7, 7, generator=stream(0, "x"))
    with Convolutions() as plain:  # by oneDNN they corrupt memory, which kills the process
        expected = plain_gradients(model, x, by_onednn=False)
    with Convolutions() as mode, spared(model):
        found = plain_gradients(model, x)
    assert any(k == 1 and s > 1 for k, s in plain.seen)
    assert not any(k == 1 and s > 1 for k, s in mode.seen)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found, expected)
    assert not any("_conv_forward" in vars(module) for module in model.modules())


def plain_gradients(model, x, by_onednn=True):
    x = x.contiguous(memory_format=torch.channels_last)
    y = model(x, model.space.largest)
    weights = [p for p in model.parameters() if p.requires_grad]
    with torch.backends.mkldnn.flags(enabled=by_onednn):
        return [y.detach(), *torch.autograd.grad(y.square().sum(), weights)]


def test_steps_of_a_run_are_spared(monkeypatch):
    steps = []

    def noted(self, *given, step=Sandwich.step):
        with Convolutions() as mode:
            scalars = step(self, *given)
        steps.append(mode.seen)
        return scalars

    monkeypatch.setattr(Sandwich, "step", noted)
    model = seeded(PLAIN["between elastic layers"])
    images, labels = torch.zeros(40, 2, 7, 7, dtype=torch.uint8), torch.arange(40) % 10
    data = replace(few_digits(), **dict.fromkeys(SPLITS, InMemory(images, labels)),
                   shape=(2, 7, 7), mean=(0.5, 0.5), std=(1.0, 1.0), padding=0)  # fmt: skip
    fit(model, data, cost_range=(1, 1e9), settings=TrainSettings(steps=2, batch_size=8))
    assert len(steps) == 2
    assert not any(k == 1 and s > 1 for seen in steps for k, s in seen)


def test_a_bias_or_an_input_that_needs_no_gradient_gets_none():
    x, weight = (
        torch.randn(2, 4, 6, 6, generator=stream(0, "x")),
        nn.Parameter(torch.ones(4, 4, 1, 1)),
    )
    where = Window((2, 2), (0, 0), (1, 1))
    strided(x, weight, None, where, 1).sum().backward()
    expected = x[..., ::2, ::2].sum((0, 2, 3)).expand(4, 4)[..., None, None]
    torch.testing.assert_close(weight.grad, expected)
    weight.requires_grad_(False)
    assert (
        strided(x.requires_grad_(), weight, None, where, 1).grad_fn.name() == "ConvolutionBackward0"
    )


CHILD = """
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
import boundnas as bn
from boundnas import elastic

class Net(bn.Supernet):
    def __init__(self):
        super().__init__((1, 8, 8))
        w = self.dimension("width", [4, 6])
        self.a, self.b = elastic.Conv2d(1, w, 3), elastic.Conv2d(w, 8, 1, stride=2)
        self.head = elastic.Linear(8, 10)

    def forward(self, x, arch):
        return self.head(self.b(self.a(x, arch), arch).relu().mean((2, 3)), arch)

def gradients(net, x, labels, arch):
    loss = torch.nn.functional.cross_entropy(net(x, arch), labels)
    return torch.autograd.grad(loss, list(net.parameters()))

data = bn.data.digits()
net = bn.fit(Net(), data, cost_range=(1e3, 1e6), settings=bn.TrainSettings(steps=50)).model
images, labels = data.train.take(torch.arange(64))
x = bn.data.normalize(images, data.mean, data.std).contiguous(memory_format=torch.channels_last)
for arch in (net.space.smallest, net.space.largest):
    found = gradients(net.float(), x, labels, arch)
    expected = gradients(net.double(), x.double(), labels, arch)
    for f, e in zip(found, expected, strict=True):
        assert (f - e).norm() <= 1e-5 * e.norm() + 1e-9, (f, e)
print("right")
"""


@pytest.mark.parametrize("instructions", ["AVX2", "ALL"])
def test_training_a_shortcut_survives_on_every_machine(instructions, full):
    if instructions == "ALL" and not full:
        pytest.skip("the machine's own instructions, in the full profile")
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "right\n"), run.stderr[-2000:]
