"""Modules with weights of channels, said in layers and functions that have rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Gate(nn.Module):
    """An ``nn.GLU``: one half of the channels times the other's sigmoid.

    Args:
        module: It.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.dim = module.dim

    def forward(self, x: Tensor) -> Tensor:
        """As of torch's, but for rounding."""
        a, b = x.chunk(2, self.dim)
        return a * torch.sigmoid(b)


class Leaky(nn.Module):
    """An ``nn.PReLU`` with a weight for each channel.

    Args:
        module: It; the weight is taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.weight = module.weight

    def forward(self, x: Tensor) -> Tensor:
        """As of torch's."""
        return torch.where(x > 0, x, x * _per_channel(self.weight, x))


class OneGroup(nn.Module):
    """A norm over all channels and pixels of a sample, then a scale of each channel.

    Args:
        module: The ``nn.GroupNorm`` of one group; its weights are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.eps, self.weight, self.bias = module.eps, module.weight, module.bias

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, ...)`` to the same."""
        flat = x.flatten(1)
        y = F.layer_norm(flat, flat.shape[1:], eps=self.eps).unflatten(1, x.shape[1:])
        if self.weight is not None:
            places = (1, -1, *[1] * (x.dim() - 2))
            y = y * self.weight.view(places) + self.bias.view(places)
        return y


class Bilinear(nn.Module):
    """An ``nn.Bilinear``: a linear layer of the second map, then products with the first.

    Args:
        module: It; its weights are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.weight, self.bias = module.weight, module.bias
        self.sizes = module.out_features, module.in1_features

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Maps ``(..., first)`` and ``(..., second)`` to ``(..., out)``."""
        rows = F.linear(other, self.weight.flatten(0, 1)).unflatten(-1, self.sizes)
        y = torch.einsum("...oi,...i->...o", rows, x)
        return y if self.bias is None else y + self.bias


class InstanceNorm(nn.Module):
    """An ``nn.InstanceNorm`` of batches, without running statistics.

    Args:
        module: It; weight and bias are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.eps, self.weight, self.bias = module.eps, module.weight, module.bias

    def forward(self, x: Tensor) -> Tensor:
        """As of torch's, but for rounding."""
        y = F.instance_norm(x, eps=self.eps)
        if self.weight is None:
            return y
        return y * _per_channel(self.weight, x) + _per_channel(self.bias, x)


class Transposed(nn.Module):
    """A ``Conv1D`` of transformers: a linear layer whose weight lies the other way.

    Args:
        module: It; weight and bias are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        with torch.device("meta"):
            self.linear = nn.Linear(*module.weight.shape)
        weight = module.weight
        self.linear.weight = nn.Parameter(weight.detach().T.contiguous(), weight.requires_grad)
        self.linear.bias = module.bias

    def forward(self, x: Tensor) -> Tensor:
        """As of it, but for rounding."""
        y: Tensor = self.linear(x)
        return y


def _per_channel(weight: Tensor, x: Tensor) -> Tensor:
    return weight.view(-1, *[1] * (len(x.shape) - 2))
