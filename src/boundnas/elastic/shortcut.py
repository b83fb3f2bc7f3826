"""Shortcuts that some widths have: around a block whose input and output may be alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from boundnas.elastic.ghost import join, part, split
from boundnas.elastic.layer import ElasticModule
from boundnas.elastic.width import ghosts_of
from boundnas.errors import SpaceError
from boundnas.space import (
    Architecture,
    Dimension,
    Setting,
    check_sizes,
    choices,
    dimension_of,
)


class Shortcut(ElasticModule):
    """``y + x`` where both have as many channels, else ``y`` alone.

    Called as ``shortcut(y, x, arch)``. It means ``y + s x``, where ``s`` is one if the gates choose
    equal widths and zero if not, so that every option of both widths has the exact gradient
    ``ds/dz_j <dL/dy, x>``, whether the shortcut is there or not.

    Args:
        inputs: Channels of ``x``.
        outputs: Channels of ``y``, which is computed from it.

    Shape:
        ``(N, outputs, …)`` and ``(N, inputs, …)`` to ``(N, outputs, …)``.
    """

    def __init__(self, inputs: Setting, outputs: Setting) -> None:
        super().__init__()
        check_sizes("Shortcut", inputs=inputs, outputs=outputs)
        self.inputs, self.channels = inputs, outputs

    def forward(self, y: Tensor, x: Tensor, arch: Architecture) -> Tensor:  # type: ignore[override]
        """Add ``x`` where it has the channels of ``y``; see the class for shapes."""
        for of, map_, width in (("y", y, self.channels), ("x", x, self.inputs)):
            if isinstance(map_, Tensor) and map_.shape[1] != arch.size(
                width
            ):  # not of a traced one
                raise SpaceError(
                    f"{self.name} (Shortcut): {of} has {arch.size(width)} channels in this "
                    f"architecture, found {map_.shape[1]}; it is called as shortcut(y, x, arch)"
                )
        alike = arch.size(self.inputs) == arch.size(self.channels)
        dimensions = dict.fromkeys(arch.gated(self.inputs) + arch.gated(self.channels))
        if not dimensions:
            return y + x if alike else y
        (own, ghost), (other, rest) = split(y), split(x)
        if rest is None and ghosts_of(self.inputs, arch):
            raise SpaceError(
                f"{self.name} (Shortcut): the channels of its input that were not chosen did not "
                "arrive, so that the gradient of its width would be missing; give it the map that "
                "an elastic layer gave, or functions of it that treat channels alike"
            )
        whole = part(other, arch.ghost_fraction)
        if rest is not None:
            whole = torch.cat((whole, rest), 1)
            if ghost is not None and alike:
                ghost = _added(ghost, rest)
        z = own + other if alike else own
        for dimension in dimensions:
            table = self._alike(dimension, arch)
            gate = arch.gate(dimension)
            assert gate is not None
            z = _Switch.apply(z, gate, whole[:, : own.shape[1]], table)
        return join(z, ghost)

    def _alike(self, dimension: Dimension, arch: Architecture) -> tuple[bool, ...]:
        """With which options of a dimension, and the others as they are, the widths are equal."""
        sides = []
        for width in (self.inputs, self.channels):
            follows = dimension_of(width) == dimension
            chosen = (arch.size(width),) * len(dimension)
            sides.append(tuple(map(int, choices(width))) if follows else chosen)
        return tuple(a == b for a, b in zip(*sides, strict=True))


def _added(ghost: Tensor, rest: Tensor) -> Tensor:
    """The channels beyond those that both chose, as far as both have them."""
    both = min(ghost.shape[1], rest.shape[1])
    return torch.cat((ghost[:, :both] + rest[:, :both], ghost[:, both:]), 1)


class _Switch(torch.autograd.Function):
    """Identity; backward adds ``<dL/dy, x>`` of the options with which ``x`` would be added."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, gate: Tensor, x: Tensor, table: tuple[bool, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.table = table
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        shared = gradient[: len(x), : x.shape[1]]
        product = (shared * x).sum() * (len(gradient) / len(x))
        none = torch.zeros_like(product)
        products = torch.stack([product if alike else none for alike in ctx.table])
        return gradient, products, None, None
