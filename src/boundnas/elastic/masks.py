"""The masked form of layers: every option is computed, and multiplied by its gate.

``y = sum_j z_j y_j`` as it stands, by autograd. One form serves every architecture, which is what a
GPU can record (`boundnas.fit.replay`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from boundnas.elastic.pointwise import inner_product


def masked_weight(weight: Tensor, gate: Tensor, table: Tensor, axes: tuple[int, ...]) -> Tensor:
    """A weight times ``sum_j z_j table_j``, where options have gates.

    Args:
        weight: Of all options.
        gate: Shape ``(d,)``.
        table: Which option contains which entries along ``axes``, shape ``(d, entries)``.
        axes: The axes of ``weight`` that the options range over.
    """
    sizes = [n if axis in axes else 1 for axis, n in enumerate(weight.shape)]
    mask = mask_of(gate, table) + (table.sum(0) == 0)  # those without a gate stay
    return weight * mask.view(sizes)


def mask_of(gate: Tensor, table: Tensor) -> Tensor:
    """``sum_j z_j table_j``, shape ``(entries,)``; no product of matrices, which autocast rounds.

    Args:
        gate: Shape ``(d,)``.
        table: Which option contains which entries, shape ``(d, entries)``.
    """
    return (gate[:, None] * table).sum(0)


class _WeightedSum(torch.autograd.Function):
    """``sum_j z_j y_j`` as it stands."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, *options: Tensor) -> Tensor:
        ctx.save_for_backward(gate, *options)
        first, *rest = zip(gate.to(options[0].dtype).unbind(), options, strict=True)
        y = first[0] * first[1]
        for z, option in rest:
            y.addcmul_(z, option)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gate, *options = ctx.saved_tensors
        products = torch.zeros_like(gate)
        for j, option in enumerate(options):
            inner_product(gradient, option, 1.0, products[j])
        scales = gate.to(gradient.dtype).unbind()
        return products, *(z * gradient for z in scales)


def weighted_sum(gate: Tensor, options: Sequence[Tensor]) -> Tensor:
    """``sum_j z_j y_j`` as it stands, of options that all have a graph.

    Args:
        gate: Shape ``(d,)``.
        options: As many maps, of one shape.
    """
    y: Tensor = _WeightedSum.apply(gate, *options)
    return y


def constant(values: tuple[Any, ...], like: Tensor) -> Tensor:
    """Numbers as a tensor of the type and on the device of another, made once."""
    return _constant(values, like.dtype, like.device)


@cache
def _constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
