"""Searchable activation functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import alone, mix, part
from boundnas.elastic.layer import ElasticLayer
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Setting, choices
from boundnas.space.polynomial import Polynomial, amount

_APPLY = {"relu": F.relu, "swish": F.silu}
_MODULES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU}

FUNCTIONS = tuple(_APPLY)
"""Names of the activations, in the order in which the compiled kernels number them."""


class Activation(ElasticLayer):
    """ReLU or Swish, fixed or searched.

    Right after a BatchNorm it belongs to that layer's ``activation``, which costs less.

    Args:
        function: ``"relu"``, ``"swish"`` or a dimension over them.

    Shape:
        Any, to the same.
    """

    axis, varied = None, True

    def __init__(self, function: Setting = "relu") -> None:
        super().__init__()
        check_functions(function)
        self.function = function

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Apply the chosen function."""
        return activated(x, self.function, arch)

    def macs(self, positions: int) -> Polynomial:
        """None: no products of weights."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """None."""
        return amount(0)

    def plain(self, arch: Architecture) -> nn.Module:
        """The chosen function's module."""
        return plain_activation(self.function, arch)


def check_functions(function: Setting) -> None:
    """Refuse what is no activation function.

    Raises:
        SpaceError: Names it and those there are.
    """
    unknown = [c for c in choices(function) if c not in FUNCTIONS]
    if unknown:
        raise SpaceError(f"unknown activation {unknown[0]!r}; allowed are {', '.join(FUNCTIONS)}")


def activated(x: Tensor, function: Setting, arch: Architecture, inplace: bool = False) -> Tensor:
    """The chosen function of a map; its gate, if any, gets a gradient.

    Args:
        x: Any shape.
        function: As for `Activation`.
        arch: The architecture.
        inplace: Whether the memory of ``x`` may be used, where no gradient needs its values.
    """
    chosen, gate = str(arch.value(function)), arch.gate(function)
    unneeded = gate is None and (chosen == "relu" or not torch.is_grad_enabled())
    y = _APPLY[chosen](x, inplace=inplace and unneeded)
    if gate is None:
        return y
    inputs = part(alone(x), arch.ghost_fraction)
    functions = [_APPLY[str(c)] for c in choices(function)]
    alternatives = {j: lambda f=f: f(inputs) for j, f in enumerate(functions)}
    return mix(y, gate, alternatives, arch.ghost_fraction, [inputs])


def plain_activation(function: Setting, arch: Architecture) -> nn.Module:
    """The chosen function's module."""
    return _MODULES[str(arch.value(function))]()
