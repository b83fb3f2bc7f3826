"""Channels in the order of their importance, so that the leading ones of a group count most."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor, nn

from boundnas.convert.axes import Axis, Group
from boundnas.convert.facts import Binding, Read


def orders(read: Read, groups: list[Group]) -> dict[Group, Tensor]:
    """For each group its channels, the most important first.

    A channel counts as much as the weights that make it, by their L1 norm, summed over the layers
    that do. Channels of one unit stay together, in their order.
    """
    norms = {group: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    for binding in read.bindings.values():
        _add(norms, binding)
    return {group: _sorted(norm, group.unit) for group, norm in norms.items()}


def _add(norms: Mapping[Group, Tensor], binding: Binding) -> None:
    axis, weight = binding.outputs, getattr(binding.module, "weight", None)
    if isinstance(binding.module, nn.RNNBase):
        weight = _of_states(binding.module)
    if axis is None or axis is binding.inputs or not isinstance(weight, Tensor):
        return
    made = weight.detach().double().cpu().abs()
    if isinstance(binding.module, _COLUMNS):
        made = made.transpose(0, 1)
    rows = made.flatten(1).sum(1)
    at = 0
    for segment in axis.segments:
        if segment.group.root in norms:
            part = rows[at : at + segment.size].reshape(segment.group.size, -1).sum(1)
            norms[segment.group.root] += part
        at += segment.size


def _of_states(module: nn.RNNBase) -> Tensor:
    """What makes each state of a recurrent layer, one direction after another."""
    names = ("weight_ih_l0", "weight_ih_l0_reverse")[: 1 + module.bidirectional]
    each = (getattr(module, name).detach().unflatten(0, (-1, module.hidden_size)) for name in names)
    return torch.cat([weight.abs().sum(0) for weight in each])


_COLUMNS = (nn.Embedding, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose output channels lie on the second axis of their weights."""


def _sorted(norm: Tensor, unit: int) -> Tensor:
    units = norm.reshape(-1, unit).sum(1).argsort(descending=True, stable=True)
    return (units[:, None] * unit + torch.arange(unit)).flatten()


def along(axis: Axis | None, orders: Mapping[Group, Tensor]) -> Tensor | None:
    """The order of the entries of an axis; none where it is as it was."""
    if axis is None or not any(group in orders for group in axis.groups):
        return None
    found, at = [], 0
    for segment in axis.segments:
        order = orders.get(segment.group, torch.arange(segment.group.size))
        found.append(_entries(order, segment.factor) + at)
        at += segment.size
    return torch.cat(found)


def _entries(order: Tensor, factor: Fraction) -> Tensor:
    """The order of so many entries for each channel, or for so many channels."""
    wholes, times = order[:: factor.denominator] // factor.denominator, factor.numerator
    return (wholes[:, None] * times + torch.arange(times)).flatten()
