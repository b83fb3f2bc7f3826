"""The network of a run's front for a budget: ``boundnas best RUN --macs 5M``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from boundnas.deploy.networks import SUMS, verify
from boundnas.errors import ConfigError, RunError
from boundnas.report.records import read_run
from boundnas.search import Front
from boundnas.store.folder import RunFolder
from boundnas.store.records import ExportRecord, NetworkRecord, Scored

FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
"""What may follow a number, and what it is multiplied by."""

_NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?([kMG]?)", re.ASCII)


def budget(arguments: Sequence[str]) -> dict[str, float]:
    """Limits from the words of a command line, each of them at most once.

    Raises:
        ConfigError: Something else than a limit, or one that is no number above 0.

    Examples:
        >>> budget(["--macs", "5M", "--parameters=20k"])
        {'macs': 5000000.0, 'parameters': 20000.0}
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
    found = _NUMBER.fullmatch(text)
    value = float(found[1] + (found[2] or "")) * FACTORS[found[3]] if found else 0.0
    if not 0 < value < math.inf:
        raise ConfigError(
            f"{name}: must be a number above 0, with k, M or G behind it for thousands, millions "
            f"or billions, as in {name} 5M; found {text or 'nothing'}"
        )
    return value


def best(run: Path, limits: Mapping[str, float]) -> str:
    """What there is to say of the most accurate network of a run's front within a budget.

    Args:
        run: The run folder.
        limits: Most of each cost, by its name and in its own unit; none for no limit.

    Raises:
        RunError: There is no front yet, it does not belong to the run's weights, or no network of
            it is within the budget; names what the smallest costs.
        ExportError: The network's files are not what was written.
    """
    folder = RunFolder.open(run)
    held = read_run(folder.path).front
    if held is None:
        raise RunError(f"{run}: has no front yet; boundnas search {run} finds it")
    networks, outside = (cast(Any, tuple(n)) for n in (held.networks, held.outside))
    front, metric = Front(held.ranges, networks, outside), held.metric
    network = cast(Any, front.best(**limits))
    rows = [
        *((name, f"{cost:,}") for name, cost in network.costs.items()),
        (f"validation {metric.name}", metric.shown(network.validation)),
        (f"test {metric.name}", metric.shown(network.test)),
        *_exported(run, folder, network, folder.path / front.folder(network)),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in rows)


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
    if known.int8 is not None:
        yield "validation in 8 bits", known.metric.shown(known.int8.validation)
        yield "test in 8 bits", known.metric.shown(known.int8.test)
