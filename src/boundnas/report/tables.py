"""The tables of a comparison, computed from its raw numbers: the fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any

import numpy as np

from boundnas.report.comparison import Comparison, FrontRow
from boundnas.report.interval import t_interval
from boundnas.report.markup import markdown as shown
from boundnas.search.pareto import chosen, mean_over_log_cost

BUDGETS = 5
"""Accuracy is read off at so many costs, evenly spaced on a log axis over the cost range."""

SCORE = (
    "the network that validation data chooses at a cost, of those in the range (below its cheapest "
    "one: of the cheaper ones), and its test accuracy, averaged over log cost"
)


def numbers(comparison: Comparison) -> dict[str, Any]:
    """What ``comparison.json`` holds: the fronts, and what is computed from them.

    Args:
        comparison: Cost range and fronts by group and seed.
    """
    lower, upper = comparison.cost_range
    budgets = [float(f"{b:.12g}") for b in np.geomspace(lower, upper, BUDGETS)]
    groups = [
        {
            "label": group.label,
            "seeds": {
                seed: {"front": of.front, **_read_off(of.front, lower, upper, budgets)}
                for seed, of in group.seeds.items()
            },
        }
        for group in comparison.groups
    ]
    return {
        "cost_range": [lower, upper],
        "budgets": budgets,
        "groups": groups,
        "differences": [
            _differences(first, other)
            for first, other in combinations(groups, 2)
            if set(first["seeds"]) & set(other["seeds"])
        ],
    }


def _read_off(
    front: Sequence[FrontRow], lower: float, upper: float, budgets: Sequence[float]
) -> dict[str, Any]:
    """Score and test accuracy at the budgets of one front."""
    costs, validation, test = ([row[i] for row in front] for i in range(3))
    found = [chosen(costs, validation, budget, lower) for budget in budgets]
    return {
        "score": mean_over_log_cost(costs, validation, test, lower, upper),
        "at": [None if i is None else test[i] for i in found],
    }


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Paired by seed: in the score and at each budget."""
    paired = [
        ([a["score"], *a["at"]], [other["seeds"][seed]["score"], *other["seeds"][seed]["at"]])
        for seed, a in first["seeds"].items()
        if seed in other["seeds"]
    ]
    named = ["score", *(f"at {i}" for i in range(BUDGETS))]
    columns = {
        name: [b[i] - a[i] for a, b in paired if a[i] is not None and b[i] is not None]
        for i, name in enumerate(named)
    }
    return {
        "of": other["label"],
        "from": first["label"],
        **{name: _difference(found) for name, found in columns.items()},
    }


def _difference(found: list[float]) -> dict[str, Any] | None:
    """Mean, its 95 % interval where there is one, and the differences themselves."""
    if not found:
        return None
    low, high = t_interval(found) or (None, None)
    return {"mean": mean(found), "low": low, "high": high, "by_seed": found}


def markdown(numbers: Mapping[str, Any]) -> str:
    """The tables of a comparison."""
    lower, upper = numbers["cost_range"]
    budgets = [f"{b / 1e6:.3g}" for b in numbers["budgets"]]
    lines = [
        f"Score, from {lower / 1e6:g} to {upper / 1e6:g} million: {SCORE}. "
        "At a budget: test accuracy of the network that validation data chooses. "
        "Means over seeds and their standard deviation.",
        "",
        "| | seeds | score | " + " | ".join(f"at {b} M" for b in budgets) + " |",
        "|---|---|---|" + "---|" * len(budgets),
    ]
    for group in numbers["groups"]:
        rows = list(group["seeds"].values())
        at = [_spread([row["at"][i] for row in rows]) for i in range(len(budgets))]
        score = _spread([row["score"] for row in rows])
        lines.append(
            f"| {shown(group['label'])} | {len(rows)} | {score} | " + " | ".join(at) + " |"
        )
    if numbers["differences"]:
        lines += [
            "",
            "Differences in percentage points, paired by seed, with Student's 95 % interval of "
            "the mean:",
            "",
            "| | from | seeds | score, by seed | score | "
            + " | ".join(f"at {b} M" for b in budgets)
            + " |",
            "|---|---|---|---|---|" + "---|" * len(budgets),
        ]
    for d in numbers["differences"]:
        by_seed = " ".join(f"{100 * x:+.2f}" for x in d["score"]["by_seed"])
        cells = [_interval(d["score"]), *(_interval(d[f"at {i}"]) for i in range(len(budgets)))]
        lines.append(
            f"| {shown(d['of'])} | {shown(d['from'])} | {len(d['score']['by_seed'])} "
            f"| {by_seed} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    found = [100 * v for v in values if v is not None]
    if not found:
        return "none"
    missing = "" if len(found) == len(values) else f" ({len(found)} of {len(values)})"
    deviation = f" ± {stdev(found):.2f}" if len(found) > 1 else ""
    return f"{mean(found):.2f}{deviation} %{missing}"


def _interval(d: Mapping[str, Any] | None) -> str:
    if d is None:
        return "none"
    if d["low"] is None:
        return f"{100 * d['mean']:+.2f}"
    return f"{100 * d['mean']:+.2f} ({100 * d['low']:+.2f} to {100 * d['high']:+.2f})"
