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
    followed,
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
    def searched(self) -> tuple[tuple[Dimension, ...], ...]:
        """What the sizes follow, each once."""
        return tuple(dict.fromkeys(followed(size) for size in self.sizes if followed(size)))

    def size(self, arch: Architecture) -> tuple[int, ...]:
        """What an architecture chooses."""
        return tuple(map(arch.size, self.sizes))

    @cached_property
    def taps(self) -> Polynomial:
        """The number of entries."""
        fixed = [int(s) for s in self.sizes if not followed(s)]  # type: ignore[arg-type]
        total = amount(math.prod(fixed))
        for dimensions in self.searched:
            rows = [choices(s) for s in self.sizes if followed(s) == dimensions]
            table = tuple(math.prod(map(int, row)) for row in zip(*rows, strict=True))
            total = total * amount(Derived(dimensions, table))
        return total

    def learned(self, arch: Architecture) -> tuple[tuple[Dimension, ...], ...]:
        """Which of what they follow has a gate."""
        return tuple(dict.fromkeys(d for size in self.sizes for d in arch.gated(size)))

    def crop(self, weight: Tensor, size: tuple[int, ...]) -> Tensor:
        """The centre of a weight whose last axes are those of the largest kernel."""
        for axis, (whole, k) in enumerate(zip(self.largest, size, strict=True), start=2):
            if k != whole:
                weight = weight.narrow(axis, (whole - k) // 2, k)
        return weight

    def gated(self, weight: Tensor, arch: Architecture) -> Tensor:
        """Let the options within the chosen size see the gradient of what they contain."""
        axes = tuple(range(2, weight.dim()))
        for dimensions in self.learned(arch):
            table = crops(self, dimensions, self.size(arch), weight.device)
            gate = arch.joint(dimensions)
            weight = gate_weight(weight.contiguous(), gate, table, axes, arch.masked)
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
        for dimensions in self.learned(arch):
            larger = self._beyond(dimensions, self.size(arch))
            if larger:
                alternatives = {
                    j: lambda x, size=size: convolve(x, self.crop(whole, size))
                    for j, size in larger.items()
                }
                y = mix(y, arch.joint(dimensions), alternatives, arch.ghost_fraction, [shared])
        return y

    def options(
        self, dimensions: tuple[Dimension, ...], chosen: tuple[int, ...]
    ) -> list[tuple[int, ...]]:
        """The sizes with each option of what some follow, and the others as they are."""
        return [
            tuple(
                int(choices(setting)[j]) if followed(setting) == dimensions else size
                for setting, size in zip(self.sizes, chosen, strict=True)
            )
            for j in range(math.prod(map(len, dimensions)))
        ]

    def _beyond(
        self, dimensions: tuple[Dimension, ...], chosen: tuple[int, ...]
    ) -> dict[int, tuple[int, ...]]:
        options = enumerate(self.options(dimensions, chosen))
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
    kernel: Kernel, dimensions: tuple[Dimension, ...], chosen: tuple[int, ...], device: torch.device
) -> Tensor:
    """Which options of what sizes follow contain which entries of the chosen kernel.

    Returns:
        Shape ``(d, entries)``; zero for options beyond it, whose gradient `Kernel.mixed` adds.
    """
    places = list(itertools.product(*map(range, chosen)))
    options = kernel.options(dimensions, chosen)
    table = torch.zeros(len(options), len(places), dtype=torch.float32)
    for j, size in enumerate(options):
        if _within(size, chosen):
            margins = [(c - s) // 2 for c, s in zip(chosen, size, strict=True)]
            for i, place in enumerate(places):
                rows = zip(place, margins, size, strict=True)
                table[j, i] = float(all(m <= at < m + s for at, m, s in rows))
    return table.to(device)
