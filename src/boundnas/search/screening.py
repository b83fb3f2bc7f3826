"""Accuracy from few validation images: those that tell networks apart.

Most images are classified alike by nearly all networks of a supernet. A few pilots, measured on all
images, show which are not; those are drawn with a higher probability, and counted by its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PILOTS = 8
"""Networks that are measured on all images to begin with."""

DOUBT = 0.1
"""Standard deviation that is added to every image's: where all pilots agree another may not."""


@dataclass(frozen=True)
class Sample:
    """Images drawn for screening, and what they count for.

    Args:
        images: Their positions, ascending.
        weights: What each counts for in the accuracy.
        constant: What all the others come to.
    """

    images: Tensor
    weights: Tensor
    constant: float

    @classmethod
    def draw(cls, pilots: Tensor, size: int, generator: torch.Generator) -> Sample:
        """Draw about ``size`` images, each with a probability in proportion to its deviation.

        Args:
            pilots: Which images each of some networks classifies correctly, shape
                ``(networks, images)``.
            size: Number of images, at least one.
            generator: Source of the draw.

        Returns:
            With ``m`` the pilots' mean and ``pi`` the probability of an image, the accuracy of a
            network that is correct where ``c = 1`` is ``mean(m) + sum_drawn((c - m) / pi) / N``:
            unbiased whatever the pilots are (Horvitz and Thompson, 1952), and of least variance
            where ``pi`` is in proportion to the deviation of ``c`` (Neyman, 1934).
        """
        mean = pilots.double().mean(0)
        deviation = (mean * (1 - mean) + DOUBT**2).sqrt()
        probability = _probabilities(deviation, size)
        # Systematic sampling: every image with its probability, and their number is fixed.
        ends = probability.cumsum(0)
        start = torch.rand((), generator=generator, dtype=torch.float64)
        images = (ends - start).ceil().diff(prepend=ends.new_zeros(1)).nonzero()[:, 0]
        weights = 1 / probability[images] / len(mean)
        constant = mean.mean() - (weights * mean[images]).sum()
        return cls(images, weights, float(constant))

    def accuracy(self, correct: Tensor) -> float:
        """Estimate from the images drawn; noise may carry it beyond 0 and 1.

        Args:
            correct: Which of ``images`` are classified correctly.
        """
        return self.constant + float(self.weights[correct].sum())


def _probabilities(deviation: Tensor, size: int) -> Tensor:
    """In proportion to ``deviation`` and of sum ``size``, none above one."""
    certain = torch.zeros(len(deviation), dtype=torch.bool)
    while True:
        rest = deviation.masked_fill(certain, 0)
        left = size - int(certain.sum())
        found = torch.where(certain, 1.0, rest * (left / rest.sum().clamp_min(1e-300)))
        above = found > 1
        if not above.any():
            return found
        certain |= above
