"""What the report says: sentences for people, and the numbers behind its figures."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boundnas.errors import RunError, SpaceError
from boundnas.fit.reopen import recorded_ranges
from boundnas.report.comparison import Axis
from boundnas.report.records import RunRecords
from boundnas.space import Dimension, SearchSpace, Value
from boundnas.store.records import (
    CostRange,
    EvaluationRecord,
    FrontRecord,
    NetworkRecord,
    nearest,
    said_ranges,
)
from boundnas.store.times import said_amount

CURVE_POINTS = 500
"""Points drawn per training curve: more than the pixels a reader can tell apart."""

BOUNDARY_POINTS = 100
"""Points drawn per boundary: a space has dozens, and a page should stay well under 1 MB."""

LEARNED = {
    "both": "learning both boundaries of the search space",
    "min": "learning the lower boundary of the search space",
    "max": "learning the upper boundary of the search space",
    "none": "with the boundaries of the search space fixed",
}

CURVES = ("loss_max", "loss_min", "loss_random", "learning_rate")


def summary(run: RunRecords) -> str:
    """The run in one paragraph: the front, its best network, and how it was trained."""
    learn = re.search(r"^\s*learn:\s*['\"]?(both|min|max|none)\b", run.config or "", re.MULTILINE)
    noted = {} if run.bounds is None else run.bounds.identity  # of a run made from Python
    learned = learn[1] if learn else json.loads(noted.get("train.learn", "null"))
    how = f", {LEARNED[learned]}" if learned else ""
    training = f"The supernet was trained for {_count(run.metrics[-1].step + 1, 'step')}{how}."
    if run.front is None:
        return f"{training} There is no front yet."
    if not run.front.networks:
        return f"{_nothing_inside(run.front)} {training}"
    networks = run.front.networks
    cost = next(iter(run.front.ranges))
    costs = sorted(network.costs[cost] for network in networks)
    best = max(networks, key=lambda network: network.validation)
    several = len(networks) > 1
    scores = [run.front.metric.shown(score) for score in (best.validation, best.test)]
    return (
        f"The search found a front of {_count(len(networks), 'network')} inside the range asked "
        f"for, "
        f"{f'from {_amount(cost, costs[0])} to' if several else 'of'} "
        f"{_said(cost, costs[-1])}. Of these validation data chooses that of "
        f"{' and '.join(_said(name, best.costs[name]) for name in {**run.front.ranges, 'macs': 0})}"
        f", which reaches {scores[0]} there and {scores[1]} on test data. "
        f"{training}"
    )


def _amount(cost: str, value: float) -> str:
    return mmacs(value) if cost == "macs" else said_amount(cost, value)


def _said(cost: str, value: float) -> str:
    return f"{_amount(cost, value)} {'MMACs' if cost == 'macs' else cost}"


def _nothing_inside(front: FrontRecord) -> str:
    near = nearest(front.outside, front.ranges)
    costs = " and ".join(f"{said_amount(n, near.costs[n])} {n}" for n in front.ranges)
    return (
        "No network that the search measured lies inside the range asked for, "
        f"{said_ranges(front.ranges)}; the nearest of its front has {costs}."
    )


def notes(run: RunRecords) -> dict[str, str]:
    """Per section of the page, the sentence over its figure, or what is not there yet."""
    return {
        "front": _front_note(run),
        "boundaries": ""
        if run.boundaries
        else "Not there yet: boundaries.jsonl, which training writes.",
        "classes": _classes_note(run),
        "bounds": _bounds_note(run),
        "config": "" if run.config is not None else "Not there: config.yaml.",
        "machine": "" if run.environment is not None else "Not there: environment.json.",
    }


def _front_note(run: RunRecords) -> str:
    if run.evaluations is None and run.front is None:
        return (
            "Not there yet: search/evaluations.jsonl and front.json. "
            "They come from the search, which runs on a trained supernet."
        )
    said = f"The search measured {_count(len(run.evaluations or ()), 'network')} on validation data"
    if run.front is None:
        return f"{said}. Not there yet: front.json, which comes at the end of the search."
    inside, outside = len(run.front.networks), len(run.front.outside)
    return (
        f"{said}, which chose {_count(inside, 'network')} inside the range asked for; test data "
        "dropped none and only measured them. "
        + (
            f"{_count(outside, 'network')} outside the range "
            f"{'is' if outside == 1 else 'are'} drawn hollow."
            if outside
            else "None of the front lies outside the range."
        )
    )


def _bounds_note(run: RunRecords) -> str:
    if run.bounds is None:
        return "Not there yet: bounds.json, which comes at the end of training."
    clip = run.bounds.clip
    left = "" if clip is None else " that is left"
    return (
        ("" if clip is None else f"{clip.said.capitalize()}. ")
        + f"At the start the max policy drew the largest option{left} with probability "
        f"{run.bounds.p_largest:.2f} and the min policy the smallest with "
        f"{run.bounds.p_smallest:.2f}, averaged over dimensions. "
        "These are the probabilities at the end; "
        "the search draws from the marked options."
        + ("" if run.bounds.largest is None else f" Trained before: {run.bounds.largest.said}.")
    )


def _classes_note(run: RunRecords) -> str:
    if run.front is None:
        return "Not there yet: front.json, which comes at the end of the search."
    if not run.front.classes:
        return f"The {run.front.metric.name} of this run is not known of each class."
    return (
        f"The {run.front.metric.name} on the test images of each class, by the network that "
        "validation data chooses, and the lowest and highest of all networks of the front. A "
        "figure rests on as many images as stand under Test."
    )


def class_table(run: RunRecords) -> list[tuple[str, ...]]:
    """Images and scores of each class as texts; the first row is the head, none without a front."""
    if run.front is None or not run.front.classes:
        return []
    front, shown = run.front, run.front.metric.shown
    networks = [*front.networks, *front.outside]
    among = front.networks or front.outside
    chosen = networks.index(max(among, key=lambda network: network.validation))
    rows: list[tuple[str, ...]] = [
        ("Class", "Training", "Validation", "Test", "Chosen", "Lowest", "Highest")
    ]
    for result in front.classes:
        known = [score for score in result.scores if score is not None]
        scores = (result.scores[chosen], min(known, default=None), max(known, default=None))
        images = (result.train, result.validation, result.test)
        texts = ("none" if score is None else shown(score) for score in scores)
        rows.append((result.name, *(f"{count:,}" for count in images), *texts))
    return rows


def figures(run: RunRecords) -> dict[str, Any]:
    """The numbers behind the figures, thinned and rounded, ready for JSON.

    Architectures are strings with a character per dimension: ``chr(48 + index)``.

    Raises:
        RunError: An architecture or a boundary does not belong to the run's search space.
    """
    searched = _searched(run)
    costs = {name: searched.get(name) for name in (*searched, "macs", "parameters")}
    return {
        "space": run.space.to_json(),
        "costs": [_cost(run, name, limits) for name, limits in costs.items()],
        "metric": None if run.metric is None else run.metric.model_dump(),
        "evaluated": None
        if run.evaluations is None
        else [
            [_costs(e, costs), significant(e.score), _packed(run.space, e.architecture)]
            for e in run.evaluations
        ],
        "front": None
        if run.front is None
        else {
            "networks": [_network(run.space, n, costs) for n in run.front.networks],
            "outside": [_network(run.space, n, costs) for n in run.front.outside],
        },
        "boundaries": _boundaries(run),
        "bounds": _bounds(run),
        "training": _training(run),
        "validation": _validation(run),
    }


def _searched(run: RunRecords) -> dict[str, CostRange | None]:
    """The costs that networks were searched for, and their ranges; before, those of training."""
    if run.front is not None:
        return {**run.front.ranges}
    return {} if run.bounds is None else {**recorded_ranges(run.bounds)}


def _cost(run: RunRecords, name: str, limits: CostRange | None) -> dict[str, Any]:
    """How a cost is written that networks are shown by."""
    found = [e.costs.get(name, 0) for e in run.evaluations or ()]
    if run.front is not None:
        found += [n.costs.get(name, 0) for n in (*run.front.networks, *run.front.outside)]
    # Where nobody asked for them they are told to the last one.
    most = 0 if name == "parameters" and limits is None else max(found, default=0)
    return {**_axis(name, most), "range": limits}


def _axis(name: str, most: float) -> dict[str, Any]:
    axis, title = Axis.of(name, most), "MACs" if name == "macs" else name
    return {"name": name, "title": title, "label": axis.label, "unit": axis.unit}


def _costs(measured: EvaluationRecord | NetworkRecord, names: Iterable[str]) -> list[int | None]:
    return [measured.costs.get(name) for name in names]


def _network(space: SearchSpace, network: NetworkRecord, costs: Iterable[str]) -> list[Any]:
    return [
        _costs(network, costs),
        significant(network.validation),
        _packed(space, network.architecture),
        significant(network.test),
        network.folder,
    ]


def _packed(space: SearchSpace, values: Mapping[str, Value]) -> str:
    try:
        return "".join(chr(48 + i) for i in space.architecture(values).indices)
    except SpaceError as error:
        raise RunError(f"an architecture does not fit the run's space.json: {error}") from error


def _boundaries(run: RunRecords) -> dict[str, Any] | None:
    if not run.boundaries:
        return None
    rows = [run.boundaries[i] for i in thin(len(run.boundaries), BOUNDARY_POINTS)]

    def curve(dimension: Dimension, side: str) -> list[list[float | None]]:
        largest = dimension.numbers[-1] or 1.0
        moments = [getattr(row, side).get(dimension.name) for row in rows]
        if None in moments:
            raise RunError(f"boundaries.jsonl: {dimension.name} is in space.json, not in every row")
        return [[significant(m[k] / largest, 3) for m in moments] for k in (0, 1)]

    return {
        "steps": [row.step for row in rows],
        "max": [curve(d, "max") for d in run.space.dimensions],
        "min": [curve(d, "min") for d in run.space.dimensions],
    }


def _bounds(run: RunRecords) -> list[dict[str, Any]] | None:
    if run.bounds is None:
        return None
    return [
        {
            "max": [significant(p, 3) for p in bound.max],
            "min": [significant(p, 3) for p in bound.min],
            "allowed": [c in bound.allowed for c in bound.choices],
        }
        for bound in run.bounds.dimensions
    ]


def _training(run: RunRecords) -> dict[str, Any]:
    reach = max(1, len(run.metrics) // 50)
    shown = thin(len(run.metrics), CURVE_POINTS)

    def curve(raw: Sequence[float | None], name: str = "") -> list[list[float | None]]:
        smooth = raw if name == "learning_rate" else moving_mean(raw, reach)
        return [[significant(values[i]) for i in shown] for values in (raw, smooth)]

    curves = {name: curve([getattr(row, name) for row in run.metrics], name) for name in CURVES}
    costs = {
        cost: {
            f"cost_{role}": curve([getattr(row, f"cost_{role}").get(cost) for row in run.metrics])
            for role in ("max", "min")
        }
        | _axis(cost, max(row.cost_max.get(cost, 0) for row in run.metrics))
        for cost in run.metrics[-1].cost_max
    }
    steps = [run.metrics[i].step for i in shown]
    ranges = {} if run.bounds is None else recorded_ranges(run.bounds)
    return {"steps": steps, "window": 2 * reach + 1, **curves, "costs": costs, "ranges": ranges}


def _validation(run: RunRecords) -> dict[str, Any]:
    """Scores while it trained: the max and min network's, and the mean of those between."""
    rows = [run.validation[i] for i in thin(len(run.validation), CURVE_POINTS)]
    curves: dict[str, Sequence[float | None]] = {
        "score_max": [row.max.score for row in rows],
        "score_min": [row.min.score for row in rows],
        "score_random": [
            statistics.fmean(n.score for n in row.between) if row.between else None for row in rows
        ],
    }
    shown = {name: list(map(significant, scores)) for name, scores in curves.items()}
    metric = rows[-1].metric.model_dump() if rows else None  # a front's may be another
    return {"steps": [r.step for r in rows], "metric": metric} | {
        name: [scores, scores] for name, scores in shown.items()
    }


def moving_mean(values: Sequence[float | None], reach: int) -> list[float | None]:
    """The mean of each value and its finite neighbours up to ``reach`` away on either side.

    Examples:
        >>> moving_mean([1.0, 2.0, None, 4.0], 1)
        [1.5, 1.5, 3.0, 4.0]
    """
    finite = [v is not None and math.isfinite(v) for v in values]
    sums, counts = [0.0], [0]
    for value, counted in zip(values, finite, strict=True):
        sums.append(sums[-1] + (value if value is not None and counted else 0.0))
        counts.append(counts[-1] + counted)
    means: list[float | None] = []
    for i in range(len(values)):
        low, high = max(0, i - reach), min(len(values), i + reach + 1)
        count = counts[high] - counts[low]
        means.append((sums[high] - sums[low]) / count if count else None)
    return means


def thin(length: int, limit: int) -> list[int]:
    """At most ``limit`` evenly spaced indices below ``length``, the first and the last included.

    Examples:
        >>> thin(9, 3)
        [0, 4, 8]
    """
    if length <= limit:
        return list(range(length))
    return [round(i * (length - 1) / (limit - 1)) for i in range(limit)]


def significant(value: float | None, digits: int = 5) -> float | None:
    """``value`` to so many significant digits; ``None`` for what JSON has no number for.

    Examples:
        >>> significant(0.123456789), significant(float("nan"))
        (0.12346, None)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def mmacs(macs: float) -> str:
    """MACs in millions, to three significant digits or the whole number.

    Examples:
        >>> mmacs(3_456_000), mmacs(106_700_000), mmacs(1_234_500_000)
        ('3.46', '107', '1,234')
    """
    millions = macs / 1e6
    return f"{millions:,.0f}" if millions >= 100 else f"{millions:.3g}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
