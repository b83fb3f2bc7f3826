"""Which runs of a comparison belong together: those that differ in nothing but the seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boundnas.config import RunConfig, read_config
from boundnas.cost.budget import as_written
from boundnas.data.names import escaped
from boundnas.errors import ConfigError, RunError
from boundnas.fit import identity
from boundnas.fit.told import digest
from boundnas.fit.trained import gentle
from boundnas.report.records import RunRecords, read_run
from boundnas.settings import uses
from boundnas.store.records import FrontRecord, Metric, Ranges, said_ranges

_NOT_COMPARED = {"name", "seed", "threads", "device", "export", "observers"}
"""Parts of a configuration that runs of one group may differ in."""

_NOT_DECIDING = {"threads", "platform", "cpu", "ranks"}
"""Parts of the environment's record that runs of one group may differ in, as they change no more
than the last bits."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only.

    Args:
        label: What sets it apart from the other groups.
        runs: By seed, in ascending order.
        initial: Size of the first population of their searches.
    """

    label: str
    runs: Mapping[int, RunRecords]
    initial: int

    def fronts(self) -> dict[int, FrontRecord]:
        """Fronts by seed."""
        return {seed: run.front for seed, run in self.runs.items() if run.front is not None}

    def random_networks(self, cost: str) -> np.ndarray:
        """Cost and validation score of the first populations, shape ``(networks, 2)``.

        Without their two extremes these are uniform samples between the boundaries.
        """
        points = []
        for run in self.runs.values():
            evaluations = run.evaluations or []
            points += [(e.costs[cost], e.score) for e in evaluations[2 : self.initial]]
        return np.array(points).reshape(-1, 2)


def grouped(folders: Sequence[Path]) -> list[Group]:
    """Runs by everything but the seed: their configurations, versions, kind of processor.

    Raises:
        RunError: A folder is no run with a front, or two are of one configuration and seed.
    """
    found: dict[str, dict[int, RunRecords]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for folder in folders:
        run = read_run(folder)
        if run.front is None:
            raise RunError(
                f"{folder}: has no front.json yet; finish it with boundnas search {folder}"
            )
        for name, held in (("bounds.json", run.bounds), ("boundaries.jsonl", run.boundaries)):
            if held is None:
                raise RunError(f"{folder / name}: is missing; put back what training wrote")
        seed, made = _asked(folder, run, run.front)
        flat = made | _made_with(run)
        key = repr(flat)
        if seed in found.setdefault(key, {}):
            raise RunError(
                f"{folder}: an earlier run has the same configuration and seed {seed}; "
                "give each run once"
            )
        found[key][seed] = run
        settings[key] = flat
    labels = _labels(list(settings.values()))
    return [
        Group(label, dict(sorted(runs.items())), settings[key]["search.initial"])
        for label, (key, runs) in zip(labels, found.items(), strict=True)
    ]


def _asked(folder: Path, run: RunRecords, front: FrontRecord) -> tuple[int, dict[str, Any]]:
    """Seed and settings of a run: its configuration's, or its records' where Python made it.

    Raises:
        RunError: The configuration was edited after the run.
        ConfigError: It is faulty, and there is no record of the training either.
    """
    held = {} if run.bounds is None else run.bounds.identity
    try:
        config = read_config(folder / "config.yaml")
    except ConfigError:
        if "seed" not in held:
            raise
        return int(held["seed"]), _of_records(held, front)
    # The name and unit of a cost of one's own are known to its code alone, which is not run here.
    asked: dict[str, tuple[float, float]] = {
        c.metric: (as_written(c.lower, 1e6), as_written(c.upper, 1e6))
        for c in config.cost
        if isinstance(c.metric, str)
    }
    found = {name: held for name, held in front.ranges.items() if name in asked}
    if found != asked or len(front.ranges) != len(config.cost):
        raise RunError(
            f"{folder}: config.yaml asks for {said_ranges(asked)}, but the run was searched for "
            f"{said_ranges(front.ranges)}; search it again for the former by boundnas search "
            f"{folder}, or put back the configuration that it was made with"
        )
    _check_config(folder, run, config)
    named = _of_records(held, front) if any(uses(config)) else {}  # its code may have changed
    return config.seed, _flat(config) | named


def _of_records(training: Mapping[str, str], front: FrontRecord) -> dict[str, Any]:
    """Settings by name, and one digest of the model and its cost.

    The images are told apart by their classes and shape: which of them are trained on follows
    from the seed.
    """
    named = {**training, **front.identity}
    settings = {k: json.loads(v) for k, v in named.items() if k.startswith(("train.", "search."))}
    data = {k: training[k] for k in ("data.classes", "data.shape")}
    model = {k: v for k, v in training.items() if not k.startswith(("train.", "data."))}
    model = {k: v for k, v in model.items() if k != "seed" and not k.endswith("of data.train")}
    return {**settings, **data, "model": digest(json.dumps(model, sort_keys=True))}


def _check_config(folder: Path, run: RunRecords, config: RunConfig) -> None:
    """Refuse a configuration that was edited after the run, whose settings tell groups apart.

    Raises:
        RunError: Names the first setting that differs.
    """
    held = (run.bounds.identity if run.bounds else {}) | (run.front.identity if run.front else {})
    train = gentle(config.train, not config.optimizer) if "start" in held else config.train
    now = {
        "seed": str(config.seed),
        **identity.of_settings(train, "train", identity.WITHOUT_EFFECT),
        **identity.of_settings(config.search, "search", identity.WITHOUT_EFFECT),
    }
    was = {name: value for name, value in held.items() if name in now}
    different = identity.difference(was, {name: now[name] for name in was})
    if different is not None:
        raise RunError(
            f"{folder}: config.yaml was edited after the run, which was made with {different}; "
            "put back the configuration that it was made with"
        )


def _made_with(run: RunRecords) -> dict[str, Any]:
    """What decides a run's numbers beside its configuration: versions and kind of processor."""
    held = run.environment or {}
    return {f"machine.{name}": value for name, value in held.items() if name not in _NOT_DECIDING}


def _flat(config: RunConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    held = config.model_dump(mode="json", exclude=_NOT_COMPARED)
    for number, cost in enumerate(held.pop("cost"), 1):
        add("cost" if number == 1 else f"cost {number}", cost)
    add("", held)
    return flat


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Per group the values of the keys in which the groups differ, kept short."""
    differing = [k for k in settings[0] if any(s.get(k) != settings[0].get(k) for s in settings)]

    def said(key: str, value: Any) -> str:
        name = key.rpartition(".")[2]
        if name == "stages" or name == "stem":
            return "" if value is None else _searched(value)
        return f"{name} {escaped(value)}"

    labels = [
        ", ".join(filter(None, (said(k, s.get(k)) for k in differing))) or "all" for s in settings
    ]
    repeated = len(set(labels)) < len(labels)
    return [f"{label} ({i})" for i, label in enumerate(labels, 1)] if repeated else labels


def _searched(tables: Any) -> str:
    """What a table of stages searches beside widths; nothing for a stem, which follows them."""
    if isinstance(tables, dict):
        return ""
    kinds = ["depth", "kernel", "se", "activation"]
    found = [k for k in kinds if any(len(stage[k]) > 1 for stage in tables)]
    return " + ".join(["widths", *found])


def common_metric(groups: Sequence[Group]) -> Metric:
    """What the scores of all runs are.

    Raises:
        RunError: There are several.
    """
    found = {front.metric for group in groups for front in group.fronts().values()}
    if len(found) > 1:
        names = " and ".join(sorted(metric.label for metric in found))
        raise RunError(f"these runs are scored by {names}; compare runs of one metric")
    return found.pop()


def common_ranges(groups: Sequence[Group]) -> Ranges:
    """The cost ranges that all runs were searched for, by the costs' names.

    Raises:
        RunError: There are several.
    """
    ranges = {said_ranges(front.ranges) for group in groups for front in group.fronts().values()}
    if len(ranges) > 1:
        raise RunError(
            f"these runs have different cost ranges: {'; '.join(sorted(ranges))}; compare runs of "
            "one range"
        )
    return next(front for group in groups for front in group.fronts().values()).ranges
