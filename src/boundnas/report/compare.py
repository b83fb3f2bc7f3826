"""Compare runs from their folders: fronts, scores, accuracy at budgets, boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from boundnas.extras import require
from boundnas.report import draw
from boundnas.report.comparison import Comparison, FrontRow, GroupRecord, SeedRecord
from boundnas.report.grouping import Group, common_metric, common_range, grouped
from boundnas.report.tables import markdown, numbers
from boundnas.store.files import write_json, write_text
from boundnas.store.records import FrontRecord


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Write tables, figures and raw numbers of a comparison from run folders alone.

    Runs whose configurations differ in the seed only form a group; the first group is the one
    that the others are compared with, paired by seed.

    Args:
        folders: RunRecords folders with a finished search, in any number of groups; or the one
            ``comparison.json`` of an earlier comparison, whose fronts are its raw numbers: its
            tables and its figure of the fronts are made again from them.
        out: Folder for ``comparison.md``, ``comparison.json``, ``comparison.html`` and figures.

    Returns:
        ``out``.

    Raises:
        ExtraError: A library that draws or counts is missing.
        RunError: A run has no front yet, two runs are the same, cost ranges differ, or a file is
            damaged.
    """
    require("a comparison", "matplotlib", "scipy")
    if len(folders) == 1 and folders[0].is_file():
        comparison, figures = Comparison.read(folders[0]), {}
    else:
        groups = grouped(folders)
        comparison, figures = _raw(groups), _figures(groups)
    _write(out, comparison, figures)
    return out


def _raw(groups: Sequence[Group]) -> Comparison:
    """The fronts of the groups: what everything else is computed from."""
    return Comparison(
        metric=common_metric(groups),
        cost_range=common_range(groups),
        groups=[
            GroupRecord(
                label=group.label,
                seeds={str(s): SeedRecord(front=_rows(f)) for s, f in group.fronts().items()},
            )
            for group in groups
        ],
    )


def _rows(front: FrontRecord) -> list[FrontRow]:
    """Cost, validation and test score of every network that validation data selected."""
    return [(n.costs[front.cost], n.validation, n.test) for n in [*front.networks, *front.outside]]


def _figures(groups: Sequence[Group]) -> dict[str, str | None]:
    """What is drawn from more than the fronts."""
    lower, upper = common_range(groups)
    points = {g.label: g.random_networks() for g in groups}
    return {
        "sub-networks": draw.boxes(points, lower, upper, common_metric(groups)),
        "boundaries": draw.boundaries({g.label: list(g.runs.values()) for g in groups}),
    }


def _write(out: Path, comparison: Comparison, figures: Mapping[str, str | None]) -> None:
    fronts = {g.label: [s.front for s in g.seeds.values()] for g in comparison.groups}
    drawn = {"fronts": draw.fronts(fronts, *comparison.cost_range, comparison.metric), **figures}
    shown = {name: svg for name, svg in drawn.items() if svg is not None}
    held = numbers(comparison)
    tables = markdown(held)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", held)
    for name, svg in shown.items():
        write_text(out / f"{name}.svg", svg)
    pictures = [f"![{name}]({name}.svg)" for name in shown]
    write_text(out / "comparison.md", "\n\n".join([tables, *pictures]) + "\n")
    write_text(out / "comparison.html", draw.page(tables, list(shown.values())))
