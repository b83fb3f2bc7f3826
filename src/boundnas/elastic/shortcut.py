"""Shortcuts that some widths have: around a block whose input and output may be alike."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.elastic.ghost import alone, join, part, split
from boundnas.elastic.layer import ElasticModule
from boundnas.elastic.masks import constant
from boundnas.elastic.width import ghosts_of
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Setting, check_sizes, choices, following
from boundnas.space.polynomial import Polynomial, amount


class Shortcut(ElasticModule):
    """``y + x`` where both have as many channels, else ``y`` alone or ``y + projection(x)``.

    Called as ``shortcut(y, x, arch)``. It means ``y + s x + (1 - s) projection(x)``, where ``s`` is
    one if the gates choose equal widths and zero if not, so that every option of both widths has
    the exact gradient ``ds/dz_j <dL/dy, x - projection(x)>``, whichever is there.

    Args:
        inputs: Channels of ``x``.
        outputs: Channels of ``y``, which is computed from it.
        projection: Called as ``projection(x, arch)`` where they differ, as a convolution from the
            one to the other; without one nothing is added there.

    Shape:
        ``(N, outputs, …)`` and ``(N, inputs, …)`` to ``(N, outputs, …)``.
    """

    def __init__(
        self, inputs: Setting, outputs: Setting, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_sizes("Shortcut", inputs=inputs, outputs=outputs)
        self.inputs, self.channels, self.projection = inputs, outputs, projection
        self.setting = following(operator.eq, inputs, outputs)  # whether they are alike

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
        alike, gate = arch.size(self.inputs) == arch.size(self.channels), arch.gate(self.setting)
        if gate is not None and arch.masked:
            return self._weighted(y, x, gate, arch)
        if gate is not None:
            return self._switched(y, x, alike, gate, arch)
        if self.projection is not None and not alike:
            return y + self.projection(x, arch)
        return y + x if alike else y

    def _weighted(self, y: Tensor, x: Tensor, gate: Tensor, arch: Architecture) -> Tensor:
        """The sum as the class describes it."""
        there = gate @ constant(tuple(map(bool, choices(self.setting))), gate)
        if self.projection is not None:
            y = y + (1 - there) * self.projection(x, arch)
        return _added(y, there * x)

    def _switched(
        self, y: Tensor, x: Tensor, alike: bool, gate: Tensor, arch: Architecture
    ) -> Tensor:
        """The same with the gradient of the widths."""
        other, rest = split(x)
        if rest is None and ghosts_of(self.inputs, arch):
            raise SpaceError(
                f"{self.name} (Shortcut): the channels of its input that were not chosen did not "
                "arrive, so that the gradient of its width would be missing; give it the map that "
                "an elastic layer gave, or functions of it that treat channels alike"
            )
        shared = part(other, arch.ghost_fraction)
        whole = shared if rest is None else torch.cat((shared, rest), 1)
        projected = None
        if self.projection is not None and alike:
            with torch.no_grad():
                projected = self.projection(shared, arch.plain)
        elif self.projection is not None:
            across = self.projection(x, arch)
            y, projected = y + across, part(alone(across), arch.ghost_fraction)
        own, ghost = split(y)
        if alike:
            own = own + other
            if ghost is not None and rest is not None:
                ghost = _added(ghost, rest)
        table = tuple(map(bool, choices(self.setting)))
        return join(_Switch.apply(own, gate, whole[:, : own.shape[1]], projected, table), ghost)

    def presence(self, child: str) -> Polynomial:
        """The projection is in use where the widths differ."""
        return amount(self.setting, lambda alike: int(not alike))


def _added(ghost: Tensor, rest: Tensor) -> Tensor:
    """The channels beyond those that both chose, as far as both have them."""
    both = min(ghost.shape[1], rest.shape[1])
    return torch.cat((ghost[:, :both] + rest[:, :both], ghost[:, both:]), 1)


class _Switch(torch.autograd.Function):
    """Identity; backward adds ``<dL/dy, x - p>`` of the options with which ``x`` would be added.

    ``p`` is what is added with the others, if anything.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, gate: Tensor, x: Tensor, p: Tensor | None, table: tuple[bool, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, p)
        ctx.table = table
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, p = ctx.saved_tensors
        shared = gradient[: len(x)]
        product = (shared[:, : x.shape[1]] * x).sum()
        if p is not None:
            product = product - (shared * p).sum()
        product = product * (len(gradient) / len(x))
        none = torch.zeros_like(product)
        products = torch.stack([product if alike else none for alike in ctx.table])
        return gradient, products, None, None, None
