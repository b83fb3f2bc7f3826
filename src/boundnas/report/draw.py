"""Figures of a comparison, as SVG, and the page that shows them."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from boundnas.cost import LatencyTable
from boundnas.report.comparison import Axis, FrontRow
from boundnas.report.content import thin
from boundnas.report.records import RunRecords
from boundnas.search.pareto import chosen
from boundnas.store.records import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

BINS = 4
"""Ranges of cost that sub-networks are sorted into."""

CURVE_POINTS = 50

_COLORS = (
    "#777777", "#1f6feb", "#d1242f", "#2da44e", "#8250df",
    "#bf8700", "#17a2b8", "#e377c2", "#7a4419", "#000000",
)  # fmt: skip
_KINDS = ("width", "depth", "kernel", "se", "activation")


def _drawn(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw with matplotlib as it is by itself, whatever its user's variables and files say."""

    @wraps(draw)
    def plain(*args: P.args, **kwargs: P.kwargs) -> T:
        backend = os.environ.pop("MPLBACKEND", None)  # of a window; the import wants a known one
        log = logging.getLogger("matplotlib")
        level = log.level
        log.setLevel(logging.ERROR)  # it complains of folders for its cache
        try:
            from matplotlib import style

            own = {"svg.hashsalt": "boundnas", "svg.fonttype": "none"}
            with style.context(own, after_reset=True):
                return draw(*args, **kwargs)
        finally:
            log.setLevel(level)
            if backend is not None:
                os.environ["MPLBACKEND"] = backend

    return plain


@_drawn
def fronts(
    groups: Mapping[str, Sequence[Sequence[FrontRow]]],
    lower: float,
    upper: float,
    metric: Metric,
    axis: Axis,
) -> str:
    """Test score over cost: a staircase per seed, and the mean of a group (Figs. 3 to 5)."""
    figure, ((axes,),) = _figure(1, 1, (7, 4.5))
    costs = np.geomspace(lower / 4, upper * 2, 400)
    for color, (label, members) in zip(_cycle(len(groups)), groups.items(), strict=True):
        steps = np.array([_staircase(front, costs, lower) for front in members])
        for row in steps:
            axes.plot(costs / axis.unit, metric.scale * row, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(
            costs / axis.unit, metric.scale * steps.mean(0), color=color, linewidth=2,
            label=f"{label} ({len(members)} seeds)",
        )  # fmt: skip
    axes.axvspan(
        lower / axis.unit, upper / axis.unit, color="#1f6feb", alpha=0.06, label="cost range"
    )
    axes.set(xscale="log", xlabel=axis.label, ylabel=f"test {metric.label}")
    _legend(axes)
    return _svg(figure)


@_drawn
def boxes(
    groups: Mapping[str, np.ndarray], lower: float, upper: float, metric: Metric, axis: Axis
) -> str | None:
    """Score of random sub-networks by range of cost (Fig. 2).

    Args:
        groups: Cost and score of the networks of each group, shape ``(networks, 2)``.
        lower: Lower end of the cost range, which is cut into `BINS`.
        upper: Its upper end.
        metric: What the scores are.
        axis: How the cost is written.
    """
    edges = np.geomspace(lower, upper, BINS + 1)
    figure, ((axes,),) = _figure(1, 1, (7, 4))
    width, drawn = 0.8 / len(groups), False
    for i, (color, (label, points)) in enumerate(
        zip(_cycle(len(groups)), groups.items(), strict=True)
    ):
        bins = np.digitize(points[:, 0], edges) - 1
        columns = [metric.scale * points[bins == b, 1] for b in range(BINS)]
        drawn |= any(map(len, columns))
        places = [b + (i - (len(groups) - 1) / 2) * width for b in range(BINS)]
        drawing = axes.boxplot(
            columns, positions=places, widths=0.8 * width, patch_artist=True, manage_ticks=False,
            flierprops={"markersize": 2},
        )  # fmt: skip
        for box in drawing["boxes"]:
            box.set(facecolor=color, alpha=0.5, label=label if box is drawing["boxes"][0] else "")
    names = [f"{a / axis.unit:.2g} to {b / axis.unit:.2g}" for a, b in pairwise(edges)]
    axes.set_xticks(range(BINS), names)
    axes.set(xlabel=axis.label, ylabel=f"validation {metric.label}")
    _legend(axes)
    return _svg(figure) if drawn else None


@_drawn
def boundaries(groups: Mapping[str, Sequence[RunRecords]]) -> str | None:
    """Mean and deviation of both boundaries over training, darker with depth (Figs. 6 to 11).

    Means over seeds, as a fraction of the largest option; only groups whose boundaries move.
    """
    moving = {g: runs for g, runs in groups.items() if any(map(_moves, runs))}
    searched = {d.kind for runs in moving.values() for d in runs[0].space.dimensions}
    kinds = [kind for kind in _KINDS if kind in searched]
    if not moving or not kinds:
        return None
    figure, rows = _figure(len(moving), len(kinds), (3.2 * len(kinds), 2.8 * len(moving)))
    for row, (label, runs) in zip(rows, moving.items(), strict=True):
        for axes, kind in zip(row, kinds, strict=True):
            _trajectories(axes, runs, kind)
            axes.set(title=f"{label}: {kind}" if kind == kinds[0] else kind, ylim=(-0.02, 1.05))
            axes.title.set(fontsize=8, parse_math=False)
        row[0].set_ylabel("mean option / largest")
    return _svg(figure)


def _trajectories(axes: Axes, runs: Sequence[RunRecords], kind: str) -> None:
    dimensions = [d for d in runs[0].space.dimensions if d.kind == kind]
    for side, color_map in (("max", "Reds"), ("min", "Blues")):
        for i, dimension in enumerate(dimensions):
            shade = _color(color_map, 0.35 + 0.6 * i / max(1, len(dimensions) - 1))
            largest = dimension.numbers[-1] or 1.0
            curves = []
            for run in runs:
                assert run.boundaries is not None
                shown = [run.boundaries[j] for j in thin(len(run.boundaries), CURVE_POINTS)]
                moments = np.array([getattr(r, side)[dimension.name] for r in shown])
                curves.append(moments / largest)
            steps = [r.step for r in shown]
            mean, deviation = np.mean(curves, 0).T
            axes.plot(steps, mean, color=shade, linewidth=1)
            axes.fill_between(
                steps, mean - deviation, mean + deviation, color=shade, alpha=0.04, linewidth=0
            )
    axes.set(xlabel="step")


@_drawn
def predictions(table: LatencyTable) -> str | None:
    """Predicted over measured milliseconds of the networks that a latency table was checked on.

    Args:
        table: A table; without such networks there is nothing to draw.
    """
    if table.validation is None:
        return None
    networks = table.validation.networks
    measured = np.array([n.measured for n in networks]) / 1e6
    figure, ((axes,),) = _figure(1, 1, (5.5, 5))
    ends = np.array([0.8 * measured.min(), 1.25 * measured.max()])
    axes.plot(ends, ends, color="#777777", linewidth=1)
    axes.fill_between(ends, 0.9 * ends, 1.1 * ends, color="#777777", alpha=0.15, label="±10 %")
    for color, label, found in (
        ("#bf8700", "from MACs", [n.by_macs for n in networks]),
        ("#1f6feb", "from the table", [n.predicted for n in networks]),
    ):
        axes.scatter(measured, np.array(found) / 1e6, s=12, color=color, label=label)
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms")
    _legend(axes)
    return _svg(figure)


def page(tables: str, figures: Sequence[str]) -> str:
    """One HTML file with the tables and figures of a comparison."""
    drawings = "\n".join(svg[svg.index("<svg") :] for svg in figures)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Comparison</title>"
        "<style>body{font:15px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "pre{overflow-x:auto}svg{max-width:100%;height:auto}</style>"
        f"<h1>Comparison</h1><pre>{escape(tables)}</pre>{drawings}</html>\n"
    )


def _staircase(front: Sequence[FrontRow], costs: np.ndarray, lower: float) -> np.ndarray:
    """Test score of what validation chooses at each cost; nan below the cheapest network."""
    of_each, validation, test = ([row[i] for row in front] for i in range(3))
    found = [chosen(of_each, validation, cost, lower) for cost in costs]
    return np.array([np.nan if i is None else test[i] for i in found])


def _moves(run: RunRecords) -> bool:
    if not run.boundaries:
        return False
    first, last = run.boundaries[0], run.boundaries[-1]
    return first.max != last.max or first.min != last.min


def _cycle(count: int) -> list[str]:
    return [_COLORS[i % len(_COLORS)] for i in range(count)]


def _color(name: str, amount: float) -> Any:
    from matplotlib import colormaps

    return colormaps[name](amount)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _legend(axes: Axes) -> None:
    """A legend that shows labels as they are: a $ begins no formula."""
    for text in axes.legend(fontsize=8).get_texts():
        text.set_parse_math(False)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
