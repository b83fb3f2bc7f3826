"""The compiled depthwise convolutions and their weight gradients against PyTorch's own."""

import pytest
import torch
from tests.small import threads
from torch.nn import functional as F

from boundnas.elastic import native
from boundnas.elastic.depthwise import depthwise, depthwise_apart
from boundnas.elastic.window import Window
from boundnas.randomness import stream

SHAPES = [(2, 16, 8, 8), (3, 7, 9, 5), (1, 33, 1, 1), (2, 50, 4, 6), (5, 1, 12, 3)]


def window(kernel, stride):
    return Window((stride, stride), (kernel // 2,) * 2, (1, 1))


def passes(function, shape, stride):
    draw = stream(0, "depthwise")
    x = torch.randn(shape, generator=draw).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape[1], 1, 5, 5, generator=draw)
    x.requires_grad_(), weight.requires_grad_()
    y = function(x, weight, stride)
    y.backward(torch.randn(y.shape, generator=draw))
    return y.detach(), x.grad, weight.grad


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_are_those_of_pytorch(shape, stride):
    ours = passes(lambda x, w, s: depthwise(x, w, None, window(5, s)), shape, stride)
    theirs = passes(lambda x, w, s: F.conv2d(x, w, None, s, 2, groups=len(w)), shape, stride)
    assert torch.equal(ours[0], theirs[0])
    for found, expected in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not native.available(), reason="installed without a C compiler")
def test_the_compiled_kernel_is_used_and_does_not_depend_on_threads(monkeypatch):
    kernel_used = passes(lambda x, w, s: depthwise(x, w, None, window(5, s)), (4, 40, 8, 8), 1)
    with threads(2):
        again = passes(lambda x, w, s: depthwise(x, w, None, window(5, s)), (4, 40, 8, 8), 1)
    assert torch.equal(kernel_used[2], again[2])


@pytest.mark.skipif(not native.available(), reason="installed without a C compiler")
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_convolution_of_few_images_is_that_of_double_precision(
    shape, kernel, stride, number, monkeypatch
):
    draw, called, plain_call = stream(1, "depthwise"), [], native.call
    x = torch.randn(shape, generator=draw).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape[1], 1, kernel, kernel, generator=draw)
    exact = depthwise_apart(x.double(), weight.double(), None, window(kernel, stride))
    monkeypatch.setattr(native, "call", lambda *a: (called.append(a[0]), plain_call(*a)))
    with threads(number):
        y = depthwise_apart(x, weight, None, window(kernel, stride))
    assert called == ["depthwise"]
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_convolution_of_many_images_or_with_a_bias_is_pytorchs():
    draw = stream(2, "depthwise")
    for shape, bias in (((64, 80, 32, 32), None), ((2, 5, 6, 6), torch.randn(5, generator=draw))):
        x = torch.randn(shape, generator=draw).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(shape[1], 1, 3, 3, generator=draw)
        expected = F.conv2d(x, weight, bias, 1, 1, groups=shape[1])
        assert torch.equal(depthwise_apart(x, weight, bias, window(3, 1)), expected)
