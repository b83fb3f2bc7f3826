"""Searched kernel sizes: a smaller kernel is the centre of the largest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from boundnas.elastic.ghost import gate_weight, mix, part
from boundnas.errors import SpaceError
from boundnas.space import (
    Architecture,
    Derived,
    Dimension,
    Setting,
    check_sizes,
    choices,
    dimension_of,
    largest,
)
from boundnas.space.polynomial import Polynomial, amount

KernelSize = Setting | tuple[Setting, ...]
"""The size of a kernel along every spatial axis, or one for all."""


@dataclass(frozen=True)
class Kernel:
    """The sizes of a kernel, one setting per spatial axis; axes may follow one dimension."""

    sizes: tuple[Setting, ...]

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """Of the weights that a layer holds."""
        return tuple(map(largest, self.sizes))

    @cached_property
    def smallest(self) -> tuple[int, ...]:
        """The least along every axis."""
        return tuple(int(min(choices(size))) for size in self.sizes)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Which are searched, each once."""
        found = map(dimension_of, self.sizes)
        return tuple(dict.fromkeys(d for d in found if d is not None))

    def size(self, arch: Architecture) -> tuple[int, ...]:
        """What an architecture chooses."""
        return tuple(map(arch.size, self.sizes))

    @cached_property
    def taps(self) -> Polynomial:
        """The number of entries."""
        fixed = [int(s) for s in self.sizes if dimension_of(s) is None]  # type: ignore[arg-type]
        total = amount(math.prod(fixed))
        for dimension in self.dimensions:
            rows = [choices(s) for s in self.sizes if dimension_of(s) == dimension]
            table = tuple(math.prod(map(int, row)) for row in zip(*rows, strict=True))
            total = total * amount(Derived(dimension, table))
        return total

    def crop(self, weight: Tensor, size: tuple[int, ...]) -> Tensor:
        """The centre of a weight whose last axes are those of the largest kernel."""
        for axis, (whole, k) in enumerate(zip(self.largest, size, strict=True), start=2):
            if k != whole:
                weight = weight.narrow(axis, (whole - k) // 2, k)
        return weight

    def gated(self, weight: Tensor, arch: Architecture) -> Tensor:
        """Let the options within the chosen size see the gradient of what they contain."""
        axes = tuple(range(2, weight.dim()))
        for dimension in self.dimensions:
            if (gate := arch.gate(dimension)) is not None:
                table = crops(self, dimension, self.size(arch), weight.device)
                weight = gate_weight(weight.contiguous(), gate, table, axes)
        return weight

    def mixed(
        self,
        y: Tensor,
        x: Tensor,
        weight: Tensor,
        arch: Architecture,
        convolve: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Add the gradient of options beyond the chosen size, which `gated` has not.

        Args:
            y: Of the chosen size.
            x: What it was computed from.
            weight: The active channels' largest kernel.
            arch: The architecture.
            convolve: A map and a kernel to what ``y`` would be, without a graph.
        """
        shared, whole = part(x, arch.ghost_fraction), weight.detach()
        for dimension in self.dimensions:
            gate = arch.gate(dimension)
            larger = self._beyond(dimension, self.size(arch))
            if gate is not None and larger:
                alternatives = {
                    j: lambda size=size: convolve(shared, self.crop(whole, size))
                    for j, size in larger.items()
                }
                y = mix(y, gate, alternatives, arch.ghost_fraction, [shared])
        return y

    def option(self, dimension: Dimension, j: int, chosen: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes with one dimension's option ``j`` and the others as they are."""
        return tuple(
            int(choices(setting)[j]) if dimension_of(setting) == dimension else size
            for setting, size in zip(self.sizes, chosen, strict=True)
        )

    def _beyond(self, dimension: Dimension, chosen: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        options = ((j, self.option(dimension, j, chosen)) for j in range(len(dimension)))
        return {j: size for j, size in options if not _within(size, chosen)}


def kernel(owner: str, size: KernelSize, axes: int) -> Kernel:
    """Read a kernel size.

    Raises:
        SpaceError: There are others than one per axis, or a searched one is even.
    """
    sizes = tuple(size) if isinstance(size, tuple | list) else (size,) * axes
    if len(sizes) != axes:
        raise SpaceError(f"{owner}: kernel_size is one size or {axes} of them, found {size!r}")
    for each in sizes:
        check_sizes(owner, kernel_size=each)
        even = [k for k in choices(each) if int(k) % 2 == 0]
        if even and len(set(choices(each))) > 1:
            raise SpaceError(
                f"{owner}: searched kernel sizes must be odd so that they share a centre, "
                f"found {even}"
            )
    return Kernel(sizes)


def _within(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(size, other, strict=True))


@cache
def crops(
    kernel: Kernel, dimension: Dimension, chosen: tuple[int, ...], device: torch.device
) -> Tensor:
    """Which options of a dimension contain which entries of the chosen kernel.

    Returns:
        Shape ``(d, entries)``; zero for options beyond it, whose gradient `Kernel.mixed` adds.
    """
    places = list(itertools.product(*map(range, chosen)))
    table = torch.zeros(len(dimension), len(places))
    for j in range(len(dimension)):
        size = kernel.option(dimension, j, chosen)
        if _within(size, chosen):
            margins = [(c - s) // 2 for c, s in zip(chosen, size, strict=True)]
            for i, place in enumerate(places):
                rows = zip(place, margins, size, strict=True)
                table[j, i] = float(all(m <= at < m + s for at, m, s in rows))
    return table.to(device)
