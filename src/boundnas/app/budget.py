"""The network of a run's front for a budget: ``boundnas best RUN --macs 5M``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from boundnas.cost.budget import as_written
from boundnas.cost.latency import doubts_of, warnings_of
from boundnas.deploy.networks import SUMS, timed, verify
from boundnas.errors import ConfigError, RunError
from boundnas.report.records import RunRecords, read_run
from boundnas.search import Front
from boundnas.store.folder import KEPT, RunFolder
from boundnas.store.records import ExportRecord, FrontRecord, NetworkRecord, Scored
from boundnas.store.times import LATENCY, LatencyRecord, said_amount

FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
"""What may follow a number, and what it is multiplied by."""

TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
"""What must follow a time, likewise."""

_NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?([a-zA-Z]*)", re.ASCII)


def budget(arguments: Sequence[str]) -> dict[str, float]:
    """Limits from the words of a command line, each of them at most once.

    Raises:
        ConfigError: Something else than a limit, or one that is no number above 0.

    Examples:
        >>> budget(["--macs", "5M", "--parameters=20k"])
        {'macs': 5000000.0, 'parameters': 20000.0}
        >>> budget(["--latency", "8ms"])
        {'latency': 8000000.0}
    """
    named = _named(arguments, "--macs 5M")
    return {name[2:]: _number(name, text) for name, text in named}


def ranges(arguments: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Ranges from the words of a command line, each of them at most once.

    Raises:
        ConfigError: Something else than a range of two numbers above 0.

    Examples:
        >>> ranges(["--macs", "1M..5M", "--parameters=2k..20k"])
        {'macs': (1000000.0, 5000000.0), 'parameters': (2000.0, 20000.0)}
    """
    found = {}
    for name, text in _named(arguments, "--macs 1M..5M"):
        lower, dots, upper = text.partition("..")
        if not dots:
            raise ConfigError(
                f"{name}: must be a range, the least and the most with .. between them, as in "
                f"{name} 1M..5M; found {text or 'nothing'}"
            )
        limits = _number(name, lower), _number(name, upper)
        if limits[0] >= limits[1]:
            raise ConfigError(f"{name}: a range ascends, found {text}")
        found[name[2:]] = limits
    return found


def _named(arguments: Sequence[str], form: str) -> Iterator[tuple[str, str]]:
    """What the words of a command line say of each name."""
    words = [part for word in arguments for part in _parted(word)]
    names = set[str]()
    for name, text in zip(words[::2], [*words[1::2], ""], strict=False):
        if re.fullmatch(r"--[A-Za-z_][\w.-]*", name) is None:
            raise ConfigError(
                f"{name}: is no limit; write the name of a cost and its limits, as in {form}"
            )
        if name in names:
            raise ConfigError(f"{name}: is given twice; keep one")
        names.add(name)
        yield name, text


def _parted(word: str) -> Sequence[str]:
    return word.split("=", 1) if word.startswith("--") else [word]


def _number(name: str, text: str) -> float:
    units = TIMES if name[2:] == LATENCY else FACTORS
    found = _NUMBER.fullmatch(text)
    factor = units.get(found[3]) if found else None
    value = as_written(float(found[1] + (found[2] or "")), factor) if found and factor else 0.0
    if not 0 < value < math.inf:
        behind = "k, M or G behind it for thousands, millions or billions, as in"
        said = f"ns, us, ms or s behind it, as in {name} 8ms" if units is TIMES else ""
        raise ConfigError(
            f"{name}: must be a number above 0, with {said or f'{behind} {name} 5M'}; "
            f"found {text or 'nothing'}"
        )
    return value


def best(run: Path, limits: Mapping[str, float]) -> str:
    """What there is to say of the most accurate network of a run's front within a budget.

    Latency is what was predicted, if the run's cost was latency, else what was measured of the
    exported networks.

    Args:
        run: The run folder.
        limits: Most of each cost, by its name and in its own unit; none for no limit.

    Raises:
        RunError: There is no front yet, it does not belong to the run's weights, or no network of
            it is within the budget; names what the smallest costs.
        ExportError: The network's files are not what was written.
    """
    folder = RunFolder.open(run)
    records = read_run(folder.path)
    if (held := records.front) is None:
        raise RunError(f"{run}: has no front yet; boundnas search {run} finds it")
    priced = held
    if LATENCY in limits and LATENCY not in held.ranges:
        priced = _timed(run, held, records.times)
    networks, outside = (cast(Any, tuple(n)) for n in (priced.networks, priced.outside))
    front, metric = Front(held.ranges, networks, outside), held.metric
    network = cast(Any, front.best(**limits))
    there = next(n for n in held.networks if n.architecture == network.architecture)
    rows = [
        *((name, said_amount(name, cost)) for name, cost in network.costs.items()),
        *_doubts(records, there),
        (f"validation {metric.name}", metric.shown(network.validation)),
        (f"test {metric.name}", metric.shown(network.test)),
        *_exported(run, folder, there, folder.path / front.folder(network)),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in rows)


def _timed(run: Path, front: FrontRecord, times: Mapping[str, LatencyRecord]) -> FrontRecord:
    """A front of the networks that were timed, with what was measured among their costs.

    Raises:
        RunError: None was.
    """
    networks = [
        n.model_copy(update={"costs": {**n.costs, LATENCY: t.unquantized.median}})
        for n in front.networks
        if (t := times.get(n.folder or ""))
    ]
    if not networks:
        raise RunError(
            f"{run}: was not trained for latency, and its networks were not timed; write latency: "
            f"true into the section export of its config.yaml, then boundnas export {run}; from "
            "Python boundnas.export_front(run, latency=True)"
        )
    return front.model_copy(update={"networks": networks, "outside": []})


def _doubts(records: RunRecords, network: NetworkRecord) -> Iterator[tuple[str, str]]:
    """Rows about a latency that is predicted."""
    if LATENCY in network.costs:
        table = records.table
        doubts = doubts_of(None) if table is None else warnings_of(table)
        yield from (("take care", f"{KEPT}: {said}") for said in doubts)


def _exported(
    run: Path, folder: RunFolder, network: NetworkRecord, place: Path
) -> Iterator[tuple[str, str]]:
    """Rows about the files of a network."""
    if not place.is_dir():
        yield "files", f"none yet; boundnas export {run} writes them"
        return
    files = verify(place, folder.held)
    try:
        known = ExportRecord.model_validate_json(files.get("architecture.json", b""))
    except ValidationError:
        known = None
    same = set(Scored.model_fields)
    if known is None or known.model_dump(include=same) != network.model_dump(include=same):
        yield "files", f"of another network; boundnas export {run} writes them anew"
        return
    yield "folder", str(place.resolve())
    yield from (("file", f"{n}, {len(files[n]):,} bytes") for n in sorted(files) if n != SUMS)
    latency = timed(files)
    yield from ((f"latency of {n}", t.said) for n, t in (latency.times if latency else {}).items())
    if latency is not None:
        yield "measured in", latency.where
    if known.int8 is not None:
        yield "validation in 8 bits", known.metric.shown(known.int8.validation)
        yield "test in 8 bits", known.metric.shown(known.int8.test)
