"""What a network says of its own gradients is kept, in one piece, or refused by name."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import boundnas as bn
from boundnas.errors import ConvertError


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Network(nn.Module):
    """A body, a function of it, a head; how the first two are called is what a test tries."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.head = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 2))

    def forward(self, x):
        return self.head(self.how(self.body, x))


class Part(nn.Module):
    """A module of its own."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, body, x):
        return self.how(body, x)


def without(body, x):
    with torch.no_grad():
        return body(x)


def switched(body, x):
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    y = body(x)
    torch.set_grad_enabled(before)
    return y


def inferred(body, x):
    with torch.inference_mode():
        y = body(x)
    return y.clone()


def hooked(times):
    def how(body, x):
        y = body(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: times * gradient)
        return y

    return how


def nothing_off(body, x):
    with torch.enable_grad():
        return body(x)


def rounded(body, x):
    y = body(x)
    return y + (y.round() - y).detach()


def off_beside(body, x):
    with torch.no_grad():
        scale = torch.ones(3, 1, 1) * 2
    return body(x * scale)


OFF = "it switches gradients off (torch.no_grad); freeze the weights instead, by requires_grad_(Fal"
REFUSED = {
    "no_grad": (without, OFF),
    "no_grad around all of it": (torch.no_grad()(lambda body, x: body(x)), OFF),
    "set_grad_enabled": (switched, OFF),
    "inference_mode": (inferred, OFF),
    "a gradient of its own": (
        lambda body, x: Reversed.apply(body(x)),
        "Reversed computes a gradient of its own",
    ),
    "a hook of a tensor": (
        hooked(0.8),
        "body.0.bias: the gradient in the largest network is another than in Network",
    ),
    "a hook that turns": (hooked(-1), ": the gradient in the largest network is another than in "),
    "another way without gradients": (
        lambda body, x: body(x) * (2 if torch.is_grad_enabled() else 1),
        "the largest network computes something else",
    ),
}
KEPT = {
    "detached": lambda body, x: body(x).detach(),
    "enable_grad": nothing_off,
    "straight through": rounded,
    "recomputed": lambda body, x: checkpoint(body, x, use_reentrant=False),
    "recomputed, reentrant": lambda body, x: checkpoint(body, x, use_reentrant=True),
    "a constant without gradient": off_beside,
}


def gradients(call, parameters):
    y = call()
    loss = (y * torch.linspace(1, 2, y.numel()).view_as(y)).sum()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def same_gradients(net):
    """Of the largest network and of the one that it was made of."""
    example = torch.zeros(1, 3, 4, 4)
    model = bn.elasticize(net, example, sort=False)
    x = torch.linspace(-1, 1, 96).view(2, 3, 4, 4).requires_grad_()
    net.eval(), model.eval()
    expected = gradients(lambda: net(x), list(net.parameters()))
    found = gradients(lambda: model(x, model.original), list(model.parameters()))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
    return model


@pytest.mark.parametrize("name", REFUSED)
def test_another_gradient_than_that_of_what_is_computed_is_refused_where_it_cannot_be_kept(name):
    how, message = REFUSED[name]
    before = vars(torch.autograd.Function)["apply"], torch.is_grad_enabled
    with torch.random.fork_rng(devices=[]), pytest.raises(ConvertError) as error:
        bn.elasticize(Network(how), torch.zeros(1, 3, 4, 4))
    assert message in str(error.value)
    assert (vars(torch.autograd.Function)["apply"], torch.is_grad_enabled) == before
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("name", KEPT)
def test_what_shows_in_the_calls_keeps_its_gradient(name):
    with torch.random.fork_rng(devices=[]):
        model = same_gradients(Network(KEPT[name]))
    assert "body.0.width" in {d.name for d in model.space.dimensions}


class Frozen(nn.Sequential):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Reversal(nn.Module):
    def forward(self, x):
        return Reversed.apply(x)


IN_ONE_PIECE = {
    "without gradients": (lambda: Frozen(nn.Conv2d(16, 16, 1), nn.ReLU()), "it switches gradients"),
    "a gradient of its own": (Reversal, "Reversed computes a gradient of its own"),
}


@pytest.mark.parametrize("name", IN_ONE_PIECE)
def test_a_module_of_its_own_stays_in_one_piece_with_its_gradient(name):
    build, reason = IN_ONE_PIECE[name]
    with torch.random.fork_rng(devices=[]):
        net = Network(lambda body, x: body(x))
        net.body.append(build())
        model = same_gradients(net)
    (row,) = (row for row in model.report.rows if row.module == "body.3")
    assert row.reason.startswith(f"stays as it is: {reason}")
