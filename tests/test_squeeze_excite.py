"""The compiled gradients of squeeze-and-excite against PyTorch's own in double precision."""

import pytest
import torch
from tests.small import threads
from tests.spaces import seeded

from boundnas import Architecture, Dimension, SearchSpace, elastic
from boundnas.elastic import native
from boundnas.elastic.squeeze_excite import scale_gradients
from boundnas.randomness import stream

pytestmark = pytest.mark.skipif(not native.available(), reason="installed without a C compiler")

ARCH = Architecture(SearchSpace([Dimension("unused", (1, 2))]), (0,))
SHAPES = [(1, 1, 1, 1), (2, 7, 5, 3), (3, 16, 8, 8), (5, 33, 9, 9), (4, 130, 12, 12)]


def case_of(shape):
    draw = stream(0, "squeeze-excite")
    x, gradient = torch.randn(2, *shape, generator=draw)
    x = x.contiguous(memory_format=torch.channels_last)
    return x, torch.rand(shape[:2], generator=draw), gradient


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_scaling_are_those_of_double_precision(shape, number):
    x, scale, gradient = case_of(shape)
    with threads(number):
        dx, dscale = scale_gradients(x, scale, gradient)
    assert dx.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(dx, gradient * scale[:, :, None, None])
    products = gradient.double() * x.double()
    error = (dscale - products.sum((2, 3))).abs()
    assert (error <= 1e-6 * products.abs().sum((2, 3))).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_equals_evaluation_and_its_gradients_by_autograd(shape):
    layer = seeded(lambda: elastic.SqueezeExcite(shape[1]))
    x, _, gradient = case_of(shape)

    def passes(x, layer):
        x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(x, ARCH)
        return y, torch.autograd.grad(y, (x, *layer.parameters()), gradient.to(x))

    y, found = passes(x, layer)
    assert torch.equal(y, layer.eval()(x, ARCH))
    exact_y, exact = passes(x.double(), layer.double())
    for ours, expected in zip((y, *found), (exact_y, *exact), strict=True):
        assert (ours - expected).norm() <= 1e-5 * expected.norm() + 1e-6


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("chosen", [0, 1])
def test_a_searched_switch_sees_the_gradient_of_both_options(chosen, fraction):
    enabled = Dimension("se", (False, True), "se")
    layer, found = seeded(lambda: elastic.SqueezeExcite(16, enabled)), []
    x, _, gradient = case_of((6, 16, 8, 8))
    for precision in (torch.float32, torch.float64):
        gate = torch.eye(2, dtype=precision)[chosen].requires_grad_()
        space = SearchSpace([enabled])
        arch = Architecture(space, (chosen,)).carrying(gates=(gate,), ghost_fraction=fraction)
        y = layer.to(precision)(x.to(precision), arch)
        found.append((y, *torch.autograd.grad(y, gate, gradient.to(y))))
    for ours, expected in zip(*found, strict=True):
        assert (ours - expected).norm() <= 1e-5 * expected.norm()
    # By definition, on the part of the batch that serves what was not chosen.
    shared = max(2, round(6 * fraction + 0.4))
    scaled = layer.eval()(x.double(), Architecture(space, (1,)))
    by_hand = [(gradient * y)[:shared].sum() * (6 / shared) for y in (x.double(), scaled)]
    torch.testing.assert_close(found[1][1], torch.stack(by_hand))
