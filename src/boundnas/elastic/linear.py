"""Elastic fully connected layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import (
    gate_weight,
    ghost_inputs,
    ghosts_of,
    join,
    membership,
    part,
    split,
)
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.pointwise import input_products
from boundnas.space import Architecture, Setting, check_sizes, largest
from boundnas.space.polynomial import Polynomial, amount


class Linear(ElasticLayer):
    """A linear layer with searchable input and output widths.

    Args:
        in_features: Input features: a number, or the dimension of the layer before.
        out_features: Output features.
        bias: Whether to add one.

    Shape:
        ``(N, active inputs)`` to ``(N, active outputs)``.
    """

    takes = "(N, features)"

    def __init__(self, in_features: Setting, out_features: Setting, bias: bool = True) -> None:
        super().__init__()
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        shape = (largest(out_features), largest(in_features))
        self.weight = nn.Parameter(torch.randn(shape) * shape[1] ** -0.5)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Multiply by the active slice; see the class for shapes."""
        fi, fo = arch.size(self.in_features), arch.size(self.out_features)
        x, ghost = split(x)
        self.check_width(x, fi)
        # Contiguous: sliced products can differ from those of a plain layer in the last bit.
        active = self.weight[:fo, :fi].contiguous()
        gate = arch.gate(self.in_features)
        if gate is not None:
            self.check_ghost(ghost, self.in_features, fi)
            table, ghost_table = membership(self.in_features, fi, x.device)
            active = gate_weight(active, gate, table, (1,))
        y = F.linear(x, active, None if self.bias is None else self.bias[:fo])
        if gate is not None and ghost is not None:
            weight = self.weight[:fo, fi:]
            y = ghost_inputs(y, gate, ghost, weight, ghost_table, input_products)
        return join(y, self._ghost(x, self.weight[fo:, :fi], fo, arch))

    def _ghost(self, x: Tensor, weight: Tensor, fo: int, arch: Architecture) -> Tensor | None:
        if not ghosts_of(self.out_features, arch.gate(self.out_features), fo):
            return None
        with torch.no_grad():
            bias = None if self.bias is None else self.bias[fo:]
            return F.linear(part(x, arch.ghost_fraction), weight, bias)

    def macs(self, positions: int) -> Polynomial:
        """``positions * inputs * outputs``."""
        return positions * amount(self.in_features) * amount(self.out_features)

    def parameter_count(self) -> Polynomial:
        """``outputs * (inputs + bias)``."""
        return amount(self.out_features) * (amount(self.in_features) + int(self.bias is not None))

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.Linear`` of the active slice."""
        fi, fo = arch.size(self.in_features), arch.size(self.out_features)
        with torch.device("meta"):
            plain = nn.Linear(fi, fo, bias=self.bias is not None)
        plain.weight = frozen(self.weight[:fo, :fi])
        if self.bias is not None:
            plain.bias = frozen(self.bias[:fo])
        return plain
