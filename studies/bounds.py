"""Where boundaries ended, by kind of dimension: ``python -m studies.bounds RUN RUN …``.

The runs differ in their seed alone. What was learned shows in how far dimensions of one kind differ
from each other, against how far one and the same dimension differs from seed to seed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev

from boundnas.errors import RunError
from boundnas.report.records import read_run
from boundnas.space import Dimension
from boundnas.store.records import BoundsRecord

Ends = tuple[float, float]
"""The smallest and the largest option that is left of a dimension, as parts of its largest."""


def ends(bounds: BoundsRecord) -> dict[Dimension, Ends]:
    """What a run left of each dimension that has something to choose."""
    found = {}
    for row in bounds.dimensions:
        dimension = Dimension(row.name, tuple(row.choices), row.kind)
        if len(dimension) > 1:
            left = [dimension.numbers[dimension.index(value)] for value in row.allowed]
            found[dimension] = left[0] / dimension.numbers[-1], left[-1] / dimension.numbers[-1]
    return found


def table(runs: Sequence[BoundsRecord]) -> str:
    """A row of Markdown for every kind of dimension and each boundary.

    Args:
        runs: What the runs ended with; all of one space.
    """
    lines = [
        "| kind | boundary | mean | least and most, means over seeds | between dimensions | "
        "between seeds |",
        "|---|---|---|---|---|---|",
    ]
    each = list(map(ends, runs))
    for kind in dict.fromkeys(dimension.kind for dimension in each[0]):
        for which, name in enumerate(("lower", "upper")):
            rows = [[run[d][which] for run in each] for d in each[0] if d.kind == kind]
            lines.append(f"| {kind} | {name} | {' | '.join(_columns(rows))} |")
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[float]]) -> Iterator[str]:
    """Mean and spreads of a boundary of all dimensions of a kind, a row of seeds for each."""
    means = list(map(fmean, rows))
    yield f"{fmean(means):.2f}"
    yield f"{min(means):.2f} to {max(means):.2f}"
    yield f"{pstdev(means):.2f}"
    yield f"{fmean(pstdev(row) ** 2 for row in rows) ** 0.5:.2f}"


def held(folder: Path) -> BoundsRecord:
    """What a run ended with.

    Raises:
        RunError: Its training has not ended.
    """
    bounds = read_run(folder).bounds
    if bounds is None:
        raise RunError(f"{folder}: its training has not ended; finish it first")
    return bounds


if __name__ == "__main__":
    print(table([held(Path(folder)) for folder in sys.argv[1:]]))
