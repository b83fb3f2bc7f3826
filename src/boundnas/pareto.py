"""Pareto fronts of cost (lower is better) against score (higher is better)."""

import math
from collections.abc import Sequence

import moocore
import numpy as np


def non_dominated(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """The points that no other point beats in one quantity without losing in the other.

    Args:
        costs: One per point, such as MACs; lower is better.
        scores: One per point, such as accuracy; higher is better.

    Returns:
        Indices of the front in ascending order of cost, and so of score. Of points equal in
        both, the first.

    Example:
        >>> non_dominated([30, 10, 20, 20], [0.8, 0.5, 0.4, 0.7])
        [1, 3, 0]
    """
    points = np.array([costs, scores], dtype=np.float64).T
    kept = moocore.is_nondominated(points, maximise=[False, True]).nonzero()[0].tolist()
    return sorted(kept, key=lambda i: costs[i])


def hypervolume(
    costs: Sequence[float],
    scores: Sequence[float],
    reference_cost: float,
    reference_score: float,
    log_cost: bool = True,
) -> float:
    """Area between a front and a reference point that is worse in both quantities.

    Args:
        costs: One per point; lower is better. Positive when ``log_cost``.
        scores: One per point; higher is better.
        reference_cost: Points that cost as much or more add nothing.
        reference_score: Points that score as little or less add nothing.
        log_cost: Measure cost by its natural logarithm, so that halving it counts the same for
            a small network as for a large one.

    Returns:
        The area, in units of score times (log) cost. Only fronts measured from the same
        reference compare.

    Example:
        >>> hypervolume([10, 20], [0.5, 0.7], 30, 0.0, log_cost=False)
        12.0
    """
    scale = math.log if log_cost else float
    points = np.array([[scale(c) for c in costs], scores], dtype=np.float64).T
    reference = [scale(reference_cost), reference_score]
    return float(moocore.hypervolume(points, ref=reference, maximise=[False, True]))


def mean_over_log_cost(
    costs: Sequence[float], accuracies: Sequence[float], lower: float, upper: float
) -> float:
    """Score of a front: the best accuracy at a cost, averaged over the logarithm of the cost.

    It is the hypervolume that the front dominates between ``lower`` and ``upper``, on a log cost
    axis and down to accuracy zero, divided by the width of that range.

    Args:
        costs: Cost of every network, above 0.
        accuracies: Accuracy of every network, 0 to 1.
        lower: Lower end of the range of costs.
        upper: Its upper end.

    Returns:
        0 to 1; below the cheapest network's cost accuracy counts as 0.

    Example:
        >>> round(mean_over_log_cost([1, 4], [0.5, 0.9], 1, 16), 9)
        0.7
    """
    within = [max(cost, lower) for cost in costs]
    return hypervolume(within, accuracies, upper, 0.0) / math.log(upper / lower)
