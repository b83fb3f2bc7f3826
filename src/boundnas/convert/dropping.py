"""Modules that drop branches, told by what they do: every code base has its own ``DropPath``."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

_SHAPES = ((400, 3, 2, 2), (400, 3, 2), (400, 3))
"""Of maps that such a module is tried with; it may take some of them only."""
_DEVIATIONS = 6
"""By so many standard deviations the number of those that were dropped may be off."""


def dropped(module: nn.Module) -> float | None:
    """The probability with which a module drops all of a sample and scales the others up.

    Args:
        module: It is not changed, and no global random number is drawn.

    Returns:
        None for a module that does anything else.
    """
    if type(module).__module__.startswith("torch.") or any(True for _ in module.children()):
        return None
    if any(True for _ in (*module.parameters(), *module.buffers())):
        return None
    known = [v for v in vars(module).values() if isinstance(v, float) and 0 < v < 1]
    return next((p for p in known if _drops(module, p)), None)


def _drops(module: nn.Module, p: float) -> bool:
    tried = 0
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for shape in _SHAPES:
            x = torch.rand(shape, dtype=torch.float32) + 1
            try:
                twin = copy.deepcopy(module)
                y, same = twin.train()(x.clone()), twin.eval()(x.clone())
            except Exception:  # whatever a forward may raise
                continue
            if not isinstance(y, Tensor) or not _fits(x, y, p) or not torch.equal(x, same):
                return False
            tried += 1
    return tried > 0


def _fits(x: Tensor, y: Tensor, p: float) -> bool:
    """Whether samples are nothing, or all of what they were scaled up, about as often as said."""
    if y.shape != x.shape:
        return False
    factors = (y / x).flatten(1)
    gone, kept = (factors == 0).all(1), ((factors * (1 - p) - 1).abs() < 1e-5).all(1)
    deviation = (p * (1 - p) * len(x)) ** 0.5
    return bool((gone | kept).all()) and abs(int(gone.sum()) - p * len(x)) < _DEVIATIONS * deviation
