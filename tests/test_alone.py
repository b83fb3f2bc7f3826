"""What a network says of a sample follows from that sample alone: how that is found."""

import pytest
import torch
from torch import nn

from boundnas.supernet.alone import is_judged_alone


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def single(x):
    """In single precision only, where it rounds more than a little."""
    assert x.dtype == torch.float32
    return x * (1.05 if len(x) > 1 else 1)


def rounding(x):
    """What comes of a rounding where two numbers lie next to each other."""
    least = torch.finfo(x.dtype).eps
    return x + (1e5 * least if len(x) > 1 else 0)


JUDGED = {  # a function, and whether it judges samples alone
    "itself": (lambda x: x, True),
    "a mean": (lambda x: x - x.mean(0), False),
    "a sum of one feature": (lambda x: torch.cat([x, x[:, 3:].sum(0).expand(len(x), 1)], 1), False),
    "the place": (lambda x: x + torch.arange(len(x))[:, None], False),
    "a little of a mean": (lambda x: x + 0.02 * x.mean(0), False),
    "less than counts": (lambda x: x + 1e-5 * x.mean(0), True),
    "a rounding": (rounding, True),
    "in single precision": (single, True),
    "in single precision, a mean": (lambda x: single(x) + x.float().mean(0), False),
    "several": (lambda x: {"a": x, "b": (x.sin(), [x.cos()])}, True),
    "several, one of them mixed": (lambda x: {"a": x, "b": (x.sin(), [x.cos().cumsum(0)])}, False),
    "a number beside": (lambda x: (x, x.mean()), True),
    "classes": (lambda x: x.argmax(1), True),
    "ranks among samples": (lambda x: x.argsort(0).argsort(0), False),
    "no number at the same place": (lambda x: x.masked_fill(x > 0, float("nan")), True),
    "no number because of others": (lambda x: x.masked_fill(x > x.mean(0), float("nan")), False),
    "infinite": (lambda x: x.masked_fill(x > 0, float("inf")), True),
    "waves": (lambda x: torch.fft.fft(x), True),
    "waves of samples": (lambda x: torch.fft.fft(x, dim=0), False),
    "nothing": (lambda x: (x, x[:, :0]), True),
    "another shape": (lambda x: x[:, : len(x)], False),
    "what it changes itself": (lambda x: x.mul_(2), True),
}  # fmt: skip


@pytest.mark.parametrize(("function", "alone"), JUDGED.values(), ids=JUDGED)
def test_whether_samples_are_judged_alone(function, alone):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    assert is_judged_alone(Function(function), x) is alone
    assert torch.equal(x, before)
