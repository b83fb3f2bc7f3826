"""The compiled batch normalization and activation against PyTorch's own in double precision."""

import pytest
import torch
from tests.small import threads
from torch.nn import functional as F

from boundnas import elastic
from boundnas.elastic import native
from boundnas.elastic.normalization import activation_products, batch_moments
from boundnas.randomness import stream
from boundnas.space import Architecture, Dimension, SearchSpace

pytestmark = pytest.mark.skipif(not native.available(), reason="installed without a C compiler")

ARCH = Architecture(SearchSpace([Dimension("unused", (1, 2))]), (0,))
SHAPES = [
    (2, 16, 8, 8),
    (3, 7, 9, 5),
    (9, 33, 1, 1),
    (5, 50, 12, 16),
    (64, 3, 14, 14),
    (70, 1, 3, 3),
]


def layer_of(channels, activation, draw):
    layer = elastic.BatchNorm2d(channels, activation=activation)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(channels, generator=draw))
        layer.bias.copy_(torch.randn(channels, generator=draw))
    return layer


def images_of(shape, draw):
    # Means far from zero, where a careless variance cancels.
    x = torch.randn(shape, generator=draw) + 100 * torch.randn(shape[1], 1, 1, generator=draw)
    return x.contiguous(memory_format=torch.channels_last)


def passes(layer, x, gradient):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x, ARCH)
    return y, *torch.autograd.grad(y, (x, layer.weight, layer.bias), gradient)


@pytest.mark.parametrize("activation", [None, "relu", "swish"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_are_those_of_double_precision(shape, activation):
    draw = stream(0, "batch_norm")
    layer, x = layer_of(shape[1], activation, draw), images_of(shape, draw)
    gradient = torch.randn(shape, generator=draw)
    ours = passes(layer, x, gradient)
    assert native.takes(x)
    assert "_BatchNorm" in type(ours[0].grad_fn).__name__
    exact = passes(layer.double(), x.double(), gradient.double())
    assert not native.takes(x.double())
    for found, expected in zip(ours, exact, strict=True):
        error = (found.double() - expected).norm()
        assert error <= 1e-4 * expected.norm() + 1e-6


@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_threads_share_the_rows_without_changing_the_result(activation):
    draw = stream(1, "batch_norm")
    layer, x = layer_of(40, activation, draw), images_of((16, 40, 15, 15), draw)
    gradient, results = torch.randn(x.shape, generator=draw), []
    for number in (1, 2, 3):
        with threads(number):
            results.append(passes(layer, x, gradient))
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_what_is_not_a_number_stays_visible_behind_an_activation(activation):
    x = images_of((4, 5, 3, 3), stream(2, "batch_norm"))
    x[1, 2, 0, 0] = float("nan")
    y = layer_of(5, activation, stream(3, "batch_norm"))(x, ARCH)
    assert y[:, 2].isnan().all()
    assert y[:, [0, 1, 3, 4]].isfinite().all()


def test_swish_keeps_its_precision_up_to_where_the_exponential_overflows():
    layer = elastic.BatchNorm2d(1, eps=0.0, activation="swish")
    t = torch.linspace(-299.5, 299.5, 600)
    x = ((t - t.mean()) / t.std(correction=0)).view(600, 1, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(t.std(correction=0))
    y, dx, *_ = passes(layer, x, torch.ones_like(x))
    assert y.isfinite().all()
    assert dx.isfinite().all()
    torch.testing.assert_close(y.flatten().double(), F.silu(t.double()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("chosen", [0, 1])
def test_a_searched_activation_sees_the_gradient_of_every_option(chosen, fraction):
    draw = stream(7, "batch_norm")
    function = Dimension("function", ("relu", "swish"), "activation")
    layer, x = layer_of(7, function, draw), images_of((6, 7, 4, 4), draw)
    gradient, found = torch.randn(x.shape, generator=draw), []
    for precision in (torch.float32, torch.float64):
        gate = torch.eye(2, dtype=precision)[chosen].requires_grad_()
        space = SearchSpace([function])
        arch = Architecture(space, (chosen,)).carrying(gates=(gate,), ghost_fraction=fraction)
        y = layer.to(precision)(x.to(precision), arch)
        found.append((y, *torch.autograd.grad(y, (gate, *layer.parameters()), gradient.to(y))))
    assert "_BatchNorm" in type(found[0][0].grad_fn).__name__
    for ours, expected in zip(*found, strict=True):
        assert (ours - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("options", [("relu", "swish"), ("swish", "relu"), ("swish",)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_activations_are_those_of_double_precision(shape, options):
    draw = stream(6, "batch_norm")
    x, c = images_of(shape, draw), shape[1]
    gradient = torch.randn(shape, generator=draw).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, c, generator=draw)
    mean, inverse = x.mean((0, 2, 3)), 1 / (1 + torch.rand(c, generator=draw))
    z = activation_products(x, gradient, (weight, bias, mean, inverse), options, 2.5)

    def of_channels(values):
        return values.double()[:, None, None]

    t = (x - of_channels(mean)) * of_channels(inverse) * of_channels(weight) + of_channels(bias)
    functions = {"relu": F.relu, "swish": F.silu}
    for option, found in zip(options, z, strict=True):
        products = gradient.double() * functions[option](t)
        assert abs(found - 2.5 * products.sum()) <= 1e-5 * products.abs().sum()


def test_a_constant_channel_is_its_shift():
    x = images_of((4, 3, 5, 5), stream(4, "batch_norm"))
    x[:, 1] = 1234.5
    layer = layer_of(3, None, stream(5, "batch_norm"))
    expected = F.batch_norm(x.double(), None, None, training=True)[:, 1] + layer.bias[1]
    torch.testing.assert_close(layer(x, ARCH)[:, 1].double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moments_are_those_of_double_precision(shape):
    x = images_of(shape, stream(0, "moments"))
    mean, var = batch_moments(x)
    exact_var, exact_mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    assert torch.allclose(mean.double(), exact_mean, rtol=1e-6, atol=0)
    assert torch.allclose(var.double(), exact_var, rtol=1e-5, atol=1e-9)
    assert batch_moments(x.contiguous())[1].sub(var).abs().max() < 1e-2  # PyTorch's own path
