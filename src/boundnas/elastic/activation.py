"""Searchable activation functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import alone, join, mix, part, split
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.varied import combined
from boundnas.elastic.width import active, others
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Setting, Value, Width, check_sizes, choices, largest
from boundnas.space.polynomial import Polynomial, amount

FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[[], nn.Module]]] = {
    "relu": (F.relu, nn.ReLU),
    "swish": (F.silu, nn.SiLU),
    "silu": (F.silu, nn.SiLU),
    "gelu": (F.gelu, nn.GELU),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"), partial(nn.GELU, approximate="tanh")),
    "hardswish": (F.hardswish, nn.Hardswish),
    "mish": (F.mish, nn.Mish),
    "relu6": (F.relu6, nn.ReLU6),
    "leaky_relu": (F.leaky_relu, nn.LeakyReLU),
    "elu": (F.elu, nn.ELU),
    "selu": (F.selu, nn.SELU),
    "celu": (F.celu, nn.CELU),
    "sigmoid": (torch.sigmoid, nn.Sigmoid),
    "logsigmoid": (F.logsigmoid, nn.LogSigmoid),
    "hardsigmoid": (F.hardsigmoid, nn.Hardsigmoid),
    "tanh": (torch.tanh, nn.Tanh),
    "hardtanh": (F.hardtanh, nn.Hardtanh),
    "tanhshrink": (F.tanhshrink, nn.Tanhshrink),
    "softplus": (F.softplus, nn.Softplus),
    "softsign": (F.softsign, nn.Softsign),
    "softshrink": (F.softshrink, nn.Softshrink),
    "hardshrink": (F.hardshrink, nn.Hardshrink),
    "identity": (lambda x: x, nn.Identity),
}
"""The activations of torch that have no weights and draw nothing, with torch's own constants."""

_IN_PLACE = {"relu", "swish", "silu", "hardswish", "mish", "relu6", "leaky_relu", "elu", "selu"}
"""Those that may use the memory of what they take."""

COMPILED = ("relu", "swish")
"""Those that the compiled kernels know, in the order in which they number them."""


class Activation(ElasticLayer):
    """An activation function, fixed or searched.

    Right after a BatchNorm it belongs to that layer's ``activation``, which costs less.

    Args:
        function: A name, or a dimension over several: ``"relu"``, ``"swish"`` (or ``"silu"``),
            ``"gelu"``, ``"gelu_tanh"``, ``"hardswish"``, ``"mish"``, ``"relu6"``, ``"leaky_relu"``,
            ``"elu"``, ``"selu"``, ``"celu"``, ``"sigmoid"``, ``"logsigmoid"``, ``"hardsigmoid"``,
            ``"tanh"``, ``"hardtanh"``, ``"tanhshrink"``, ``"softplus"``, ``"softsign"``,
            ``"softshrink"``, ``"hardshrink"`` or ``"identity"``. Each is torch's, with its own
            constants; one of other constants may stand between layers as a function.

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


class PReLU(ElasticLayer):
    """``max(0, x) + weight * min(0, x)``, a slope for every channel of a searchable width.

    One slope for all channels is ``nn.PReLU()``, which may stand between elastic layers.

    Args:
        channels: Number of channels.
        init: Of the slopes.

    Shape:
        ``(N, C, …)`` to the same.
    """

    takes = "(N, C, ...)"

    def __init__(self, channels: Width, init: float = 0.25) -> None:
        super().__init__()
        check_sizes("PReLU", channels=channels)
        self.channels = channels
        self.weight = nn.Parameter(torch.full((largest(channels),), init))

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Apply it, to ghosts with their own slopes."""
        x, ghost = split(x)
        self.check_width(x, arch.size(self.channels))
        y = F.prelu(x, active(self.weight, self.channels, arch))
        if ghost is not None:
            with torch.no_grad():
                ghost = F.prelu(ghost, others(self.weight, self.channels, arch))
        return join(y, ghost)

    def macs(self, positions: int) -> Polynomial:
        """None: no sums of products."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """A slope per channel."""
        return amount(self.channels)

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.PReLU`` of the active channels."""
        plain = nn.PReLU(arch.size(self.channels))
        plain.weight = frozen(active(self.weight, self.channels, arch))
        return plain


def check_functions(function: Setting) -> None:
    """Refuse what is no activation function.

    Raises:
        SpaceError: Names it and those there are.
    """
    unknown = [c for c in choices(function) if not (isinstance(c, str) and c in FUNCTIONS)]
    if unknown:
        raise SpaceError(f"unknown activation {unknown[0]!r}; allowed are {', '.join(FUNCTIONS)}")


def kernel_name(function: Value) -> str | None:
    """What the compiled kernels call an activation; none where they do not know it."""
    name = "swish" if function == "silu" else str(function)
    return name if name in COMPILED else None


def activated(x: Tensor, function: Setting, arch: Architecture, inplace: bool = False) -> Tensor:
    """The chosen function of a map; its gate, if any, gets a gradient.

    Args:
        x: Any shape.
        function: As for `Activation`.
        arch: The architecture.
        inplace: Whether the memory of ``x`` may be used, where no gradient needs its values.
    """
    chosen, gate = str(arch.value(function)), arch.gate(function)
    if gate is not None and arch.masked:
        return combined(gate, [FUNCTIONS[str(c)][0](x) for c in choices(function)])
    unneeded = gate is None and (chosen == "relu" or not torch.is_grad_enabled())
    own = {"inplace": True} if inplace and unneeded and chosen in _IN_PLACE else {}
    y = FUNCTIONS[chosen][0](x, **own)
    if gate is None:
        return y
    inputs = part(alone(x), arch.ghost_fraction)
    alternatives = {j: FUNCTIONS[str(c)][0] for j, c in enumerate(choices(function))}
    return mix(y, gate, alternatives, arch.ghost_fraction, [inputs])


def plain_activation(function: Setting, arch: Architecture) -> nn.Module:
    """The chosen function's module."""
    return FUNCTIONS[str(arch.value(function))][1]()
