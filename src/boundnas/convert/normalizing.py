"""Norms that people write by hand, told by what they compute.

Many code bases have an ``RMSNorm`` or a ``LayerNorm`` of their own, for channels that come last or
first. One that gives what PyTorch's gives, with a weight and a number that is its ``eps``, becomes
that one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

Known = nn.LayerNorm | nn.RMSNorm
"""Norms of PyTorch that are tried."""

_CLOSE = 1e-5
"""Part of the largest value by which results in single precision may differ."""
_SHAPES = {-1: (3, 2), 1: (2, 3, 2)}
"""Of maps without channels, by the axis on which these are put."""


class Norm(nn.Module):
    """A norm of PyTorch in the place of one by hand.

    Args:
        norm: Of the last axis.
        axis: Where channels lie: -1, or 1.
    """

    def __init__(self, norm: Known, axis: int) -> None:
        super().__init__()
        self.norm, self.axis = norm, axis

    @property
    def weight(self) -> Any:
        """That of the norm, which a forward may read by this name."""
        return self.norm.weight

    @property
    def bias(self) -> Any:
        """Likewise."""
        return getattr(self.norm, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """As of the one by hand, but for rounding."""
        if self.axis == -1:
            return self.norm(x)
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def normalizing(module: nn.Module) -> Norm | None:
    """PyTorch's norm that a module computes; none for a module that does anything else."""
    held = dict(module.named_parameters())
    weight, bias = held.get("weight"), held.get("bias")
    if type(module).__module__.startswith("torch.") or any(True for _ in module.children()):
        return None
    if weight is None or weight.dim() != 1 or not held.keys() <= {"weight", "bias"}:
        return None
    if any(True for _ in module.buffers()) or (bias is not None and bias.shape != weight.shape):
        return None
    found = (
        _as(module, made, axis) for made in _candidates(module, weight, bias) for axis in _SHAPES
    )
    return next((norm for norm in found if norm is not None), None)


def _candidates(
    module: nn.Module, weight: Tensor, bias: Tensor | None
) -> Iterator[nn.LayerNorm | nn.RMSNorm]:
    known = {v for v in vars(module).values() if isinstance(v, float) and 0 < v < 1e-2}
    for eps in sorted(known):
        norms: list[nn.LayerNorm | nn.RMSNorm] = [
            nn.LayerNorm(len(weight), eps, bias=bias is not None)
        ]
        if bias is None:
            norms.append(nn.RMSNorm(len(weight), eps))
        for norm in norms:
            for name, tensor in (("weight", weight), ("bias", bias)):
                if tensor is not None:
                    norm._parameters[name] = tensor  # type: ignore[assignment]
            yield norm


def _as(module: nn.Module, norm: Any, axis: int) -> Norm | None:
    """The norm, if it gives what a module does with weights of all kinds, in both modes."""
    made = Norm(norm, axis)
    generator = torch.Generator().manual_seed(0)
    twin = copy.deepcopy(module)
    own, other = dict(twin.named_parameters()), copy.deepcopy(made)
    with torch.no_grad():
        for name, parameter in own.items():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(
                parameter
            )
            parameter.copy_(drawn)
            dict(other.norm.named_parameters())[name].copy_(drawn)
        shape = list(_SHAPES[axis])
        shape.insert(len(shape) if axis == -1 else 1, len(norm.weight))
        for scale in (1e-3, 1.0, 30.0):  # the smallest shows eps
            drawn = torch.randn(shape, generator=generator, dtype=torch.float32)
            x = (drawn * scale + scale).to(norm.weight)
            try:
                given = [twin.train()(x.clone()), twin.eval()(x.clone())]
            except Exception:  # whatever a forward may raise
                return None
            if not all(_close(y, other(x)) for y in given):
                return None
    return made


def _close(found: Any, expected: Tensor) -> bool:
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    scale = float(expected.abs().max())
    return found.dtype == expected.dtype and float((found - expected).abs().max()) < _CLOSE * scale
