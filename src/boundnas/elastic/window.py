"""How a kernel moves over a map, in one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.errors import SpaceError
from boundnas.space import check_sizes

Numbers = int | tuple[int, ...]
"""A number for every spatial axis, or one for all."""

MODES = ("zeros", "reflect", "replicate", "circular")
"""What padding holds, as in torch."""


@dataclass(frozen=True)
class Window:
    """Numbers of a convolution as in torch, one per spatial axis.

    Args:
        stride: Pixels from one place of the kernel to the next.
        padding: Pixels that are added at both ends.
        dilation: Pixels from one entry of the kernel to the next.
        mode: What the added pixels hold, of `MODES`.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    mode: str = "zeros"

    def shrunk(self, kernel: Sequence[int], smaller: Sequence[int]) -> Window:
        """The same for the centre of a kernel, which sees the same pixels at its own entries.

        Raises:
            SpaceError: It would need padding below zero.
        """
        if kernel == smaller:
            return self
        rows = zip(self.padding, self.dilation, kernel, smaller, strict=True)
        padding = tuple(p - d * (k - s) // 2 for p, d, k, s in rows)
        if min(padding) < 0:
            raise SpaceError(
                f"a kernel of {_shown(smaller)} within one of {_shown(kernel)} with a padding of "
                f"{_shown(self.padding)} and a dilation of {_shown(self.dilation)} leaves out "
                f"pixels at the border; give at least the padding that keeps the centre, "
                f"dilation * ({_shown(kernel)} - {_shown(smaller)}) / 2"
            )
        return self if padding == self.padding else replace(self, padding=padding)

    def padded(self, x: Tensor) -> tuple[Tensor, Window]:
        """A map with its border, where that holds no zeros, and what is left to be done."""
        if self.mode == "zeros":
            return x, self
        none = replace(self, padding=(0,) * len(self.padding), mode="zeros")
        return F.pad(x, self._ends, self.mode), none

    @property
    def _ends(self) -> list[int]:
        return [p for p in reversed(self.padding) for _ in range(2)]

    def seen(self, x: Tensor) -> Tensor:
        """The pixels that a kernel of one pixel sees."""
        return self._bordered(x)[self._places]

    def back(self, seen: Tensor, x: Tensor) -> Tensor:
        """What belongs to the `seen` pixels as a map like ``x``, zero elsewhere."""
        whole = torch.zeros_like(self._bordered(x))
        whole[self._places] = seen
        rows = zip(self.padding, x.shape[2:], strict=True)
        inner: Any = (..., *(slice(p, p + n) for p, n in rows))
        return whole[inner]

    def _bordered(self, x: Tensor) -> Tensor:
        return F.pad(x, self._ends) if any(self.padding) else x

    @property
    def _places(self) -> Any:
        return (..., *(slice(None, None, step) for step in self.stride))

    def usual_stride(self, kernel: Sequence[int]) -> int | None:
        """The stride of two axes alike, around a square kernel padded by its half; else none."""
        half = len(kernel) == 2 and self.padding == tuple(k // 2 for k in kernel)
        alike = len({*kernel}) == len({*self.stride}) == 1 and self.dilation == (1, 1)
        return self.stride[0] if half and alike and self.mode == "zeros" else None


def window(
    owner: str,
    kernel: Sequence[int],
    stride: Numbers,
    padding: Numbers | str | None,
    dilation: Numbers,
    mode: str,
) -> Window:
    """Read the arguments of a convolution.

    Args:
        owner: Its name.
        kernel: Its largest kernel.
        stride: As in torch.
        padding: As in torch; none, or ``"same"``, keeps the size of a map that has no stride.
        dilation: As in torch.
        mode: Of `MODES`.

    Raises:
        SpaceError: Names the argument and what is allowed.
    """
    axes = len(kernel)
    if mode not in MODES:
        raise SpaceError(f"{owner}: padding_mode is one of {', '.join(MODES)}, found {mode!r}")
    steps = numbers(owner, "stride", stride, axes)
    apart = numbers(owner, "dilation", dilation, axes)
    if padding == "valid":
        padding = 0
    if padding is None or padding == "same":
        spans = [d * (k - 1) for d, k in zip(apart, kernel, strict=True)]
        if any(span % 2 for span in spans):
            raise SpaceError(
                f"{owner}: a kernel of {_shown(kernel)} with a dilation of {_shown(apart)} has no "
                "centre, so its padding cannot be alike at both ends; give the padding as a number"
            )
        return Window(steps, tuple(span // 2 for span in spans), apart, mode)
    if isinstance(padding, str):
        raise SpaceError(f"{owner}: padding is numbers, 'same' or 'valid', found {padding!r}")
    return Window(steps, numbers(owner, "padding", padding, axes, smallest=0), apart, mode)


def numbers(owner: str, name: str, given: Numbers, axes: int, smallest: int = 1) -> tuple[int, ...]:
    """One number per axis.

    Raises:
        SpaceError: There are others than so many, or one is below the smallest.
    """
    found = tuple(given) if isinstance(given, tuple | list) else (given,) * axes
    if len(found) != axes:
        raise SpaceError(f"{owner}: {name} is a number or {axes} of them, found {given!r}")
    for each in found:
        check_sizes(owner, smallest, **{name: each})
    return found


def _shown(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len({*sizes}) == 1 else "x".join(map(str, sizes))
