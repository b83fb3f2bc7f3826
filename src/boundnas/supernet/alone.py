"""Whether what a network says of a sample follows from that sample alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.nested import Inputs, leaves, mapped

SAME, ROUNDED = 1e-3, 0.1
"""Largest difference of what is the same but for rounding, relative to the largest output; and
where a network computes in no other precision than its own, and that rounds more."""

FOLLOWS = (
    "what a network says of a sample may follow from that sample only: take no means, sums or "
    "products over axis 0"
)


@torch.no_grad()
def is_judged_alone(
    net: nn.Module, inputs: Inputs, call: Callable[[nn.Module, Inputs], Any] = lambda net, x: net(x)
) -> bool:
    """Whether two samples give by themselves what they give beside others.

    Where it seems not so, it is asked again in double precision, if the network computes in that:
    statistics of two samples can lie next to each other, and a normalization by them makes much of
    a rounding. Outputs that have no axis of samples first are not looked at.

    Args:
        net: In evaluation mode.
        inputs: At least two samples.
        call: Calls it with inputs.

    Raises:
        Exception: What its ``forward`` raises, for a single sample or for several.
    """
    apart = _apart(partial(call, net), inputs)
    if apart <= SAME:
        return True
    try:
        exact = copy.deepcopy(net).double()
        return _apart(partial(call, exact), mapped(_double, inputs)) <= SAME
    except Exception:  # a forward may ask for its own precision
        return apart <= ROUNDED


def _apart(call: Callable[[Inputs], Any], inputs: Inputs) -> float:
    """The largest difference, relative to the largest output."""
    together, worst = _tensors(call(mapped(Tensor.clone, inputs))), 0.0
    number = len(next(iter(leaves(inputs)))[1])
    for i in range(2):
        alone = _tensors(call(mapped(partial(one, i), inputs)))
        for y, own in zip(together, alone, strict=True):
            if y.shape[:1] == (number,) and y.numel():
                worst = max(worst, _difference(one(i, y), own, y))
    return worst


def one(i: int, x: Tensor) -> Tensor:
    """A sample of several, as a batch of its own."""
    return x[i : i + 1].clone()


def _difference(expected: Tensor, found: Tensor, all_: Tensor) -> float:
    if expected.shape != found.shape or not torch.equal(expected.isnan(), found.isnan()):
        return float("inf")
    if not expected.is_floating_point() and not expected.is_complex():
        return 0.0 if torch.equal(expected, found) else float("inf")
    scale = float(all_.abs().nan_to_num().max())
    apart = float((expected - found).abs().nan_to_num().max())
    return apart / scale if apart else 0.0


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _tensors(outputs: Any) -> list[Tensor]:
    return [y for _, y in leaves(outputs) if isinstance(y, Tensor)]
