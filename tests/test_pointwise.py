"""The compiled products of ghosts and gates against the same sums in double precision."""

import pytest
import torch
from tests.small import threads
from tests.spaces import SPACES, images, supernet
from torch.nn import functional as F

from boundnas.elastic import convolution, ghost, linear, native
from boundnas.elastic.pointwise import (
    inner_product,
    input_products,
    pointwise,
    weight_products,
)
from boundnas.method.policy import BOUNDARIES, initial_policy
from boundnas.randomness import stream

pytestmark = pytest.mark.skipif(not native.available(), reason="installed without a C compiler")

# Batch, outputs, inputs, height, width: fewer and more channels than a vector has, rows that are
# no multiple of a tile, weights that stay in the cache and that do not, work for several threads.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 1, 2),
    (3, 7, 16, 5, 3),
    (2, 16, 7, 4, 4),
    (5, 9, 50, 7, 5),
    (2, 33, 17, 20, 11),
    (4, 130, 200, 6, 6),
]


def case_of(shape, options=3):
    """Gradient, input, a slice of a larger weight, and a slice of a larger table."""
    n, co, ci, h, w = shape
    draw = stream(0, "pointwise")

    def image(channels):
        x = torch.randn(n, channels, h, w, generator=draw)
        return x.contiguous(memory_format=torch.channels_last)

    weight = torch.randn(co + 2, ci + 3, 1, 1, generator=draw)[2:, 3:]
    table = (torch.rand(options, ci + 4, generator=draw) < 0.5).float()[:, 4:]
    return image(co), image(ci), weight, table


def assert_near(found, exact, scale=None):
    assert found.dtype == torch.float32
    error = (found.double() - exact).norm()
    assert error <= 1e-6 * (exact.norm() if scale is None else scale) + 1e-5


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_convolution_is_that_of_double_precision(shape, number):
    _, x, weight, _ = case_of(shape)
    with threads(number):
        y = pointwise(x, weight)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_near(y, F.conv2d(x.double(), weight.double()))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_inputs_are_those_of_double_precision(shape, number):
    gradient, x, weight, table = case_of(shape)
    exact = input_products(*(t.double() for t in case_of(shape)), 2.5)
    assert native.takes(x)
    with threads(number):
        found = input_products(gradient, x, weight, table, 2.5)
    assert_near(found, exact)
    by_hand = torch.einsum("ji,nihw,nohw,oi->j", table, x, gradient, weight[:, :, 0, 0])
    torch.testing.assert_close(exact.float(), 2.5 * by_hand, rtol=1e-3, atol=1e-2)


def test_products_of_rows_are_those_of_maps():
    gradient, x, weight, table = case_of((6, 5, 20, 1, 1))
    rows = input_products(
        gradient[:, :, 0, 0].contiguous(),
        x[:, :, 0, 0].contiguous(),
        weight[:, :, 0, 0],
        table,
        1.0,
    )
    assert torch.equal(rows, input_products(gradient, x, weight, table, 1.0))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_weights_are_those_of_double_precision(shape, number):
    _, _, weight, table = case_of(shape)
    weight = weight.contiguous()
    gradient = torch.randn(weight.shape, generator=stream(1, "pointwise"))
    exact = weight_products(weight.double(), gradient.double(), table, (1,))
    with threads(number):
        assert_near(weight_products(weight, gradient, table, (1,)), exact)


def test_options_of_a_kernel_range_over_its_taps():
    draw = stream(2, "pointwise")
    weight, gradient = torch.randn(2, 70, 1, 5, 5, generator=draw)
    table = (torch.rand(2, 25, generator=draw) < 0.5).float()
    exact = weight_products(weight.double(), gradient.double(), table, (2, 3))
    by_hand = table.double() @ (weight * gradient).sum((0, 1)).flatten().double()
    torch.testing.assert_close(exact, by_hand, rtol=1e-4, atol=1e-4)
    assert_near(weight_products(weight, gradient, table, (2, 3)), exact)


def test_options_of_rows_are_not_taken_for_those_of_columns():
    weight, gradient = torch.randn(2, 6, 6, 1, 1, generator=stream(3, "pointwise"))
    table = (torch.rand(3, 6, generator=stream(4, "pointwise")) < 0.5).float()
    found = weight_products(weight, gradient, table, (0,))
    torch.testing.assert_close(found, table @ (weight * gradient).sum((1, 2, 3)))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_inner_product_is_that_of_double_precision(shape, number):
    gradient, y, *_ = case_of((shape[0], shape[1], shape[1], 5 * shape[3], 7 * shape[4]))
    z = torch.zeros(3)
    with threads(number):
        inner_product(gradient, y, 0.5, z[1])
    assert z[0] == z[2] == 0
    exact = 0.5 * (gradient.double() * y.double()).sum()
    assert_near(z[1], exact, scale=gradient.norm() * y.norm())


def test_what_is_not_a_number_stays_visible():
    gradient, x, weight, _ = case_of((3, 7, 20, 5, 3))
    x[1, 4, 2, 1] = float("nan")
    assert input_products(gradient, x, weight, torch.ones(1, 20), 1.0).isnan().all()
    expected = F.conv2d(x, weight).isnan()
    assert torch.equal(pointwise(x, weight).isnan(), expected)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", SPACES)
def test_every_product_of_a_pass_is_that_of_double_precision(name, boundary, monkeypatch):
    called = set()

    def compare(found, function, tensors, *rest):
        """To what the same sum comes to in double precision, beside that of all magnitudes."""
        doubles = [t.double() for t in tensors]
        exact, size = function(*doubles, *rest), function(*(t.abs() for t in doubles), *rest)
        assert ((found.double() - exact).abs() <= 1e-6 * size + 1e-30).all()

    def checked_pointwise(x, weight):
        found = pointwise(x, weight)
        compare(found, F.conv2d, (x, weight))
        return found

    def checked_inputs(gradient, x, weight, table, scale):
        found = input_products(gradient, x, weight, table, scale)
        compare(found, input_products, (gradient, x, weight), table, scale)
        return found

    def checked_weights(weight, gradient, table, axes):
        found = weight_products(weight, gradient, table, axes)
        compare(found, weight_products, (weight, gradient), table, axes)
        return found

    def checked_inner(gradient, y, scale, z):
        inner_product(gradient, y, scale, z)
        compare(z, lambda a, b: (a * b).sum() * scale, (gradient, y))

    def call(function, *arguments):
        called.add(function)
        return plain_call(function, *arguments)

    plain_call = native.call
    monkeypatch.setattr(native, "call", call)
    monkeypatch.setattr(convolution, "pointwise", checked_pointwise)
    monkeypatch.setattr(convolution, "input_products", checked_inputs)
    monkeypatch.setattr(linear, "input_products", checked_inputs)
    monkeypatch.setattr(ghost, "weight_products", checked_weights)
    monkeypatch.setattr(ghost, "inner_product", checked_inner)
    model = supernet(name)
    arch = initial_policy(model.space, boundary, stream(0, "start")).sample(stream(0, "gumbel"))
    x = images(model, 6)
    x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    model(x, arch).square().sum().backward()
    expected = {"weight_products"}
    if name not in ("tokens", "convnext"):  # where what is not chosen depends on the draw
        expected.add("input_products")
    images_alone = name not in ("resnet1d", "tokens", "vit")  # other maps have gaps in memory
    if images_alone and name not in ("own_network", "sample_wise", "resnet", "convnext"):
        expected.add("pointwise")  # those have biases, taps or strides
    if images_alone and name != "width_only":
        expected.add("inner_product")
    assert expected <= called
