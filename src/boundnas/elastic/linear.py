"""Elastic fully connected layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.embedding import Embedding
from boundnas.elastic.ghost import gate_weight, ghost_inputs, join, part, split
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.pointwise import input_products
from boundnas.elastic.varied import Varied, sent_back, tapped
from boundnas.elastic.width import active, ghosts_of, membership, others
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Width, check_sizes, largest
from boundnas.space.polynomial import Polynomial, amount


class Linear(ElasticLayer):
    """A linear layer with searchable input and output widths, on the last axis.

    Args:
        in_features: Input features: a number, the dimension of the layer before, or the
            `boundnas.space.Joined` widths of several.
        out_features: Output features.
        bias: Whether to add one.
        tied: A table of vectors whose weight it multiplies by, as the last layer of a language
            model does; it takes the table's features, and gives a number for each row.

    Shape:
        ``(N, ..., active inputs)`` to ``(N, ..., active outputs)``.
    """

    takes = "(N, ..., features)"
    axis, varied = -1, True

    def __init__(
        self,
        in_features: Width,
        out_features: Width,
        bias: bool = True,
        tied: Embedding | None = None,
    ) -> None:
        super().__init__()
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        shape = (largest(out_features), largest(in_features))
        self._tied = tied is not None
        if tied is None:
            self.weight = nn.Parameter(torch.randn(shape) * shape[1] ** -0.5)
        elif (tied.features, tied.number) == (in_features, out_features):
            self.weight = tied.weight
        else:
            raise SpaceError(
                f"Linear: tied to a table of {tied.number} rows it gives as many numbers, and "
                f"takes the table's features; found {out_features} outputs, or other features"
            )
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None

    @property
    def is_tied(self) -> bool:
        """Whether its weight is that of a table of vectors."""
        return self._tied

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Multiply by the active slice; see the class for shapes."""
        if isinstance(x, Varied):
            return self._of_options(x, arch)
        x, ghost = split(x)
        fi = arch.size(self.in_features)
        self.check_width(x, fi)
        rows = active(self.weight, self.out_features, arch)
        # Contiguous: sliced products can differ from those of a plain layer in the last bit.
        weight = active(rows, self.in_features, arch, 1).contiguous()
        gate = arch.gate(self.in_features)
        if gate is not None:
            self.check_ghost(ghost, self.in_features, arch)
            table, ghost_table = membership(self.in_features, arch, x.device)
            weight = gate_weight(weight, gate, table, (1,), arch.masked)
        if not torch.is_grad_enabled():
            # As the weight of a plain layer does; PyTorch chooses by it how to multiply a map
            # with gaps in memory, as one that was transposed.
            weight = weight.detach().requires_grad_()
        bias = None if self.bias is None else active(self.bias, self.out_features, arch)
        y = F.linear(x, weight, bias)
        if gate is not None and ghost is not None:
            of_ghost = others(rows, self.in_features, arch, 1)
            y = ghost_inputs(y, gate, ghost, of_ghost, ghost_table, _row_products)
        return join(y, self._ghost(x, arch))

    def _of_options(self, x: Varied, arch: Architecture) -> Tensor:
        """The same of a map that was normalized over its width, whose gates sit there."""
        self.check_width(x.active, arch.size(self.in_features))
        rows = active(self.weight, self.out_features, arch)
        weight = active(rows, self.in_features, arch, 1).contiguous()
        unchosen = others(rows.detach(), self.in_features, arch, 1)
        bias = None if self.bias is None else active(self.bias, self.out_features, arch)
        inputs, stand_in = tapped(x, arch, -1)
        y = sent_back(
            F.linear(inputs, weight, bias), stand_in, lambda gradient: gradient @ unchosen
        )
        return join(y, self._ghost(x.active, arch))

    def _ghost(self, x: Tensor, arch: Architecture) -> Tensor | None:
        if not ghosts_of(self.out_features, arch):
            return None
        with torch.no_grad():
            rows = others(self.weight, self.out_features, arch)
            bias = None if self.bias is None else others(self.bias, self.out_features, arch)
            weight = active(rows, self.in_features, arch, 1)
            return F.linear(part(x, arch.ghost_fraction), weight, bias)

    def macs(self, positions: int) -> Polynomial:
        """``positions * inputs * outputs``."""
        return positions * amount(self.in_features) * amount(self.out_features)

    def parameter_count(self) -> Polynomial:
        """``outputs * (inputs + bias)``; of a tied one the inputs count with the table."""
        own = amount(0) if self.is_tied else amount(self.in_features)
        return amount(self.out_features) * (own + int(self.bias is not None))

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.Linear`` of the active slice."""
        rows = active(self.weight, self.out_features, arch)
        weight = active(rows, self.in_features, arch, 1)
        (fo, fi), bias = weight.shape, self.bias is not None
        with torch.device("meta"):
            plain = nn.Linear(fi, fo, bias)
        plain.weight = frozen(weight)
        if self.bias is not None:
            plain.bias = frozen(active(self.bias, self.out_features, arch))
        return plain


def _row_products(
    gradient: Tensor, x: Tensor, weight: Tensor, table: Tensor, scale: float
) -> Tensor:
    """As `input_products`, of features on the last axis."""
    return input_products(gradient.flatten(0, -2), x.flatten(0, -2), weight, table, scale)
