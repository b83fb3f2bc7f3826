"""Compare runs from their folders: fronts, scores, accuracy at budgets, boundaries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from boundnas.errors import RunError
from boundnas.extras import require
from boundnas.report import draw
from boundnas.report.comparison import Comparison, FrontRow, GroupRecord, SeedRecord
from boundnas.report.grouping import Group, common_metric, common_ranges, grouped
from boundnas.report.latency import doubts_between
from boundnas.report.markup import markdown as shown
from boundnas.report.tables import markdown, numbers
from boundnas.store.files import write_json, write_text
from boundnas.store.records import FrontRecord, Ranges, lies_inside, said_ranges


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Write tables, figures and raw numbers of a comparison from run folders alone.

    Runs whose configurations differ in the seed only form a group; the first group is the one
    that the others are compared with, paired by seed.

    Args:
        folders: RunRecords folders with a finished search, in any number of groups; or the one
            ``comparison.json`` of an earlier comparison, whose fronts are its raw numbers: its
            tables and its figure of the fronts are made again from them.
        out: Folder for ``comparison.md``, ``comparison.json``, ``comparison.html`` and figures; of
            runs of several costs a folder of these for each, and the tables of all.

    Returns:
        ``out``.

    Raises:
        ExtraError: A library that draws or counts is missing.
        RunError: A run has no front yet, two runs are the same, cost ranges differ, or a file is
            damaged.
    """
    require("a comparison", "matplotlib", "scipy")
    if len(folders) == 1 and folders[0].is_file():
        _write(out, Comparison.read(folders[0]), {})
        return out
    groups = grouped(folders)
    found = [_raw(groups, cost) for cost in common_ranges(groups)]
    if len(found) == 1:
        _write(out, found[0], _figures(groups, found[0]))
        return out
    for one in found:
        _write(_inside(out, one), one, _figures(groups, one))
    _join(out, found)
    return out


def _inside(out: Path, one: Comparison) -> Path:
    """Where the comparison along a cost is written, whatever its name is."""
    return out / (re.sub(r"[^\w.-]|^\.+", "_", one.cost) or "_")


def _raw(groups: Sequence[Group], cost: str) -> Comparison:
    """The fronts of the groups along a cost: what everything else is computed from.

    Raises:
        RunError: No network lies inside the ranges of the other costs.
    """
    ranges = dict(common_ranges(groups))
    found = Comparison(
        metric=common_metric(groups),
        cost=cost,
        cost_range=ranges.pop(cost),
        others=ranges,
        warnings=list(doubts_between(groups)),
        groups=[
            GroupRecord(
                label=group.label,
                seeds={
                    str(seed): SeedRecord(front=_rows(front, cost, ranges))
                    for seed, front in group.fronts().items()
                },
            )
            for group in groups
        ],
    )
    if not any(seed.front for group in found.groups for seed in group.seeds.values()):
        raise RunError(
            f"no network of these runs lies inside {said_ranges(found.others)}, so that there is "
            f"nothing to compare by {cost}; search longer"
        )
    return found


def _rows(front: FrontRecord, cost: str, others: Ranges) -> list[FrontRow]:
    """Cost, validation and test score of the networks that validation data selected.

    Args:
        front: The front.
        cost: The cost.
        others: Of other costs the ranges that networks must lie inside.
    """
    networks = (n for n in [*front.networks, *front.outside] if lies_inside(n.costs, others))
    return [(n.costs[cost], n.validation, n.test) for n in networks]


def _figures(groups: Sequence[Group], one: Comparison) -> dict[str, str | None]:
    """What is drawn from more than the fronts."""
    points = {g.label: g.random_networks(one.cost) for g in groups}
    return {
        "sub-networks": draw.boxes(points, *one.cost_range, one.metric, one.axis),
        "boundaries": draw.boundaries({g.label: list(g.runs.values()) for g in groups}),
    }


def _join(out: Path, found: Sequence[Comparison]) -> None:
    """One page of all tables, and one of all figures."""
    tables = "\n\n".join(f"## {shown(one.cost)}\n\n{markdown(numbers(one))}" for one in found)
    pictures = [path for one in found for path in sorted(_inside(out, one).glob("*.svg"))]
    links = [f"![{p.stem}, {p.parent.name}]({p.relative_to(out)})" for p in pictures]
    write_text(out / "comparison.md", "\n\n".join([tables, *links]) + "\n")
    drawn = [path.read_text() for path in pictures]
    write_text(out / "comparison.html", draw.page(tables, drawn))


def _write(out: Path, comparison: Comparison, figures: Mapping[str, str | None]) -> None:
    fronts = {g.label: [s.front for s in g.seeds.values()] for g in comparison.groups}
    front = draw.fronts(fronts, *comparison.cost_range, comparison.metric, comparison.axis)
    drawn = {"fronts": front, **figures}
    there = {name: svg for name, svg in drawn.items() if svg is not None}
    held = numbers(comparison)
    tables = markdown(held)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", held)
    for name, svg in there.items():
        write_text(out / f"{name}.svg", svg)
    pictures = [f"![{name}]({name}.svg)" for name in there]
    write_text(out / "comparison.md", "\n\n".join([tables, *pictures]) + "\n")
    write_text(out / "comparison.html", draw.page(tables, list(there.values())))
