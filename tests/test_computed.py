"""What a forward computes from its own parameters: kept, trained and counted in plain networks."""

import pytest
import torch
from tests.costs import COSTS
from tests.spaces import images, seeded
from torch import nn
from torch.nn import functional as F

from boundnas import Supernet, elastic, extract
from boundnas.errors import ExportError


class Computing(Supernet):
    """Tokens between two layers, on which a function of the table works."""

    def __init__(self, function):
        super().__init__((3, 4, 4))
        self.function = function
        self.conv = elastic.Conv2d(3, 8)
        self.hidden = elastic.Linear(8, self.dimension("width", (2, 4)))
        self.scale, self.table = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(20, 8))
        self.still = nn.Parameter(torch.rand(1), requires_grad=False)
        self.parts = nn.ParameterList([nn.Parameter(torch.randn(8)) for _ in range(2)])
        self.inner, self.unused = nn.Linear(8, 8), nn.Parameter(torch.randn(99))
        self.register_buffer("index", torch.arange(16) % 7)

    def forward(self, x, arch):
        x = self.conv(x, arch).flatten(2).transpose(1, 2)
        return self.hidden(self.inner(self.function(self, x)), arch).tanh()


def written(net, x):
    bias = torch.zeros(8)
    bias[2:6] = net.scale[2:6]
    return x + bias


def written_over(net, x):
    bias = net.scale.clone()
    bias[2:6].zero_()
    bias *= 2
    return x + bias


def written_to_a_part(net, x):
    bias = torch.zeros(8)
    part = bias[2:6]
    part.copy_(net.scale[2:6])
    return x + bias


def own_function(net, x):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, scale):
            return 2 * scale

    return x + Double.apply(net.scale)


COMPUTED = {  # of the parameters that it computes with
    "nothing": (lambda net, x: x, []),
    "as it is": (lambda net, x: x * net.scale, ["scale"]),
    "the same tensor": (lambda net, x: x * net.scale.contiguous(), ["scale"]),
    "reshape": (lambda net, x: x * net.scale.reshape(1, -1), ["scale"]),
    "a table by index": (
        lambda net, x: x + net.table[net.index.view(-1)].view(16, 8).unsqueeze(0), ["table"],
    ),
    "parts and zeros": (
        lambda net, x: x + torch.cat((net.scale[:4], torch.zeros_like(net.scale[4:]))), ["scale"],
    ),
    "operators": (
        lambda net, x: x * net.scale**2 + (1 - net.scale) / net.scale.abs().max(), ["scale"],
    ),
    "a loop": (lambda net, x: x + sum(net.table), ["table"]),
    "transposed, and its data": (lambda net, x: x @ net.table.T @ net.table.data, ["table"]),
    "softmax": (lambda net, x: x * net.scale.softmax(0), ["scale"]),
    "a function of torch.nn": (
        lambda net, x: F.linear(x, F.normalize(net.table[:8], dim=1)), ["table"],
    ),
    "einsum": (
        lambda net, x: x + torch.einsum("ij,j->j", net.table, net.scale), ["scale", "table"],
    ),
    "repeated for the samples": (
        lambda net, x: torch.cat((net.scale.mul(3).expand(x.shape[0], 1, -1), x), 1), ["scale"],
    ),
    "several results": (
        lambda net, x: x + net.table.split(5)[1][0] * net.table.max(0).values, ["table"],
    ),
    "without gradient": (lambda net, x: x * net.still.exp(), ["still"]),
    "a list": (lambda net, x: x * net.parts[1].sigmoid(), ["parts.1"]),
    "in place": (lambda net, x: x + F.relu(net.scale * 1, inplace=True), ["scale"]),
    "written": (written, ["scale"]),
    "written over": (written_over, ["scale"]),
    "a layer's weight too": (lambda net, x: x @ net.inner.weight.T, []),
    "a branch on a value": (
        lambda net, x: x * net.scale if net.scale.detach().sum() < 1e9 else x, ["scale"],
    ),
    "its type and shape": (lambda net, x: x.to(net.table.dtype) / net.table.shape[0], []),
}  # fmt: skip


@pytest.mark.parametrize(("function", "names"), COMPUTED.values(), ids=COMPUTED)
def test_what_is_computed_from_parameters_is_kept_trained_and_counted(function, names):
    model = seeded(lambda: Computing(function)).eval()
    costs = {name: (cost(model), count) for name, (cost, count) in COSTS.items()}
    x, given = images(model, 3), dict(model.named_parameters())
    for arch in (model.space.smallest, model.space.largest):
        net = extract(model, arch)
        assert torch.equal(net(x), model(x, arch))
        held = {n: p for n, p in net.named_parameters() if n.split(".")[0] in NOT_LAYERS}
        assert sorted(held) == names
        model.zero_grad()
        for y in (net(x), model(x, arch)):
            y.square().sum().backward()
        for name, parameter in held.items():
            assert parameter.requires_grad is given[name].requires_grad
            assert parameter.grad is given[name].grad or torch.equal(
                parameter.grad, given[name].grad
            )
        for cost, count in costs.values():
            assert cost(arch) == count(net, x[:1])


NOT_LAYERS = ("scale", "table", "still", "parts", "unused")


class Deciding(Computing):
    """Computes with its scale in some architectures."""

    def __init__(self, function):
        super().__init__(function)
        del self.inner

    def forward(self, x, arch):
        x = self.conv(x, arch).flatten(2).transpose(1, 2)
        if arch[self.space.dimensions[0]] == 4:
            x = x * self.scale.abs()
        return self.hidden(x + self.table[self.index], arch)


def test_a_parameter_counts_where_it_is_computed_with():
    model = seeded(lambda: Deciding(None)).eval()
    x = images(model, 1)
    for cost, count in COSTS.values():
        known = cost(model)
        for arch in (model.space.smallest, model.space.largest):
            assert known(arch) == count(extract(model, arch), x)


REFUSED = {
    "a part of what it made": (written_to_a_part, "writes what it computes from a parameter into"),
    "a function of one's own": (own_function, "hands a parameter to Double"),
}


@pytest.mark.parametrize(("function", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_refused(function, message):
    model = seeded(lambda: Computing(function))
    with pytest.raises(ExportError, match=rf"Computing\.forward cannot .*: it {message}"):
        extract(model, model.space.smallest)
