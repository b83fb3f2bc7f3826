"""Scores from few validation images: those that tell networks apart.

Most images are classified alike by nearly all networks of a supernet. The first few candidates, the
pilots, are measured on all images and show which are not; those are drawn with a higher
probability, and counted by its inverse. What by such an estimate would be on the front is then
measured on all images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean

import torch
from torch import Tensor

from boundnas.search.journal import Evaluation
from boundnas.space import Architecture

PILOTS = 8
"""Candidates that are measured on all images to begin with, the largest and smallest of them."""

DOUBT = 0.1
"""Standard deviation that is added to every image's, as a part of the reach of all scores: where
all pilots agree another network may not."""


@dataclass(frozen=True)
class Sample:
    """Images drawn for screening, and what they count for.

    Args:
        images: Their positions, ascending.
        weights: What each counts for in the score.
        constant: What all the others come to.
    """

    images: Tensor
    weights: Tensor
    constant: float

    @classmethod
    def draw(cls, pilots: Tensor, size: int, generator: torch.Generator) -> Sample:
        """Draw about ``size`` images, each with a probability in proportion to its deviation.

        Args:
            pilots: Scores of the answers of some networks, such as 1 for an image that is
                classified correctly and 0 for another, shape ``(networks, images)``.
            size: Number of images, at least one.
            generator: Source of the draw.

        Returns:
            With ``m`` the pilots' mean and ``pi`` the probability of an image, the score of a
            network whose answers score ``c`` is ``mean(m) + sum_drawn((c - m) / pi) / N``:
            unbiased whatever the pilots are (Horvitz and Thompson, 1952), and of least variance
            where ``pi`` is in proportion to the deviation of ``c`` (Neyman, 1934).
        """
        scores = pilots.double()
        mean, reach = scores.mean(0), float(scores.max() - scores.min()) or 1.0
        # E[c²] - m², written so that it is m (1 - m) exactly where scores are 0 and 1.
        variance = mean * (1 - mean) + (scores.square().mean(0) - mean)
        deviation = (variance.clamp_min(0) + (DOUBT * reach) ** 2).sqrt()
        probability = _probabilities(deviation, size)
        # Systematic sampling: every image with its probability, and their number is fixed.
        ends = probability.cumsum(0)
        start = torch.rand((), generator=generator, dtype=torch.float64)
        images = (ends - start).ceil().diff(prepend=ends.new_zeros(1)).nonzero()[:, 0]
        weights = 1 / probability[images] / len(mean)
        constant = mean.mean() - (weights * mean[images]).sum()
        return cls(images, weights, float(constant))

    def score(self, scores: Tensor) -> float:
        """Estimate from the images drawn; noise may carry it beyond what scores there are.

        Args:
            scores: Those of the answers to ``images``.
        """
        counts = scores != 0
        weighted = self.weights[counts] * scores[counts].double()
        return self.constant + float(weighted.sum())


@dataclass
class Screening:
    """Measures of what was estimated all that would be on the front.

    Estimates from the same images err together, and those on the front are the lucky ones. So they
    are lowered by as much as they have been above what was then measured, on average.

    Args:
        measure: Measures architectures on all images.
        select: What is selected of some evaluations: a front.
        images: Number of all images: what a score rests on that is measured.
        front: What is selected of all that was evaluated: all of it measured.
    """

    measure: Callable[[Sequence[Architecture]], Iterable[Evaluation]]
    select: Callable[[Iterable[Evaluation]], list[Evaluation]]
    images: int
    front: list[Evaluation] = field(default_factory=list)
    _excess: list[float] = field(default_factory=list)

    def __call__(self, batch: Sequence[Evaluation]) -> list[Evaluation]:
        """Evaluations of the batch in order, some of them estimates, none of those on the front."""
        estimates = {e.architecture: e for e in batch}
        measured = {a: e for a, e in estimates.items() if e.images == self.images}
        while True:
            excess = mean(self._excess) if self._excess else 0.0
            found = [
                measured.get(arch) or replace(e, score=e.score - excess)
                for arch, e in estimates.items()
            ]
            front = self.select([*self.front, *found])
            estimated = estimates.keys() - measured
            unknown = [e.architecture for e in front if e.architecture in estimated]
            if not unknown:
                self.front = front
                return found
            for e in self.measure(unknown):
                measured[e.architecture] = e
                self._excess.append(estimates[e.architecture].score - e.score)


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
