"""Modules of well-known libraries, said in layers and functions that have rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class DropBranch(nn.Module):
    """Drops all of a residual branch, per sample, while a network trains.

    Args:
        p: Probability.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Nothing, in evaluation."""
        return x


def known(module: nn.Module) -> nn.Module | None:
    """The same in layers that have rules; none for a module that needs no help."""
    kind = type(module)
    make = _KNOWN.get((kind.__module__.partition(".")[0], kind.__name__))
    return None if make is None else make(module)


def _stochastic_depth(module: Any) -> nn.Module:
    return DropBranch(module.p) if module.mode == "row" else module


def _drop_path(module: Any) -> nn.Module:
    return DropBranch(module.drop_prob) if module.scale_by_keep else module


_KNOWN: dict[tuple[str, str], Callable[[Any], nn.Module]] = {
    ("torchvision", "StochasticDepth"): _stochastic_depth,
    ("timm", "DropPath"): _drop_path,
}
"""By the library and the name of the class."""
