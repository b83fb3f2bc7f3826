"""The tables of a comparison, computed from its raw numbers: the fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any

import numpy as np

from boundnas.report.comparison import Axis, Comparison, FrontRow
from boundnas.report.interval import t_interval
from boundnas.report.markup import markdown as shown
from boundnas.search.pareto import chosen, mean_over_log_cost
from boundnas.store.records import Metric, said_ranges

BUDGETS = 5
"""Accuracy is read off at so many costs, evenly spaced on a log axis over the cost range."""

SCORE = (
    "the network that validation data chooses at a cost, of those in the range (below its cheapest "
    "one: of the cheaper ones), and its test {}, averaged over log cost"
)


def numbers(comparison: Comparison) -> dict[str, Any]:
    """What ``comparison.json`` holds: the fronts, and what is computed from them.

    Args:
        comparison: Cost range and fronts by group and seed.
    """
    lower, upper = comparison.cost_range
    worst = _worst(comparison)
    budgets = [float(f"{b:.12g}") for b in np.geomspace(lower, upper, BUDGETS)]
    groups = [
        {
            "label": group.label,
            "seeds": {
                seed: {"front": of.front, **_read_off(of.front, lower, upper, budgets, worst)}
                for seed, of in group.seeds.items()
            },
        }
        for group in comparison.groups
    ]
    return {
        "metric": comparison.metric.model_dump(),
        **({} if comparison.cost == "macs" else {"cost": comparison.cost}),
        **({"others": comparison.others} if comparison.others else {}),
        **({"warnings": comparison.warnings} if comparison.warnings else {}),
        "cost_range": [lower, upper],
        "budgets": budgets,
        "groups": groups,
        "differences": [
            _differences(first, other)
            for first, other in combinations(groups, 2)
            if set(first["seeds"]) & set(other["seeds"])
        ],
    }


def _worst(comparison: Comparison) -> float:
    """What counts where no network is so cheap: 0, or of an error the largest that was found."""
    if comparison.metric.scale > 0:
        return 0.0
    return min(row[2] for g in comparison.groups for s in g.seeds.values() for row in s.front)


def _read_off(
    front: Sequence[FrontRow], lower: float, upper: float, budgets: Sequence[float], worst: float
) -> dict[str, Any]:
    """Mean over log cost, and test score at the budgets of one front."""
    costs, validation, test = ([row[i] for row in front] for i in range(3))
    found = [chosen(costs, validation, budget, lower) for budget in budgets]
    return {
        "score": mean_over_log_cost(costs, validation, test, lower, upper, worst),
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
    metric = Metric.model_validate(numbers["metric"])
    name = shown(metric.name)
    axis, others = Axis.of(numbers.get("cost", "macs"), upper), numbers.get("others")
    budgets = [f"{b / axis.unit:.3g}{shown(axis.mark)}" for b in numbers["budgets"]]
    also = f" Only networks of {shown(said_ranges(others))} count." if others else ""
    lines = [
        f"Score, from {lower / axis.unit:g} to {upper / axis.unit:g}{shown(axis.word)}: "
        f"{SCORE.format(name)}.{also} "
        f"At a budget: test {name} of the network that validation data chooses. "
        "Means over seeds and their standard deviation.",
        "",
        *(line for said in numbers.get("warnings", ()) for line in (shown(said), "")),
        "| | seeds | score | " + " | ".join(f"at {b}" for b in budgets) + " |",
        "|---|---|---|" + "---|" * len(budgets),
    ]
    for group in numbers["groups"]:
        rows = list(group["seeds"].values())
        at = [_spread([row["at"][i] for row in rows], metric) for i in range(len(budgets))]
        score = _spread([row["score"] for row in rows], metric)
        lines.append(
            f"| {shown(group['label'])} | {len(rows)} | {score} | " + " | ".join(at) + " |"
        )
    if numbers["differences"]:
        lines += [
            "",
            f"Differences in {_points(metric)}, paired by seed, with Student's 95 % interval of "
            "the mean:",
            "",
            "| | from | seeds | score, by seed | score | "
            + " | ".join(f"at {b}" for b in budgets)
            + " |",
            "|---|---|---|---|---|" + "---|" * len(budgets),
        ]
    for d in numbers["differences"]:
        by_seed = " ".join(f"{metric.scale * x:+{_digits(metric)}}" for x in d["score"]["by_seed"])
        cells = [
            _interval(d[name], metric)
            for name in ("score", *(f"at {i}" for i in range(len(budgets))))
        ]
        lines.append(
            f"| {shown(d['of'])} | {shown(d['from'])} | {len(d['score']['by_seed'])} "
            f"| {by_seed} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def _digits(metric: Metric) -> str:
    return ".2f" if metric.unit == "%" else ".4g"


def _points(metric: Metric) -> str:
    """What differences are counted in."""
    return "percentage points" if metric.unit == "%" else shown(metric.label)


def _spread(values: Sequence[float | None], metric: Metric) -> str:
    found = [metric.scale * v for v in values if v is not None]
    if not found:
        return "none"
    digits = _digits(metric)
    missing = "" if len(found) == len(values) else f" ({len(found)} of {len(values)})"
    deviation = f" ± {stdev(found):{digits}}" if len(found) > 1 else ""
    unit = f" {shown(metric.unit)}" if metric.unit else ""
    return f"{mean(found):{digits}}{deviation}{unit}{missing}"


def _interval(d: Mapping[str, Any] | None, metric: Metric) -> str:
    if d is None:
        return "none"
    digits = f"+{_digits(metric)}"
    middle = f"{metric.scale * d['mean']:{digits}}"
    if d["low"] is None:
        return middle
    low, high = sorted(metric.scale * d[end] for end in ("low", "high"))
    return f"{middle} ({low:{digits}} to {high:{digits}})"
