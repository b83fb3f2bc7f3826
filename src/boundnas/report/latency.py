"""What the report says of latency: what its table is worth, and what networks were measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from boundnas.cost.latency import doubts_of
from boundnas.cost.table import NEAR, Held, LatencyTable
from boundnas.report.content import mmacs
from boundnas.report.grouping import Group, common_ranges
from boundnas.report.records import RunRecords
from boundnas.store.records import NetworkRecord
from boundnas.store.times import LATENCY, LatencyRecord, ms

SIDE, MARGIN = 360, 48
"""Pixels of the picture, and around it."""


def measured_note(run: RunRecords) -> str:
    """How the networks were timed; nothing where none was."""
    places = dict.fromkeys(times.where for times in run.times.values())
    if not places:
        return ""
    return (
        f"Each network of the front, timed after it was written: {', and '.join(places)}. Median "
        "and quartiles of passes that took turns. Times differ from one measurement to the next."
    )


def measured_table(run: RunRecords) -> list[tuple[str, ...]]:
    """Times of each network as texts; the first row is the head, none where none was timed."""
    if run.front is None or not run.times:
        return []
    timed = [(n, t) for n in run.front.networks if (t := run.times.get(n.folder or ""))]
    names = tuple(dict.fromkeys(name for _, times in timed for name in times.times))
    predicted = LATENCY in run.front.ranges
    head = (
        "MMACs",
        *(("Predicted, ms",) if predicted else ()),
        *(part for name in names for part in (f"{name}, ms", "Quartiles")),
    )
    return [head, *(_row(network, times, names, predicted) for network, times in timed)]


def _row(
    network: NetworkRecord, times: LatencyRecord, names: Sequence[str], predicted: bool
) -> tuple[str, ...]:
    cells = [mmacs(network.costs["macs"])]
    if predicted:
        cells.append(ms(network.costs[LATENCY]))
    for name in names:
        found = times.times.get(name)
        cells.append("none" if found is None else ms(found.median))
        cells.append("" if found is None else f"{ms(found.lower)} to {ms(found.upper)}")
    return tuple(cells)


def table_note(table: LatencyTable) -> str:
    """What predicted the latency of networks, and how well."""
    said = f"Predicted by a table: {table.where}."
    if (held := table.validation) is None:
        return said
    return (
        f"{said} Of {len(held.networks)} networks that it was not fitted to, {held.near:.0%} were "
        f"predicted to within {NEAR:.0%}, the mean error is {held.error:.1%}. Rank correlation of "
        f"predicted and measured times: {held.spearman:.3f}; of MACs and measured times: "
        f"{held.spearman_of_macs:.3f}."
    )


def table_doubt(table: LatencyTable | None, timed: Iterable[LatencyRecord] = ()) -> str:
    """A warning where predictions should not be relied on; else nothing.

    Args:
        table: What predicts; none where that is not kept.
        timed: What was measured of the networks that it predicts.
    """
    return " ".join(f"Take care: {said}." for said in doubts_of(table, timed))


def doubts_between(groups: Sequence[Group]) -> Iterator[str]:
    """What should be known before runs are compared by latency; nothing where they are not."""
    if LATENCY not in common_ranges(groups):
        return
    tables = [(group.label, run.table) for group in groups for run in group.runs.values()]
    said = ((label, table_doubt(table)) for label, table in tables)
    yield from (f"Latency of {label}: {doubt}" for label, doubt in dict.fromkeys(said) if doubt)
    places = dict.fromkeys(table.where for _, table in tables if table is not None)
    if len(places) > 1:
        yield (
            "Take care: the milliseconds of these runs are not the same, as they were predicted by "
            f"tables of {' and of '.join(places)}."
        )


def validation_picture(networks: Sequence[Held]) -> str:
    """Predicted over measured milliseconds, as SVG, with lines a tenth beside the diagonal."""
    ends = [time for n in networks for time in (n.predicted, n.measured)]
    low, high = 0.95 * min(ends), 1.05 * max(ends)
    return (
        f'<svg viewBox="0 0 {SIDE + 2 * MARGIN} {SIDE + 2 * MARGIN}" width="{SIDE}" role="img" '
        'aria-label="Predicted over measured milliseconds of networks that were held out">'
        f"{''.join(_drawn(networks, low, high))}</svg>"
    )


def _drawn(networks: Sequence[Held], low: float, high: float) -> Iterator[str]:
    def x(time: float) -> float:
        return round(MARGIN + SIDE * (time - low) / (high - low), 1)

    def y(time: float) -> float:
        return round(2 * MARGIN + SIDE - x(time), 1)

    frame = f'x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}"'
    yield f'<clipPath id="inside"><rect {frame}/></clipPath>'
    yield f'<rect {frame} fill="none" stroke="currentColor" opacity="0.4"/>'
    for factor, dash in ((1.0, ""), (1 - NEAR, "4"), (1 + NEAR, "4")):
        a, b = factor * low, factor * high
        yield (
            f'<line x1="{x(low)}" y1="{y(a)}" x2="{x(high)}" y2="{y(b)}" stroke="currentColor" '
            f'opacity="0.4" stroke-dasharray="{dash}" clip-path="url(#inside)"/>'
        )
    for n in networks:
        said = f"{ms(n.measured)} ms measured, {ms(n.predicted)} predicted"
        if n.quartiles is not None:
            left, right = map(x, n.quartiles)
            yield (
                f'<line x1="{left}" y1="{y(n.predicted)}" x2="{right}" y2="{y(n.predicted)}" '
                'stroke="currentColor" opacity="0.4" clip-path="url(#inside)"/>'
            )
        yield (
            f'<circle cx="{x(n.measured)}" cy="{y(n.predicted)}" r="3" fill="currentColor" '
            f'opacity="0.7"><title>{said}</title></circle>'
        )
    for time in (low, (low + high) / 2, high):
        yield _text(x(time), SIDE + MARGIN + 16, ms(time))
        yield _text(MARGIN - 22, y(time) + 4, ms(time))
    yield _text(MARGIN + SIDE / 2, SIDE + 2 * MARGIN - 12, "measured, ms, with quartiles")
    yield _text(MARGIN + SIDE / 2, MARGIN - 12, "predicted over measured, lines at 10 % beside")


def _text(x: float, y: float, text: str) -> str:
    place = f'x="{x}" y="{y}" text-anchor="middle" font-size="12" fill="currentColor"'
    return f"<text {place}>{text}</text>"
