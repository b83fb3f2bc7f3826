"""Compare runs from their folders: fronts, scores, accuracy at budgets, boundaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from boundnas.config import RunConfig, read_config
from boundnas.errors import RunError
from boundnas.pareto import mean_over_log_cost
from boundnas.randomness import stream
from boundnas.report.records import Front, Run, read_run
from boundnas.store.files import write_json, write_text
from boundnas.studies import draw

BUDGETS = 5
"""Accuracy is read off at so many costs, evenly spaced on a log axis over the cost range."""

RESAMPLES = 10_000
"""Bootstrap resamples of the seeds."""

_NOT_COMPARED = {"name", "seed", "threads", "device", "export"}
"""Parts of a configuration that runs of one group may differ in."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only.

    Args:
        label: What sets it apart from the other groups.
        runs: By seed, in ascending order.
        initial: Size of the first population of their searches.
    """

    label: str
    runs: Mapping[int, Run]
    initial: int

    def fronts(self) -> dict[int, Front]:
        """Fronts by seed."""
        return {seed: run.front for seed, run in self.runs.items() if run.front is not None}

    def random_networks(self) -> np.ndarray:
        """Cost and validation accuracy of the first populations, shape ``(networks, 2)``.

        Without their two extremes these are uniform samples between the boundaries.
        """
        points = []
        for seed, front in self.fronts().items():
            evaluations = self.runs[seed].evaluations or []
            points += [
                (getattr(e, front.cost_metric), e.accuracy) for e in evaluations[2 : self.initial]
            ]
        return np.array(points).reshape(-1, 2)


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Write tables, figures and raw numbers of a comparison from run folders alone.

    Runs whose configurations differ in the seed only form a group; the first group is the one
    that the others are compared with, paired by seed.

    Args:
        folders: Run folders with a finished search, in any number of groups.
        out: Folder for ``comparison.md``, ``comparison.json``, ``comparison.html`` and figures.

    Returns:
        ``out``.

    Raises:
        RunError: A run has no front yet, two runs are the same, or cost ranges differ.
    """
    groups = grouped(folders)
    lower, upper = _common_range(groups)
    budgets = [lower * (upper / lower) ** (i / (BUDGETS - 1)) for i in range(BUDGETS)]
    numbers = {
        "cost_range": [lower, upper],
        "budgets": budgets,
        "groups": [_numbers(group, lower, upper, budgets) for group in groups],
    }
    numbers["differences"] = [
        {
            "of": other["label"],
            "from": first["label"],
            **{
                quantity: _difference(first["seeds"], other["seeds"], quantity, i)
                for quantity, i in [("score", None), *((f"at {i}", i) for i in range(BUDGETS))]
            },
        }
        for first, other in combinations(numbers["groups"], 2)
        if set(first["seeds"]) & set(other["seeds"])
    ]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", numbers)
    figures = {
        "fronts": draw.fronts({g.label: list(g.fronts().values()) for g in groups}, lower, upper),
        "sub-networks": draw.boxes({g.label: g.random_networks() for g in groups}, lower, upper),
        "boundaries": draw.boundaries({g.label: list(g.runs.values()) for g in groups}),
    }
    for name, svg in figures.items():
        if svg is not None:
            write_text(out / f"{name}.svg", svg)
    tables = markdown(numbers)
    shown = [name for name, svg in figures.items() if svg is not None]
    write_text(
        out / "comparison.md",
        "\n\n".join([tables, *(f"![{name}]({name}.svg)" for name in shown)]) + "\n",
    )
    write_text(out / "comparison.html", draw.page(tables, [s for s in figures.values() if s]))
    return out


def grouped(folders: Sequence[Path]) -> list[Group]:
    """Runs by everything that their configurations have but the seed.

    Raises:
        RunError: A folder is no run with a front, or two are of one configuration and seed.
    """
    found: dict[str, dict[int, Run]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for folder in folders:
        run, config = read_run(folder), read_config(folder / "config.yaml")
        if run.front is None:
            raise RunError(
                f"{folder}: has no front.json yet; finish it with boundnas search {folder}"
            )
        flat = _flat(config)
        key = repr(flat)
        if config.seed in found.setdefault(key, {}):
            raise RunError(
                f"{folder}: an earlier run has the same configuration and seed {config.seed}; "
                "give each run once"
            )
        found[key][config.seed] = run
        settings[key] = flat
    labels = _labels(list(settings.values()))
    return [
        Group(label, dict(sorted(runs.items())), settings[key]["search.initial"])
        for label, (key, runs) in zip(labels, found.items(), strict=True)
    ]


def _flat(config: RunConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    add("", config.model_dump(mode="json", exclude=_NOT_COMPARED))
    return flat


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Per group the values of the keys in which the groups differ, kept short."""
    differing = [k for k in settings[0] if any(s.get(k) != settings[0].get(k) for s in settings)]

    def said(key: str, value: Any) -> str:
        name = key.rpartition(".")[2]
        if name == "stages" or name == "stem":
            return "" if value is None else _searched(value)
        return f"{name} {value}"

    labels = [
        ", ".join(filter(None, (said(k, s.get(k)) for k in differing))) or "all" for s in settings
    ]
    repeated = len(set(labels)) < len(labels)
    return [f"{label} ({i})" for i, label in enumerate(labels, 1)] if repeated else labels


def _searched(tables: Any) -> str:
    """What a table of stages searches beside widths; nothing for a stem, which follows them."""
    if isinstance(tables, dict):
        return ""
    kinds = ["depth", "kernel", "se", "activation"]
    found = [k for k in kinds if any(len(stage[k]) > 1 for stage in tables)]
    return " + ".join(["widths", *found])


def _common_range(groups: Sequence[Group]) -> tuple[float, float]:
    ranges = {
        (front.cost_metric, *front.cost_range)
        for group in groups
        for front in group.fronts().values()
    }
    if len(ranges) > 1:
        said = "; ".join(f"{metric} {a / 1e6:g} to {b / 1e6:g} million" for metric, a, b in ranges)
        raise RunError(f"these runs have different cost ranges: {said}; compare runs of one range")
    ((_, lower, upper),) = ranges
    return lower, upper


def _numbers(group: Group, lower: float, upper: float, budgets: Sequence[float]) -> dict[str, Any]:
    def of(front: Front) -> dict[str, Any]:
        every = [*front.networks, *front.dominated_on_test]
        costs = [getattr(n, front.cost_metric) for n in every]
        return {
            "score": mean_over_log_cost(costs, [n.test_accuracy for n in every], lower, upper),
            "at": [_selected(front, budget) for budget in budgets],
            "front": [
                [c, n.validation_accuracy, n.test_accuracy]
                for c, n in zip(costs, every, strict=True)
            ],
        }

    return {
        "label": group.label,
        "seeds": {str(seed): of(front) for seed, front in group.fronts().items()},
    }


def _selected(front: Front, budget: float) -> float | None:
    """Test accuracy of the network that validation data selects at a budget, if one is so cheap."""
    every = [*front.networks, *front.dominated_on_test]
    affordable = [n for n in every if getattr(n, front.cost_metric) <= budget * (1 + 1e-9)]
    if not affordable:
        return None
    return max(affordable, key=lambda n: n.validation_accuracy).test_accuracy


def _difference(
    first: Mapping[str, Any], other: Mapping[str, Any], quantity: str, budget: int | None
) -> dict[str, Any] | None:
    """Paired difference with a bootstrap 95 % interval of its mean over seeds."""

    def value(numbers: Mapping[str, Any]) -> float | None:
        found = numbers["score"] if budget is None else numbers["at"][budget]
        return None if found is None else float(found)

    pairs = [(value(first[s]), value(other[s])) for s in first if s in other]
    found = [b - a for a, b in pairs if a is not None and b is not None]
    if not found:
        return None
    values = torch.tensor(found, dtype=torch.float64)
    draws = torch.randint(
        len(found), (RESAMPLES, len(found)), generator=stream(0, f"bootstrap/{quantity}")
    )
    low, high = values[draws].mean(1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return {"mean": mean(found), "low": low, "high": high, "by_seed": found}


def markdown(numbers: Mapping[str, Any]) -> str:
    """The tables of a comparison."""
    lower, upper = numbers["cost_range"]
    budgets = [f"{b / 1e6:.3g}" for b in numbers["budgets"]]
    lines = [
        f"Score: mean over log cost, from {lower / 1e6:g} to {upper / 1e6:g} million, of the best "
        "test accuracy at that cost. At a budget: test accuracy of the network that validation "
        "data selects. Means over seeds and their standard deviation.",
        "",
        "| | seeds | score | " + " | ".join(f"at {b} M" for b in budgets) + " |",
        "|---|---|---|" + "---|" * len(budgets),
    ]
    for group in numbers["groups"]:
        rows = list(group["seeds"].values())
        at = [_spread([row["at"][i] for row in rows]) for i in range(len(budgets))]
        score = _spread([row["score"] for row in rows])
        lines.append(f"| {group['label']} | {len(rows)} | {score} | " + " | ".join(at) + " |")
    if numbers["differences"]:
        lines += [
            "",
            "Differences in percentage points, paired by seed, with the bootstrap 95 % interval "
            "of the mean:",
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
            f"| {d['of']} | {d['from']} | {len(d['score']['by_seed'])} | {by_seed} | "
            + " | ".join(cells)
            + " |"
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
    if math.isclose(d["low"], d["high"]):
        return f"{100 * d['mean']:+.2f}"
    return f"{100 * d['mean']:+.2f} ({100 * d['low']:+.2f} to {100 * d['high']:+.2f})"
