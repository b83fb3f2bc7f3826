"""A table for another device, by a plan: what it predicts there, and what this machine's would.

    python benchmarks/other_device.py FOLDER [--only times|search|front]

The other device is a process on two threads that can import neither BoundNAS nor PyTorch. The plan
of the demo's space is written to FOLDER and timed there on one thread and on two; each table
predicts the times of the networks that it was not fitted to, on one thread and on two. With the
table of two threads as cost a supernet is trained and searched for a third of the demo's steps, and
the networks that are found are timed on two threads, beside what both tables predict of them.

Prints the rows of docs/results/latency.md and writes raw numbers to
docs/results/latency/device-digits.json. A call that was stopped goes on; ``--only`` does one part.
Stop other programs first, or give it the processor by ``chrt -f 2``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.latency import FOLDER, ROOT, model_of
from ruamel.yaml import YAML

import boundnas as bn
from boundnas import Supernet
from boundnas.cost import Latency, LatencyTable
from boundnas.cost.latency import predictions
from boundnas.cost.table import NEAR, spearman
from boundnas.engine.machine import fingerprint
from boundnas.latency import elsewhere, whole
from boundnas.latency.fit import parted
from boundnas.space import Architecture
from boundnas.store.files import write_json
from boundnas.store.times import counted
from boundnas.supernet.extract import outlined

HERE, THERE = 1, 2
"""Threads of this machine, and of what stands for another device."""

NAME, ROUNDS = "two-threads", 50
"""Of the run in its milliseconds, and times that are taken of each network of its front."""

PARTS = ("times", "search", "front")

Measured = dict[Architecture, int]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=PARTS)
    asked = parser.parse_args()
    parts = [asked.only] if asked.only else PARTS
    elsewhere.MOST_BLOCKS = 0  # the coarsest grid
    model, folder = model_of("digits"), asked.folder
    if "times" in parts:
        if not (folder / "plan").exists():
            elsewhere.write_plan(model, folder / "plan")
        for threads in (HERE, THERE):
            time_plan(folder, threads)
    tables = {n: elsewhere.collect(model, folder / str(n)) for n in (HERE, THERE)}
    if "search" in parts:
        search(folder, model, tables[THERE])
    if "front" in parts:
        tell(folder, model, tables)


def time_plan(folder: Path, threads: int) -> None:
    """Run the program of the plan on so many threads."""
    place = folder / str(threads)
    if not place.exists():
        shutil.copytree(folder / "plan", place)
    command = [sys.executable, "-I", place / elsewhere.PROGRAM, "--threads", str(threads)]
    subprocess.run(command, check=True)


def search(folder: Path, model: Supernet, table: LatencyTable) -> None:
    """Train and search with a table as cost, over most of the range that it predicts."""
    write_json(folder / "latency.json", table.written())
    least, most = (time / 1e6 for time in Latency(model, table).reach)
    settings = YAML(typ="safe").load(ROOT / "configs" / "digits.yaml")
    cost = {"metric": "latency", "table": "latency.json", "lower": 1.1 * least, "upper": 0.8 * most}
    settings |= {"name": NAME, "cost": cost, "export": {"formats": []}}
    settings["train"]["steps"] = 400
    settings["search"] |= {"initial": 48, "rounds": 8, "crossovers": 16, "mutations": 16}
    (folder / "run.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "boundnas", "run", "run.yaml", "--runs", "."]
    subprocess.run(command, check=True, cwd=folder)


def tell(folder: Path, model: Supernet, tables: dict[int, LatencyTable]) -> None:
    """Time the front on two threads, and say what both tables predict of all that was timed."""
    run = bn.open(folder / NAME)
    lower, upper = run.front.ranges["latency"]
    found = [n.arch for n in (*run.front.networks, *run.front.outside)]
    times = [
        t.median for t in whole([outlined(model, a) for a in found], threads=THERE, rounds=ROUNDS)
    ]
    asked, inside = len(run.front.networks), sum(lower <= time <= upper for time in times)
    ends = f"{lower / 1e6:.4f} to {upper / 1e6:.4f} ms"
    print(f"{asked} of {len(found)} networks from {ends} by the table, {inside} by their times")
    print("| times of | predicted by the table of | networks | Spearman | error | within 10 % |")
    print("|---|---|---|---|---|---|")
    rows = []
    for threads, own in tables.items():
        there = timed(model, folder / str(threads))
        held = checked(model, own, there)
        rows += beside(
            model, tables, counted(threads, "thread"), held, [there[arch] for arch in held]
        )
    rows += beside(model, tables, "2 threads, the front found", found, times)
    sizes = {p.name: p.stat().st_size for p in sorted((folder / "plan").iterdir())}
    held = {"machine": fingerprint(), "bytes of the plan": sizes, "range": [lower, upper]}
    write_json(FOLDER / "device-digits.json", {**held, "rows": rows})


def beside(
    model: Supernet,
    tables: dict[int, LatencyTable],
    what: str,
    archs: Sequence[Architecture],
    times: Sequence[int],
) -> list[dict[str, Any]]:
    """Predictions of both tables beside times; prints a row of the page for each."""
    rows, measured = [], np.array(times, dtype=float)
    for threads, table in tables.items():
        predicted = np.array([*map(predictions(model.space, table), archs)], dtype=float)
        errors = np.abs(predicted / measured - 1)
        print(
            f"| {what} | {threads} | {len(archs)} | {spearman(predicted, measured):.3f} | "
            f"{errors.mean():.1%} | {np.mean(errors <= NEAR):.0%} |"
        )
        found = {
            "measured": measured.astype(int).tolist(),
            "predicted": predicted.astype(int).tolist(),
        }
        rows.append({"times": what, "table": threads, **found})
    return rows


def timed(model: Supernet, folder: Path) -> Measured:
    """The times of the whole networks of a plan."""
    record = elsewhere.PlanRecord.model_validate_json((folder / elsewhere.PLAN).read_bytes())
    times = elsewhere.TimesFile.model_validate_json((folder / elsewhere.TIMES).read_bytes()).times
    return {model.space.architecture(n.architecture): times[n.file][0] for n in record.networks}


def checked(model: Supernet, table: LatencyTable, times: Measured) -> list[Architecture]:
    """The networks that a table was not fitted to."""
    archs = sorted(times, key=predictions(model.space, table))
    return [archs[i] for i in parted(len(archs))[1]]


if __name__ == "__main__":
    main()
