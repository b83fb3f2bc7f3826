"""What is measured: networks alone, and the same networks in supernets. A line for each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import boundnas as bn
from boundnas.cost import MACs
from boundnas.engine.progress import Progress
from boundnas.errors import RunError
from boundnas.search.evaluator import Evaluator
from boundnas.space import Architecture
from boundnas.store.files import canonical_json, find_bytes, write_json
from boundnas.store.lines import JsonLines, read_jsonl
from studies.alone import train_alone
from studies.truth.space import Setting

Row = dict[str, Any]
Network = tuple[int, ...]

ALONE, INHERITED, BOUNDS = "alone.jsonl", "inherited.jsonl", "bounds.jsonl"


def measure(setting: Setting, out: Path, seeds: int) -> None:
    """Train and measure what is not there yet, a whole seed after the other.

    Args:
        setting: What and how.
        out: Folder of the lines; runs of supernets go to ``out/runs``.
        seeds: So many, from 0 on.

    Raises:
        RunError: The folder holds numbers of another setting.
    """
    for seed in range(seeds):
        alone(setting, out, seed)
        for kind, length in setting.supernets:
            supernet(setting, out, kind, length, seed)


def begin(setting: Setting, out: Path) -> None:
    """Write down what all numbers of a folder depend on, or compare it.

    Settings that a later release has and the file does not are as they are left out: no fault.

    Raises:
        RunError: It is something else.
    """
    path, now = out / "setting.json", json.loads(canonical_json(setting.described()))
    there = find_bytes(path)
    if there is None:
        write_json(path, now)
    elif not agrees(json.loads(there), now):
        raise RunError(
            f"{path}: the numbers beside it were measured in another setting (images, space, "
            "training or range), so these would not go with them; take another folder"
        )


def agrees(there: object, now: object) -> bool:
    """Whether everything that was written down is so still."""
    if isinstance(there, dict) and isinstance(now, dict):
        return all(key in now and agrees(value, now[key]) for key, value in there.items())
    return there == now


def alone(setting: Setting, out: Path, seed: int) -> None:
    """Train each network of the space by itself."""
    known = {tuple(row["network"]) for row in rows(out / ALONE, seed=seed)}
    left = [network for network in setting.networks if network not in known]
    with (
        JsonLines(out / ALONE) as lines,
        Progress(len(known) + len(left), f"alone, seed {seed}", unit="network", done=len(known))
        as progress,
    ):  # fmt: skip
        for network in left:
            row = {"seed": seed, "network": network, **trained(setting, seed, network)}
            lines.append(row)
            lines.sync()
            progress.advance(validation=row["validation"])


def trained(setting: Setting, seed: int, network: Network) -> Row:
    """A network with weights of its own: its size, scores and seconds of the processor."""
    begun = time.process_time()
    model = setting.model(seed, network)
    train_alone(model, setting.data, bn.tasks.Classification(), setting.train, seed)
    scores = scored(evaluator(setting, model, seed), model.space.largest)
    seconds = time.process_time() - begun
    return {"macs": MACs(model)(model.space.largest), **scores, "seconds": round(seconds, 2)}


def supernet(setting: Setting, out: Path, kind: str, length: int, seed: int) -> None:
    """Train a supernet, write down its bounds, and measure every network of the space in it."""
    which = {"supernet": kind, "length": length, "seed": seed}
    known = {tuple(row["network"]) for row in rows(out / INHERITED, **which)}
    left = [network for network in setting.networks if network not in known]
    if not left:
        return
    run = bn.fit(
        setting.model(seed),
        setting.data,
        cost_range=setting.cost_range,
        settings=setting.training(kind, length),
        seed=seed,
        folder=out / "runs" / f"{kind.replace(' ', '-')}-{length}-{seed}",
    )
    if not rows(out / BOUNDS, **which):
        keep(out / BOUNDS, {**which, "allowed": run.allowed})
    measured = evaluator(setting, run.model, seed)
    label = f"{kind}, {length}x, seed {seed}"
    with (
        JsonLines(out / INHERITED) as lines,
        Progress(len(known) + len(left), label, unit="network", done=len(known)) as progress,
    ):
        for network in left:
            scores = scored(measured, Architecture(run.model.space, network))
            lines.append({**which, "network": network, **scores})
            progress.advance(validation=scores["validation"])


def evaluator(setting: Setting, model: bn.Supernet, seed: int) -> Evaluator:
    """Measures networks of a model; what they are calibrated on is that of the seed."""
    return Evaluator(model, setting.data, setting.search, seed)


def scored(measured: Evaluator, arch: Architecture) -> dict[str, float]:
    """Accuracy of an architecture on validation and on test data, recalibrated."""
    calibrated = measured.calibrated(arch).carrying(folds=True)
    data = measured.data
    splits = {"validation": data.validation, "test": data.test}
    return {name: measured.score(calibrated, source) for name, source in splits.items()}


def rows(path: Path, **which: object) -> list[Row]:
    """The lines of a file that have these values."""
    return [row for row in read_jsonl(path) if all(row[name] == which[name] for name in which)]


def keep(path: Path, row: Row) -> None:
    """Append a line to a file."""
    with JsonLines(path) as lines:
        lines.append(row)
        lines.sync()
