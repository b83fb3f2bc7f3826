"""Searchable activation function."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import mix, part, split
from boundnas.elastic.layer import ElasticLayer
from boundnas.errors import SpaceError
from boundnas.polynomial import Polynomial, amount
from boundnas.space import Architecture, Setting, choices

_FUNCTIONS = {"relu": F.relu, "swish": F.silu}
_MODULES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU}


class Activation(ElasticLayer):
    """ReLU or Swish, fixed or searched.

    Args:
        function: ``"relu"``, ``"swish"`` or a dimension over them.

    Shape:
        Any, to the same.
    """

    def __init__(self, function: Setting = "relu") -> None:
        super().__init__()
        self.function = function
        unknown = [c for c in choices(function) if c not in _FUNCTIONS]
        if unknown:
            raise SpaceError(
                f"unknown activation {unknown[0]!r}; allowed are {', '.join(_FUNCTIONS)}"
            )

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Apply the chosen function."""
        y = _FUNCTIONS[str(arch.value(self.function))](x)
        gate = arch.gate(self.function)
        if gate is None:
            return y
        inputs = part(split(x)[0], arch.ghost_fraction)
        functions = [_FUNCTIONS[str(c)] for c in choices(self.function)]
        alternatives = {j: lambda f=f: f(inputs) for j, f in enumerate(functions)}
        return mix(y, gate, alternatives, arch.ghost_fraction)

    def macs(self, positions: int) -> Polynomial:
        """None: no products of weights."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """None."""
        return amount(0)

    def plain(self, arch: Architecture) -> nn.Module:
        """The chosen function's module."""
        return _MODULES[str(arch.value(self.function))]()
