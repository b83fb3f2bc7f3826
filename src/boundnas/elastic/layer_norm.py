"""Layer and RMS normalization over a searched width."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import Ghosted, alone, part
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.masks import mask_of
from boundnas.elastic.normalization import check_eps
from boundnas.elastic.varied import Options, Varied, vary
from boundnas.elastic.width import membership
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Joined, Setting, check_sizes, largest
from boundnas.space.dimensions import choices
from boundnas.space.polynomial import Polynomial, amount


class LayerNorm(ElasticLayer):
    """Normalize the features of every token: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Mean and variance are those of the active features, so that every option has its own
    (`boundnas.elastic.varied`).

    Args:
        features: Width that is normalized over: a number or the dimension of the layer before.
        eps: Added to the variance.
        elementwise_affine: Whether there is a weight.
        bias: Whether there is a bias beside it.

    Shape:
        ``(N, ..., active features)`` to the same.
    """

    takes = "(N, ..., features)"
    axis = -1
    varied = True
    centred = True
    """Whether the mean is taken off."""

    def __init__(
        self,
        features: Setting,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        check_sizes(owner, features=features)
        check_eps(owner, eps)
        if isinstance(features, Joined):
            raise SpaceError(
                f"{owner}: a norm is over one width, found joined ones; give each map its own"
            )
        self.features, self.eps, size = features, eps, largest(features)
        self.weight = nn.Parameter(torch.ones(size)) if elementwise_affine else None
        self.bias = nn.Parameter(torch.zeros(size)) if elementwise_affine and bias else None

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Normalize the active features; see the class for shapes."""
        active = alone(x)
        self.check_width(active, arch.size(self.features))
        gate = arch.gate(self.features)
        if gate is None:
            return self.normalized(active)
        y = self._masked(active, gate, arch) if arch.masked else self.normalized(active)
        if isinstance(x, Varied):
            with torch.no_grad():
                maps = [self.normalized(each) for each in x.options.maps]
            return vary(y, Options(self.features, maps))
        ghost = x.ghost if isinstance(x, Ghosted) else None
        self.check_ghost(ghost, self.features, arch)
        inputs = part(active, arch.ghost_fraction)
        if ghost is not None:
            inputs = torch.cat((inputs, ghost), -1)
        return vary(y, _Normalized(self, inputs))

    def _masked(self, x: Tensor, gate: Tensor, arch: Architecture) -> Tensor:
        """The option that a gate chooses, of a map of all features, with zeros for the others."""
        kind = torch.promote_types(x.dtype, torch.float32)
        mask = mask_of(gate.detach(), membership(self.features, arch, x.device)[0]).to(kind)
        number = mask.sum()
        y = x.to(kind) * mask
        if self.centred:
            y = (y - y.sum(-1, keepdim=True) / number) * mask
        variance = (y * y).sum(-1, keepdim=True) / number
        y = y * (variance + self._least(x)).rsqrt()
        y = y if self.weight is None else y * self.weight
        return y if self.bias is None else y + self.bias * mask

    def _least(self, x: Tensor) -> float:
        """What is added to the variance of a map."""
        return float(torch.finfo(x.dtype).eps if self.eps is None else self.eps)

    def normalized(self, x: Tensor) -> Tensor:
        """A map of the leading features, normalized."""
        c = x.shape[-1]
        weight = None if self.weight is None else self.weight[:c]
        return F.layer_norm(x, (c,), weight, None if self.bias is None else self.bias[:c], self.eps)

    def macs(self, positions: int) -> Polynomial:
        """None: no products of weights with features of others."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """A scale and a shift per feature, where it has them."""
        return sum(p is not None for p in (self.weight, self.bias)) * amount(self.features)

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.LayerNorm`` of the active slice."""
        c, affine = arch.size(self.features), self.weight is not None
        plain = nn.LayerNorm(c, self.eps, affine, self.bias is not None)
        if self.weight is not None:
            plain.weight = frozen(self.weight[:c])
        if self.bias is not None:
            plain.bias = frozen(self.bias[:c])
        return plain


class RMSNorm(LayerNorm):
    """Divide the features of every token by their root mean square, times a weight.

    Args:
        features: As of `LayerNorm`.
        eps: Added to the mean square; none is the precision of the features' type, as in torch.
        elementwise_affine: Whether there is a weight.

    Shape:
        ``(N, ..., active features)`` to the same.
    """

    centred = False

    def __init__(
        self, features: Setting, eps: float | None = None, elementwise_affine: bool = True
    ) -> None:
        super().__init__(features, 0.0, elementwise_affine, bias=False)
        check_eps(type(self).__name__, eps)
        self.eps = eps  # type: ignore[assignment]

    def normalized(self, x: Tensor) -> Tensor:
        """A map of the leading features, normalized."""
        c = x.shape[-1]
        return F.rms_norm(x, (c,), None if self.weight is None else self.weight[:c], self.eps)

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.RMSNorm`` of the active slice."""
        c = arch.size(self.features)
        plain = nn.RMSNorm(c, self.eps, self.weight is not None)
        if self.weight is not None:
            plain.weight = frozen(self.weight[:c])
        return plain


@cache
def _contained(features: Setting, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which options contain which channels, shape ``(d, C)``, and how many, shape ``(d,)``."""
    sizes = torch.tensor([int(c) for c in choices(features)], device=device)
    return torch.arange(largest(features), device=device) < sizes[:, None], sizes


class _Normalized(Options):
    """The options of what a norm gives, computed only where a function needs them.

    Args:
        norm: The layer.
        inputs: What is normalized, of all features.
    """

    def __init__(self, norm: LayerNorm, inputs: Tensor) -> None:
        self.setting, self.norm, self.inputs = norm.features, norm, inputs

    @property
    def maps(self) -> Sequence[Tensor]:
        """See `Options`."""
        return self._computed

    @cached_property
    def _computed(self) -> list[Tensor]:
        with torch.no_grad():
            return [self.norm.normalized(self.inputs[..., :c]) for c in self.sizes]

    @property
    def sizes(self) -> list[int]:
        """See `Options`."""
        return [int(c) for c in choices(self.norm.features)]

    @property
    def whole(self) -> torch.Size:
        """See `Options`."""
        return self.inputs.shape

    @property
    def axis(self) -> int:
        """See `Options`."""
        return -1

    def products(self, gradient: Tensor) -> Tensor:
        """``sum over tokens of sum_{c < c_j} G_c y_c`` of every option by sums up to ``c_j``.

        With ``y_c = w_c (x_c - m_j) / s_j + b_c`` these are sums of ``x``, ``x^2``, ``G w x`` and
        ``G w`` over the leading features, whatever their number of options.
        """
        x, g = self.inputs.flatten(0, -2), gradient.flatten(0, -2)
        kind = torch.promote_types(x.dtype, torch.float32)
        x, g = x.to(kind), g.to(kind)
        table, sizes = (t.to(kind) for t in _contained(self.norm.features, x.device))
        norm: Any = self.norm
        if norm.centred:
            x = x - x.mean(1, keepdim=True)  # else small variances of large numbers vanish
        sizes = sizes[:, None]
        # Options as rows: three times as fast as columns, of which there are few.
        mean = table @ x.T / sizes if norm.centred else 0.0
        squares = table @ (x * x).T / sizes
        inverse = (squares - mean * mean + self.norm._least(self.inputs)).rsqrt()
        weighted = g if norm.weight is None else g * norm.weight.detach()
        found = table @ (weighted * x).T
        if norm.centred:
            found = found - mean * (table @ weighted.T)
        products = (found * inverse).sum(1)
        if norm.bias is not None:
            products = products + table @ (g.sum(0) * norm.bias.detach())
        return products
