"""What the report says of latency: what was predicted of the networks, and what was measured."""

from __future__ import annotations

from boundnas.report.content import mmacs
from boundnas.report.records import RunRecords
from boundnas.store.records import NetworkRecord
from boundnas.store.times import LATENCY, LatencyRecord, ms


def latency_note(run: RunRecords) -> str:
    """How the networks were timed; nothing where none was."""
    places = dict.fromkeys(times.where for times in run.times.values())
    if not places:
        return ""
    return (
        f"Each network of the front, timed after it was written: {', and '.join(places)}. Median "
        "and quartiles of passes that took turns. Times differ from one measurement to the next."
    )


def latency_table(run: RunRecords) -> list[tuple[str, ...]]:
    """Times of each network as texts; the first row is the head, none where none was timed."""
    if run.front is None or not run.times:
        return []
    timed = [
        (n, run.times[n.folder]) for n in run.front.networks if n.folder and n.folder in run.times
    ]
    names = tuple(dict.fromkeys(name for _, times in timed for name in times.times))
    predicted = LATENCY in run.front.ranges
    head = (
        "MMACs",
        *(("Predicted, ms",) if predicted else ()),
        *(part for name in names for part in (f"{name}, ms", "Quartiles")),
    )
    return [head, *(_row(network, times, names, predicted) for network, times in timed)]


def _row(
    network: NetworkRecord, times: LatencyRecord, names: tuple[str, ...], predicted: bool
) -> tuple[str, ...]:
    cells = [mmacs(network.costs["macs"])]
    if predicted:
        cells.append(ms(network.costs[LATENCY]))
    for name in names:
        found = times.times.get(name)
        cells.append("none" if found is None else ms(found.median))
        cells.append("" if found is None else f"{ms(found.lower)} to {ms(found.upper)}")
    return tuple(cells)
