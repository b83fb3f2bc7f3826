"""Tables and the picture of what was found."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from studies.truth.measured import BOUNDS, rows
from studies.truth.space import BOUNDARIES, Setting
from studies.truth.told import Truth, allowed

Found = Mapping[str, Any]

REGIONS = {
    "whole": "whole space",
    "range": "in the cost range",
    "clipped": "in the clip",
    "learned": "in the learned bounds",
}


def tables(found: Found) -> str:
    """Markdown of everything that `told.numbers` gives."""
    parts = (front(found), recall(found), regret(found), tau(found))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def front(found: Found) -> Iterator[str]:
    """A row for each network of the true front."""
    names = found["front"][0]["network"]
    yield f"| MACs | {' | '.join(names)} | validation | test |"
    yield "|---|" + "---|" * (len(names) + 2)
    for each in found["front"]:
        values = [str(each["network"][name]) for name in names]
        scores = [f"{100 * each[split]:.2f} %" for split in ("validation", "test")]
        yield f"| {each['macs']:,.0f} | {' | '.join((*values, *scores))} |"


def recall(found: Found) -> Iterator[str]:
    """What bounds hold of the true front, beside other bounds of as many networks."""
    yield (
        "| supernet | length | networks inside | of these in the range | recall of the true front "
        "| all bounds as large | of these as useful | as good or better |"
    )
    yield "|---|" + "---|" * 7
    for kind, length, seeds in groups(found):
        chance = [each["by_chance"] for each in seeds]
        cells = (
            each_seed([s["networks"] for s in seeds], "{:.0f}"),
            each_seed([s["wanted"] for s in seeds], "{:.0f}"),
            each_seed([s["recall"] for s in seeds]),
            *(each_seed([c[name] for c in chance]) for name in ("recall", "useful", "as_good")),
        )
        yield f"| {kind} | {length}x | {' | '.join(cells)} |"


def regret(found: Found) -> Iterator[str]:
    """How far what is searched stays behind the true front, in points of test accuracy."""
    names = ("lowest", "", "middle", "", "highest")
    yield (
        "| supernet | length | regret, trained alone | of these by the bounds | regret, inherited "
        "| at the lowest budget | middle | highest |"
    )
    yield "|---|" + "---|" * 7
    best = found["score"]
    for kind, length, seeds in groups(found):
        cells = [
            each_seed([100 * (best - s[name]) for s in seeds], "{:+.2f}")
            for name in ("alone", "best_inside", "inherited")
        ]
        for i, name in enumerate(names):
            if name:
                lost = [100 * (found["at"][i] - s["at"][i]) for s in seeds if s["at"][i]]
                cells.append(each_seed(lost, "{:+.2f}"))
        yield f"| {kind} | {length}x | {' | '.join(cells)} |"


def tau(found: Found) -> Iterator[str]:
    """Rank correlation of inherited and stand-alone accuracy, by region."""
    yield f"| supernet | length | {' | '.join(REGIONS.values())} |"
    yield "|---|---|" + "---|" * len(REGIONS)
    for kind, length, seeds in groups(found):
        cells = [each_seed([s["tau"].get(name) for s in seeds]) for name in REGIONS]
        yield f"| {kind} | {length}x | {' | '.join(cells)} |"
    ceilings = [s["ceiling"] for s in found["supernets"] if s["supernet"] == "learned"]
    cells = [each_seed([c.get(name) for c in ceilings]) for name in REGIONS]
    yield f"| another seed alone | | {' | '.join(cells)} |"


def groups(found: Found) -> Iterator[tuple[str, int, list[Any]]]:
    """The seeds of each supernet."""
    every = found["supernets"]
    for length in sorted({each["length"] for each in every}):
        for kind in BOUNDARIES:
            seeds = [s for s in every if (s["supernet"], s["length"]) == (kind, length)]
            if seeds:
                yield kind, length, seeds


def each_seed(values: Sequence[float | None], form: str = "{:.2f}") -> str:
    """The mean of some seeds, and each of them."""
    there = [value for value in values if value is not None]
    if not there:
        return "none"
    mean = form.format(fmean(there))
    several = len(set(map(form.format, there))) > 1
    return f"{mean} ({', '.join(map(form.format, there))})" if several else mean


def picture(setting: Setting, out: Path) -> str:
    """SVG of all networks alone, the true front, the range, and what bounds hold."""
    from matplotlib import style

    own = {"svg.hashsalt": "boundnas", "svg.fonttype": "none"}
    with style.context(own, after_reset=True):
        return drawn(Truth.read(setting, out), marked(setting, out))


def marked(setting: Setting, out: Path) -> dict[str, list[list[int]]]:
    """Bounds of the first seed of the longest training, by what they are called."""
    which = {"length": max(setting.lengths), "seed": 0}
    asked = {kind: {**which, "supernet": kind} for kind in ("clipped", "learned")}
    return {k: allowed(out, each) for k, each in asked.items() if rows(out / BOUNDS, **each)}


def drawn(truth: Truth, bounds: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """The picture of `picture`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    x, y = truth.macs / 1e6, 100 * truth.test.mean(0)
    lower, upper = (limit / 1e6 for limit in truth.cost_range)
    axes.axvspan(lower, upper, color="#1f6feb", alpha=0.06, label="cost range")
    axes.scatter(x, y, s=10, color="#bbbbbb", label=f"alone ({len(truth.test)} seeds)")
    styles: dict[str, dict[str, Any]] = {
        "learned": {"s": 10, "color": "#1f6feb", "label": "inside the learned bounds"},
        "clipped": {"s": 42, "facecolors": "none", "edgecolors": "#2da44e", "linewidths": 0.7,
                    "label": "inside the clip"},
    }  # fmt: skip
    for kind, options in bounds.items():
        inside = truth.within(options)
        axes.scatter(x[inside], y[inside], **styles[kind])
    of_front = np.array(truth.front)
    axes.plot(x[of_front], y[of_front], "o-", ms=3, lw=1.2, color="#d1242f", label="true front")
    axes.set(xscale="log", xlabel="MMACs", ylabel="test accuracy alone, %")
    axes.legend(fontsize=8)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
