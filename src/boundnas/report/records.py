"""All records of a run folder, and whether they belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from boundnas.cost import LatencyTable
from boundnas.cost.latency import predictions
from boundnas.errors import RunError, SpaceError
from boundnas.search.validation import ValidationRow
from boundnas.space import Dimension, SearchSpace
from boundnas.store.files import find_bytes
from boundnas.store.folder import KEPT
from boundnas.store.held import HeldFolder
from boundnas.store.lines import END, check_rows
from boundnas.store.records import (
    BoundsRecord,
    EnvironmentRecord,
    EvaluationRecord,
    FrontRecord,
    Metric,
    NetworkRecord,
    Origin,
    SpaceRecord,
    read_journal,
    read_record,
    read_rows,
)
from boundnas.store.rows import BoundariesRow, MetricsRow
from boundnas.store.times import LATENCY, LatencyRecord


@dataclass(frozen=True)
class RunRecords:
    """What a run folder holds; ``None`` where a later step has not written its file yet.

    ``times`` has those of the networks that were timed, by their folders; ``table`` predicts the
    latency of the front's networks, if that is a cost of them.
    """

    name: str
    space: SearchSpace
    metrics: Sequence[MetricsRow]
    boundaries: Sequence[BoundariesRow] | None
    bounds: BoundsRecord | None
    validation: Sequence[ValidationRow]
    metric: Metric | None
    evaluations: Sequence[EvaluationRecord] | None
    front: FrontRecord | None
    times: Mapping[str, LatencyRecord]
    table: LatencyTable | None
    config: str | None
    environment: dict[str, JsonValue] | None


def read_run(folder: Path) -> RunRecords:
    """Read a run folder, during or after training, with or without a search.

    Args:
        folder: The run folder.

    Raises:
        RunError: The folder, ``space.json`` or ``metrics.jsonl`` is missing, there is no step
            yet, or a file is damaged. Names the file and the line.
    """
    held = _held(folder)
    dimensions = read_record(folder / "space.json", SpaceRecord, held)
    metrics = read_rows(folder / "metrics.jsonl", MetricsRow, held)
    if dimensions is None or not metrics:
        name, found = ("metrics.jsonl", metrics) if dimensions else ("space.json", None)
        raise RunError(
            f"{folder / name} {'is missing' if found is None else 'holds no step yet'}: "
            "a report needs a run whose training has begun; train it first"
        )
    space = _space(folder / "space.json", dimensions)
    environment = read_record(folder / "environment.json", EnvironmentRecord, held)
    bounds = read_record(folder / "bounds.json", BoundsRecord, held)
    journal = folder / "search" / "evaluations.jsonl"
    origins, evaluations, sums = _evaluations(journal, held)
    front = read_record(folder / "front.json", FrontRecord, held)
    if front is not None:
        front = _without_missing(front, folder)
    if front is not None and evaluations is not None and front.journal not in sums:
        raise RunError(
            f"{journal}: lacks rows that front.json was selected from; restore the file, or "
            f"remove both and run boundnas search {folder}"
        )
    if bounds is not None:
        _check_weights(folder, bounds, *origins, front)
        _check_trained(folder, bounds, dimensions, held)
    validation = read_rows(folder / "validation.jsonl", ValidationRow, held) or []
    measured = [each for each in (front, *origins, *validation) if each]
    return RunRecords(
        name=folder.resolve().name,
        space=space,
        metrics=metrics,
        boundaries=read_rows(folder / "boundaries.jsonl", BoundariesRow, held),
        bounds=bounds,
        validation=validation,
        metric=measured[0].metric if measured else None,
        evaluations=evaluations,
        front=front,
        times=_times(front, folder, held),
        table=_table(folder, space, front, held),
        config=_text(folder / "config.yaml", held),
        environment=None if environment is None else environment.root,
    )


def _held(folder: Path) -> HeldFolder:
    try:
        return HeldFolder(folder)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder}: no such run folder ({getattr(error, 'strerror', None) or error}); "
            "give the folder that training wrote"
        ) from error


def _without_missing(front: FrontRecord, folder: Path) -> FrontRecord:
    """A front whose networks name their folders only where these are there by now."""

    def of(network: NetworkRecord) -> NetworkRecord:
        there = network.folder is not None and (folder / network.folder).is_dir()
        return network if there else network.model_copy(update={"folder": None})

    return front.model_copy(update={"networks": list(map(of, front.networks))})


def _table(
    folder: Path, space: SearchSpace, front: FrontRecord | None, held: HeldFolder
) -> LatencyTable | None:
    """The run's latency table, if it is the one that the front's latency was predicted by.

    A search may have been handed another one, which is not kept.
    """
    table = read_record(folder / KEPT, LatencyTable, held)
    if table is None or front is None or LATENCY not in front.ranges:
        return table
    predict = predictions(space, table)
    found = ((space.architecture(n.architecture), n) for n in (*front.networks, *front.outside))
    return table if all(predict(arch) == n.costs[LATENCY] for arch, n in found) else None


def _times(front: FrontRecord | None, folder: Path, held: HeldFolder) -> dict[str, LatencyRecord]:
    """What was measured of the exported networks of a front, by their folders."""
    found = {}
    for place in [n.folder for n in front.networks if n.folder] if front else []:
        times = read_record(folder / place / "latency.json", LatencyRecord, held)
        if times is not None:
            found[place] = times
    return found


def _evaluations(
    path: Path, held: HeldFolder
) -> tuple[list[Origin], list[EvaluationRecord] | None, set[str]]:
    """The journal's first line, if it is there yet, its evaluations, and the sums of all lines."""
    if find_bytes(path, held=held) is None:
        return [], None, set()
    try:
        rows = list(read_journal(path, Origin, EvaluationRecord, held))
    except RunError as error:
        raise RunError(f"{error}; restore the file, or remove it and search again") from error
    evaluations = [row for row in rows if isinstance(row, EvaluationRecord)]
    return [row for row in rows if isinstance(row, Origin)], evaluations, {r.sum for r in rows}


def _check_trained(
    folder: Path, bounds: BoundsRecord, space: SpaceRecord, held: HeldFolder
) -> None:
    """Refuse logs or a space that are not those of the finished training."""
    if [(d.name, d.kind, d.choices) for d in bounds.dimensions] != [
        (d.name, d.kind, d.choices) for d in space.root
    ]:
        raise RunError(
            f"{folder / 'space.json'}: is not the space of bounds.json; restore the file, or run "
            f"boundnas search {folder}, which writes it anew"
        )
    for name, written in bounds.logs.items():
        path = folder / f"{name}.jsonl"
        if find_bytes(path, held=held) is not None:
            try:
                check_rows(path, END, written, held)
            except RunError as error:
                raise RunError(f"{error} by bounds.json; restore the file") from error


def _check_weights(folder: Path, bounds: BoundsRecord, *found: Origin | None) -> None:
    """Refuse a journal or front of other weights than the training ended with."""
    for origin in found:
        if origin is not None and origin.identity["weights"] != bounds.weights:
            what = (
                "front.json is"
                if isinstance(origin, FrontRecord)
                else "search/evaluations.jsonl is"
            )
            raise RunError(
                f"{folder}: {what} of other weights than the training ended with by bounds.json; "
                f"remove it and run boundnas search {folder}"
            )


def _space(path: Path, dimensions: SpaceRecord) -> SearchSpace:
    try:
        return SearchSpace([Dimension(d.name, tuple(d.choices), d.kind) for d in dimensions.root])
    except SpaceError as error:
        raise RunError(f"{path}: {error}") from error


def _text(path: Path, held: HeldFolder) -> str | None:
    data = find_bytes(path, held=held)
    return None if data is None else data.decode(errors="replace")
