"""Splits held beside one another: samples that two of them share, and inputs of another scale."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from boundnas.nested import Inputs, leaves

FAR = 2.0
"""How many times as wide, or how many deviations away, inputs of another scale are."""

_log = logging.getLogger(__name__)

Moments = tuple[float, float, float]
"""How many numbers, their sum, and that of their squares."""


class Part(Protocol):
    """What is known of a split."""

    @property
    def marks(self) -> set[tuple[bytes, bytes]]:
        """Digests of input and target of each sample."""

    @property
    def moments(self) -> Moments:
        """Of the inputs."""

    def __len__(self) -> int: ...


def moments(inputs: Inputs) -> Moments:
    """Those of an input, its whole numbers left out."""
    parts = [x for _, x in leaves(inputs) if x.is_floating_point()]
    return added((x.numel(), _sum(x), _sum(x.square())) for x in parts)


def added(found: Iterable[Moments]) -> Moments:
    """Those of all of them."""
    parts = list(found)
    number, total, squares = (sum(part[i] for part in parts) for i in range(3))
    return number, total, squares


def tell(name: str, train: Part, others: dict[str, Part]) -> None:
    """Warn of samples that a split shares with training, and of inputs of another scale.

    Args:
        name: Of the data set.
        train: What is trained on, without random transforms.
        others: Splits by name.
    """
    held = train.marks
    for split, part in others.items():
        if shared := len(held & part.marks):
            _log.warning(
                "%s: %s of %s %s samples are training samples too; what is measured on them is "
                "no %s", name, f"{shared:,}", f"{len(part):,}", split, split,
            )  # fmt: skip
        one, other = map(_spread, (train.moments, part.moments))
        if _far(one, other):
            _log.warning(
                "%s: numbers of %s inputs have the mean %.3g and the deviation %.3g, those of "
                "train %.3g and %.3g; a transform may be missing", name, split, *other, *one,
            )  # fmt: skip


def _sum(x: Tensor) -> float:
    return float(x.sum(dtype=torch.float64))


def _spread(found: Moments) -> tuple[float, float]:
    """Mean and deviation."""
    number, total, squares = found
    mean = total / number if number else 0.0
    return mean, max(0.0, squares / number - mean**2) ** 0.5 if number else 0.0


def _far(one: tuple[float, float], other: tuple[float, float]) -> bool:
    (mean, wide), (away, wider) = one, other
    if not wide:
        return False
    return not wide / FAR <= wider <= wide * FAR or abs(away - mean) > FAR * wide
