"""Layers whose insides are computed again in the backward pass (gradient checkpointing).

Autograd keeps what every function of a layer needs for its gradient. Here only the input of the
layer is kept, and the rest is computed again when the backward pass comes to it. Its functions and
their order stay those of the one graph, so every gradient has the bits that it would have.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from boundnas.elastic.ghost import alone
from boundnas.engine.tuning import give_back
from boundnas.errors import SpaceError
from boundnas.space import Architecture

LARGE = 64 << 20
"""Bytes of an input from which the holes that other layers left are returned to the system before
what is inside of the layer is computed again: there the peak is, and they are not of its sizes."""


def recomputed(name: str, layer: nn.Module, x: Tensor, arch: Architecture) -> Tensor:
    """``layer(x, arch)``, computed again in the backward pass.

    Args:
        name: Of the layer, within the supernet.
        layer: Called twice; it may change nothing but what it gives.
        x: Its input, which is kept.
        arch: The architecture; noise is drawn from it once.

    Raises:
        SpaceError: The input was changed in place, by the layer or by what comes after it.
    """
    y: Tensor = checkpoint(
        _Twice(name, layer, x, arch), use_reentrant=False, preserve_rng_state=False
    )
    return y


class _Twice:
    """A call of a layer that can be made again, with the random numbers of the first time."""

    def __init__(self, name: str, layer: nn.Module, x: Tensor, arch: Architecture) -> None:
        self.name, self.layer, self.x = name, layer, x
        self.arch = arch.carrying(recomputes=False)  # stages inside of it are computed with it
        self.version = alone(x)._version
        self.noise = None if arch.noise is None else arch.noise.get_state()
        self.drawn: list[Any] = []
        self.again = False

    def __call__(self) -> Tensor:
        if self.again:
            self._check("after")
            if self.x.nbytes >= LARGE:
                give_back()
            y: Tensor = self.layer(self.x, self._repeated())
            return y
        self.again = True
        y = self.layer(self.x, self._noted())
        self._check("in")
        return y

    def _noted(self) -> Architecture:
        """The architecture, of which it is kept what it hands out."""
        drawn = self.arch.carried.drawn
        if drawn is None:
            return self.arch

        def of(layer: Any, shape: list[int]) -> tuple[Tensor, Tensor]:
            self.drawn.append(drawn(layer, shape))
            found: tuple[Tensor, Tensor] = self.drawn[-1]
            return found

        return self.arch.carrying(drawn=of)

    def _repeated(self) -> Architecture:
        """The architecture as it was at the first call."""
        if self.noise is not None:
            noise = torch.Generator()
            noise.set_state(self.noise)
            return self.arch.carrying(noise=noise)
        if self.arch.carried.drawn is not None:
            held = iter(self.drawn)
            return self.arch.carrying(drawn=lambda layer, shape: next(held))
        return self.arch

    def _check(self, when: str) -> None:
        if alone(self.x)._version != self.version:
            raise SpaceError(
                f"{self.name} ({type(self.layer).__name__}): the map that it takes is changed in "
                f"place {when} its forward, and gradient checkpointing computes it again from that "
                "map; use functions that are not in place there, or train without "
                "train.gradient_checkpointing"
            )
