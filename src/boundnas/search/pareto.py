"""Pareto fronts of cost (lower is better) against score (higher is better)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import moocore
import numpy as np


def non_dominated(costs: Sequence[Sequence[float]], scores: Sequence[float]) -> list[int]:
    """The points that no other point beats in one quantity without losing in another.

    Args:
        costs: One row per point, such as MACs and parameters; lower is better.
        scores: One per point, such as accuracy; higher is better.

    Returns:
        Indices of the front in ascending order of the costs: of one cost also of score. Of points
        equal in all, the first.

    Examples:
        >>> non_dominated([[30], [10], [20], [20]], [0.8, 0.5, 0.4, 0.7])
        [1, 3, 0]
        >>> non_dominated([[30, 1], [10, 9], [20, 9]], [0.8, 0.8, 0.8])
        [1, 0]
    """
    if not scores:
        return []
    points = np.array([[*row, score] for row, score in zip(costs, scores, strict=True)], np.float64)
    maximise = [False] * (points.shape[1] - 1) + [True]
    kept = moocore.is_nondominated(points, maximise=maximise).nonzero()[0].tolist()
    return sorted(kept, key=lambda i: list(costs[i]))


def chosen(
    costs: Sequence[float], validation: Sequence[float], budget: float, lower: float
) -> int | None:
    """The network that validation data chooses at a budget.

    Args:
        costs: One per network.
        validation: Its validation score.
        budget: The most that the network may cost.
        lower: Lower end of the range of costs that networks are wanted for. A cheaper network
            stands in only where no network inside the range meets the budget.

    Returns:
        Its index: of the highest validation score, of two equal ones the cheaper. None where
        no network is so cheap.

    Examples:
        >>> chosen([1, 4, 8], [0.5, 0.9, 0.8], budget=9, lower=2)
        1
    """
    affordable = [i for i, cost in enumerate(costs) if cost <= budget]
    inside = [i for i in affordable if costs[i] >= lower]
    return max(inside or affordable, key=lambda i: (validation[i], -costs[i]), default=None)


def mean_over_log_cost(
    costs: Sequence[float],
    validation: Sequence[float],
    test: Sequence[float],
    lower: float,
    upper: float,
    worst: float = 0.0,
) -> float:
    """Score of a front: what validation chooses at a cost is worth on test data, on average.

    ``S = 1 / ln(upper / lower) * integral of test[chosen(c)] d ln(c)`` over the costs ``c`` from
    ``lower`` to ``upper``, where ``chosen(c)`` is `chosen`'s network: a step function of the cost.

    Args:
        costs: Cost of every network, above 0.
        validation: Its validation score, which chooses.
        test: Its test score, which is only read.
        lower: Lower end of the range of costs.
        upper: Its upper end.
        worst: What counts where no network is so cheap.

    Returns:
        The mean. A network that costs more than ``upper`` counts nowhere.

    Examples:
        >>> round(mean_over_log_cost([1, 4, 8], [0.5, 0.9, 0.8], [0.4, 0.8, 1.0], 1, 16), 9)
        0.6
    """
    starts = sorted({lower, *(c for c in costs if lower < c < upper)})
    total = 0.0
    for start, end in pairwise([*starts, upper]):
        i = chosen(costs, validation, start, lower)
        total += (worst if i is None else test[i]) * math.log(end / start)
    return total / math.log(upper / lower)
