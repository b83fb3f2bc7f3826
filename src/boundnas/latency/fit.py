"""What predictions are worth: networks over the whole range, some to fit to and others to check."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from boundnas.randomness import stream
from boundnas.space import Architecture, SearchSpace

FITTED, CHECKED = 20, 52
"""Networks that offset and scale are fitted to, and others that are predicted."""

CANDIDATES = 600
"""Networks that these are chosen from."""

LEFT = 0.25
"""So much of the smallest amount at most is taken off by an offset below zero, so that all that is
predicted lies above it."""

Fit = tuple[int, float]
"""Offset in nanoseconds and scale."""


def fitted(amounts: Sequence[float], times: Sequence[int]) -> Fit:
    """Offset and scale with the least squared relative error of ``offset + scale * amount``.

    The offset is below zero where long networks are slower than the sum of their blocks by more
    than short ones, which find more in the caches of what the pass before left there. Where all
    amounts are zero it is an offset alone, and the scale is 1.

    Args:
        amounts: What times are predicted from, such as the sum of the blocks.
        times: What was measured.

    Examples:
        >>> fitted([10, 20, 40], [25, 45, 85])
        (5, 2.0)
        >>> fitted([1000, 2000], [900, 2000])  # the longer one is slower by more
        (-200, 1.1)
        >>> fitted([1000, 2000], [1000, 3000])  # at most a quarter of the smallest is taken off
        (-369, 1.47692308)
        >>> fitted([0, 0], [10, 10])
        (10, 1.0)
    """
    x, y = np.array(amounts, dtype=float), np.array(times, dtype=float)
    if not x.any():
        return round((1 / y).sum() / (1 / y**2).sum()), 1.0
    both, most = np.stack([1 / y, x / y], 1), LEFT * x.min()
    offset, scale = np.linalg.lstsq(both, np.ones(len(y)), rcond=None)[0]
    if scale <= 0 or offset < -scale * most:
        left = (x - most) / y
        scale = float(left.sum() / (left**2).sum())
        offset = -scale * most
    return round(offset), float(f"{scale:.9g}")


def spread_out(
    space: SearchSpace, predict: Callable[[Architecture], int], seed: int
) -> list[Architecture]:
    """Networks over the whole range of predictions, evenly on a scale of ratios, fastest first.

    Args:
        space: The search space.
        predict: What they are told apart by.
        seed: Of the draw.

    Returns:
        `FITTED` and `CHECKED` ones, or all of a space that has fewer. The smallest and the largest
        one are among them.
    """
    generator = stream(seed, "latency networks")
    drawn = [space.smallest, space.largest]
    drawn += [_drawn(space, generator, number) for number in range(CANDIDATES)]
    times = {arch: predict(arch) for arch in dict.fromkeys(drawn)}
    left = sorted(times, key=times.__getitem__)
    logs = np.log([max(times[arch], 1) for arch in left])
    chosen = []
    for target in np.linspace(logs[0], logs[-1], min(FITTED + CHECKED, len(left))):
        nearest = int(np.abs(logs - target).argmin())
        chosen.append(left.pop(nearest))
        logs = np.delete(logs, nearest)
    return sorted(chosen, key=times.__getitem__)


def _drawn(space: SearchSpace, generator: torch.Generator, number: int) -> Architecture:
    """One of three is any network; others are about equally far in all dimensions, since any
    networks of many dimensions are all of middle size.
    """
    if number % 3 == 0:
        return space.sample(generator)
    middle = torch.rand((), generator=generator, dtype=torch.float32)
    far = middle + 0.25 * torch.randn(len(space), generator=generator, dtype=torch.float32)
    sizes = torch.tensor([len(d) for d in space.dimensions])
    places = (far.clamp(0, 0.999) * sizes).long()
    return Architecture(space, tuple(places.tolist()))


def parted(number: int) -> tuple[list[int], list[int]]:
    """Which of so many networks, ordered by time, are fitted to, and which are checked.

    Examples:
        >>> parted(5)
        ([0, 4], [1, 2, 3])
    """
    count = max(round(number * FITTED / (FITTED + CHECKED)), 2)
    fit = {math.floor(i * (number - 1) / (count - 1) + 0.5) for i in range(count)}
    return sorted(fit), [i for i in range(number) if i not in fit]
