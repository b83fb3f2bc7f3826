"""What may stand in ``forward``: each construct is extracted right, or refused by name."""

import math

import numpy as np
import pytest
import torch
from tests.spaces import images, seeded
from torch import nn
from torch.nn import functional as F

from boundnas import Supernet, TrainSettings, calibrate, data, elastic, extract, fit
from boundnas.errors import ExportError
from boundnas.export import export
from boundnas.start import check_forward

SIDE = torch.linspace(-1, 1, 8)
GATE = np.float32(0.5)


class Inner(nn.Module):
    """Plain modules in plain modules, with state of their own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0, 1.5]))
        self.register_buffer("shift", torch.tensor([1.0, 0.0, -1.0]))
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ModuleDict({"a": nn.PReLU()})["a"])

    def forward(self, x):
        return self.layers(x * self.scale[:, None, None] + self.shift[:, None, None])


class Net(Supernet):
    """Layers of every kind, and a ``forward`` that calls what it is given before the head."""

    def __init__(self, before):
        super().__init__((3, 6, 6))
        width = self.dimension("width", (4, 8))
        kernel = self.dimension("kernel", (1, 3), kind="kernel")
        self.before = before
        self.stem, self.conv = elastic.Conv2d(3, 8, kernel), elastic.Conv2d(8, width, 3, bias=True)
        self.norm, self.drop = elastic.BatchNorm2d(width, activation="relu"), elastic.Dropout(0.5)
        self.head = elastic.Linear(width, 5)
        self.same = self.stem
        self.plain, self.inner = nn.Conv2d(3, 3, 1), Inner()
        self.listed = nn.ModuleList([elastic.Conv2d(3, 3, kernel), nn.Conv2d(3, 3, 1)])
        self.named = nn.ModuleDict({"conv": elastic.Conv2d(3, 3, kernel)})
        self.register_buffer("buf", torch.tensor([0.5, -0.5, 0.25]))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.graph, self.meta = nn.Conv2d(3, 3, 1), nn.Parameter(torch.tensor(0.5))
        self.loose, self.factor, self.calls = torch.tensor(1.25), 3, 0

    def forward(self, x, arch):
        x = self.before(self, x, arch)
        x = self.norm(self.conv(self.stem(x, arch), arch), arch)
        return self.head(x.mean((2, 3)), arch)


def flipped(net, x, arch):
    x = x.mean((2, 3), keepdim=True) + x
    if isinstance(x, torch.Tensor):
        return x
    return -x


def swallowed(net, x, arch):
    try:
        return x if x.sum() > 0 else -x
    except Exception:
        return x


def in_place(net, x, arch):
    x -= 0.5
    return x


def counted(net, x, arch):
    net.buf += 1
    return x


def stateful(net, x, arch):
    net.calls += 1
    return x * net.calls


def unpacked(net, x, arch):
    n, c, h, w = x.shape
    return x.reshape(n, c * h, w).reshape(n, c, h, w) / (h * w)


def halved(net, x, arch):
    with torch.autocast("cpu", torch.bfloat16):
        return net.plain(x).float()


def shuffled(net, x, arch):
    for name in ("a", "b"):
        x = x + len(name)
    return torch.cat([x[:, :1], x[:, 1:]], 1)


def doubled(x):
    y = x.clone()
    y.mul_(2)
    return y


def marked(net, x, arch):
    x = x.clone()
    x[:, 0] = 0
    return x


def printed(net, x, arch):
    print(x.shape)
    return x


RIGHT = {
    "nothing": lambda net, x, arch: x,
    "dtype of an elastic weight": lambda net, x, arch: x.to(net.stem.weight.dtype),
    "device of an elastic weight": lambda net, x, arch: x.to(net.stem.weight.device),
    "both of a weight": lambda net, x, arch: x.to(net.stem.weight),
    "type as a weight": lambda net, x, arch: x.type_as(net.conv.weight),
    "sum of an elastic bias": lambda net, x, arch: x + net.head.bias.sum(),
    "part of an elastic weight": lambda net, x, arch: x * net.conv.weight[:3, :1, :1, 0],
    "an elastic weight in a function": lambda net, x, arch: F.conv2d(x, net.listed[0].weight[:3]),
    "an elastic weight as it is": lambda net, x, arch: F.conv2d(
        x, net.listed[0].weight, padding=net.listed[0].weight.shape[-1] // 2
    ),
    "an elastic weight twice": lambda net, x, arch: x * net.head.bias[0] + net.head.bias.mean(),
    "shape of an elastic weight": lambda net, x, arch: x / net.stem.weight.shape[0],
    "a branch on a weight": lambda net, x, arch: x if net.stem.weight.sum() > 0 else -x,
    "a norm's scale": lambda net, x, arch: x * net.norm.weight.amax(),
    "a plain weight": lambda net, x, arch: net.plain(x) + net.plain.weight.sum(),
    "a plain weight only read": lambda net, x, arch: F.conv2d(x, net.plain.weight),
    "a weight deep inside": lambda net, x, arch: net.inner(x) + net.inner.layers[0].bias[0],
    "a parameter of the supernet": lambda net, x, arch: x * net.scale + net.scale,
    "a buffer": lambda net, x, arch: x * net.buf[:, None, None],
    "a function of a buffer": lambda net, x, arch: x * net.buf.exp().view(3, 1, 1),
    "a buffer as it is": lambda net, x, arch: torch.einsum("nchw,c->nchw", x, net.buf),
    "a tensor that is no buffer": lambda net, x, arch: x * net.loose,
    "a tensor of the module": lambda net, x, arch: x * SIDE[:3].view(3, 1, 1) + SIDE[0],
    "a number made a tensor": lambda net, x, arch: x * torch.tensor(1.5),
    "a range": lambda net, x, arch: x + torch.arange(6),
    "ones": lambda net, x, arch: x + torch.ones(3, 1, 1),
    "a list made a tensor": lambda net, x, arch: x + torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]),
    "an array made a tensor": lambda net, x, arch: x + torch.from_numpy(np.arange(6.0)).float(),
    "a number of numpy": lambda net, x, arch: x * np.float64(1.5) + np.float32(2) - np.int64(1),
    "a number of numpy at the left": lambda net, x, arch: float(GATE) * x,
    "a random constant": lambda net, x, arch: x * torch.rand(1, generator=seed()),
    "zeros like": lambda net, x, arch: x + torch.zeros_like(x),
    "a tensor made from a shape": lambda net, x, arch: x + torch.ones(x.shape[1:]),
    "new ones by shape": lambda net, x, arch: x + x.new_ones(x.shape[0], 1, 1, 1),
    "an own mathematical constant": lambda net, x, arch: x * math.sqrt(net.factor),
    "one layer twice": lambda net, x, arch: net.listed[0](net.listed[0](x, arch), arch),
    "a layer of two names": lambda net, x, arch: x + net.same(x, arch).mean(1, keepdim=True),
    "modules in a list": lambda net, x, arch: net.listed[1](net.listed[0](x, arch)),
    "modules in a dict": lambda net, x, arch: net.named["conv"](x, arch),
    "plain modules with state": lambda net, x, arch: net.inner(net.plain(x)),
    "names of a graph's": lambda net, x, arch: net.graph(x) * net.meta,
    "arguments by name": lambda net, x, arch: net.named["conv"](arch=arch, x=x),
    "a layer that does nothing": lambda net, x, arch: net.drop(x, arch),
    "only itself": lambda net, x, arch: net.drop(net.drop(x=x, arch=arch), arch),
    "a branch on arch": lambda net, x, arch: x if arch[net.space.dimensions[0]] == 4 else -x,
    "a mask": lambda net, x, arch: torch.where(x > 0, x, 0.1 * x),
    "shape taken apart": unpacked,
    "a loop and a cat": shuffled,
    "a printed shape": printed,
    "a batch of any size": lambda net, x, arch: x.reshape(x.shape[0], -1).view(x.size(0), 3, 6, 6),
    "an assignment in place of a new tensor": lambda net, x, arch: x.clone().mul_(2).clamp_(-1, 1),
    "a tensor changed in place": lambda net, x, arch: doubled(x),
    "parts by a chunk": lambda net, x, arch: torch.cat(x.chunk(3, 1)[::-1], 1),
    "resized to its own size": lambda net, x, arch: F.interpolate(x[..., ::2, ::2], x.shape[2:]),
    "a leaf of two outputs": lambda net, x, arch: x * x.flatten(1).max(1)[0].view(-1, 1, 1, 1),
}


def seed():
    return torch.Generator().manual_seed(0)


WHERE = r", in .*test_forwards\.py, line \d+: .*"
REFUSED = {
    "a branch on a value": (
        lambda net, x, arch: x if x.sum() > 0 else -x,
        "it branches on the value or shape of a tensor, or loops over one" + WHERE + "x.sum",
    ),
    "a branch on a shape": (lambda net, x, arch: x if x.shape[1] == 3 else -x, WHERE + "shape"),
    "a number of a tensor": (
        lambda net, x, arch: x * float(x.mean()),
        "TypeError: float.*" + WHERE,
    ),
    "a count of images": (lambda net, x, arch: x * len(x), "'len' is not supported.*" + WHERE),
    "a loop over images": (lambda net, x, arch: torch.stack([i for i in x]), WHERE),  # noqa: C416
    "a loop over a size": (
        lambda net, x, arch: sum(x for _ in range(x.shape[1])),
        "TypeError: .*" + WHERE + "range",
    ),
    "an item": (lambda net, x, arch: x[:, : int(x.max())], "TypeError: int.*" + WHERE),
    "an array": (lambda net, x, arch: x + torch.from_numpy(x.numpy()), WHERE + "numpy"),
    "a function of numpy": (
        lambda net, x, arch: torch.tensor(np.abs(x.numpy())),
        WHERE + ".*numpy",
    ),
    "a number of numpy first": (lambda net, x, arch: GATE * x, "ValueError.*" + WHERE + ".*GATE"),
    "a tensor made from sizes": (lambda net, x, arch: x + torch.ones(x.shape[0], 1, 1, 1), WHERE),
    "a tensor made from a tensor": (lambda net, x, arch: x * torch.tensor([x.mean()]), WHERE),
    "a formatted tensor": (lambda net, x, arch: x if f"{x.mean():.2f}" else -x, WHERE),
    "an assignment into a tensor": (marked, "item assignment" + WHERE + "x.:, 0. = 0"),
    "an error that is caught": (swallowed, "it catches the error of a branch.*" + WHERE),
    "a type that is asked for": (flipped, "follows another way while it is traced"),
    "a context": (halved, "differ by .*autocast"),
    "noise like the images": (
        lambda net, x, arch: x + torch.rand_like(x),
        "differ by .* draws random numbers",
    ),
    "noise of a constant shape": (
        lambda net, x, arch: x + torch.randn(6),
        "differ by .* draws random numbers",
    ),
    "dropout of a function's": (lambda net, x, arch: F.dropout(x, 0.5), "draws random numbers"),
    "a state": (stateful, "keeps a state"),
    "a buffer that is changed": (counted, "changes buf of the model"),
    "images that are changed": (in_place, "changes its images in place"),
    "a layer's forward called": (
        lambda net, x, arch: net.named["conv"].forward(x, arch),
        WHERE + "forward",
    ),
    "a layer at another architecture": (
        lambda net, x, arch: net.named["conv"](x, net.space.smallest),
        "differ by",
    ),
}


def calibrated(model, arch):
    with torch.random.fork_rng(devices=[]):
        return calibrate(model, arch, [images(model, 6, seed=1)])


@pytest.mark.parametrize("name", RIGHT)
def test_a_construct_is_extracted_right(name, capsys):
    model = seeded(lambda: Net(RIGHT[name])).eval()
    for arch in (model.space.smallest, model.space.largest):
        arch = calibrated(model, arch)
        net = extract(model, arch)
        for number in (1, 2, 7):
            x = images(model, number)
            with torch.no_grad():
                expected = model(x, arch)
                assert torch.equal(net(x), expected)
            assert expected.shape == (number, 5)
        assert net.stem.weight.shape[-1] == arch.indices[1] * 2 + 1


@pytest.mark.parametrize("name", REFUSED)
def test_a_construct_is_refused_by_name(name):
    before, message = REFUSED[name]
    model = seeded(lambda: Net(before)).eval()
    arch = calibrated(model, model.space.largest)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ExportError, match=message):
        extract(model, arch)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "name",
    [
        "dtype of an elastic weight",
        "device of an elastic weight",
        "sum of an elastic bias",
        "a range",
        "a number of numpy",
        "a buffer as it is",
        "shape taken apart",
        "names of a graph's",
    ],
)
def test_a_construct_is_right_in_a_file(name, tmp_path):
    model = seeded(lambda: Net(RIGHT[name])).eval()
    arch = calibrated(model, model.space.smallest)
    export(extract(model, arch), tmp_path / "net.onnx")


@pytest.mark.parametrize("name", REFUSED)
def test_a_construct_that_cannot_be_extracted_is_refused_before_training(name):
    before, message = REFUSED[name]
    model = seeded(lambda: Net(before))
    state = model.state_dict()
    held = {key: value.clone() for key, value in state.items()}
    with torch.random.fork_rng(devices=[]), pytest.raises(ExportError, match=message):
        check_forward(model)
    assert all(module.training for module in model.modules())
    assert name in CHANGE_BUFFERS or all(torch.equal(v, held[k]) for k, v in state.items())


CHANGE_BUFFERS = ("a buffer that is changed",)  # in every pass, calibration's too


@pytest.mark.parametrize("name", RIGHT)
def test_a_construct_that_is_extracted_right_may_be_trained(name):
    with torch.random.fork_rng(devices=[]):
        check_forward(seeded(lambda: Net(RIGHT[name])))


@pytest.mark.parametrize("option", range(2))
@pytest.mark.parametrize("dimension", range(2))
def test_every_option_of_every_dimension_is_followed_before_training(dimension, option):
    def hidden(net, x, arch):
        return x if arch.indices[dimension] != option or x.sum() > 0 else -x

    with pytest.raises(ExportError, match=WHERE + r"x\.sum"):
        check_forward(seeded(lambda: Net(hidden)))


class Digits(Supernet):
    def __init__(self):
        super().__init__((1, 8, 8))
        width = self.dimension("width", (2, 4))
        self.conv, self.head = elastic.Conv2d(1, width), elastic.Linear(width, 10)

    def forward(self, x, arch):
        x = x if x.sum() > 0 else -x
        return self.head(self.conv(x, arch).mean((2, 3)), arch)


def test_training_starts_with_the_check():
    model = seeded(Digits)
    with pytest.raises(ExportError, match=r"Digits\.forward.*" + WHERE + r"x\.sum"):
        fit(model, data.digits(), cost_range=(1, 1e6), settings=TrainSettings(steps=1))
