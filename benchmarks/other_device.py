"""A table for another device, by a plan: what it predicts there, and what this machine's would.

    python benchmarks/other_device.py FOLDER [--case digits]

The other device is a process on two threads that can import neither BoundNAS nor PyTorch. The plan
is written to FOLDER and timed there on one thread and on two; each table predicts the times of the
networks that it was not fitted to, on one thread and on two. Prints the rows of
docs/results/latency.md and writes raw numbers to docs/results/latency/device-CASE.json. A call
that was stopped goes on. Stop other programs first, or give it the processor by ``chrt -f 2``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from benchmarks.latency import CASES, FOLDER, model_of

from boundnas import Supernet
from boundnas.cost import LatencyTable
from boundnas.cost.latency import predictions
from boundnas.cost.table import NEAR, spearman
from boundnas.latency import elsewhere
from boundnas.latency.fit import parted
from boundnas.space import Architecture
from boundnas.store.files import write_json

THREADS = (1, 2)

Measured = dict[Architecture, int]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", default="digits", choices=list(CASES))
    asked = parser.parse_args()
    elsewhere.MOST_BLOCKS = 0  # the coarsest grid
    model, plan = model_of(asked.case), asked.folder / "plan"
    if not plan.exists():
        elsewhere.write_plan(model, plan)
    found = {
        threads: timed(model, plan, asked.folder / str(threads), threads) for threads in THREADS
    }
    rows = []
    print("| times of | predicted by the table of | Spearman | error | within 10 % |")
    print("|---|---|---|---|---|")
    for threads, (own, times) in found.items():
        held = checked(model, own, times)
        measured = np.array([times[arch] for arch in held], dtype=float)
        for by, (table, _) in found.items():
            predict = predictions(model.space, table)
            predicted = np.array([predict(arch) for arch in held], dtype=float)
            errors = np.abs(predicted / measured - 1)
            print(
                f"| {threads} threads | {by} | {spearman(predicted, measured):.3f} | "
                f"{errors.mean():.1%} | {np.mean(errors <= NEAR):.0%} |"
            )
            rows.append({"times": threads, "table": by, "measured": measured.astype(int).tolist(),
                         "predicted": predicted.astype(int).tolist()})  # fmt: skip
    sizes = {path.name: path.stat().st_size for path in sorted(plan.iterdir())}
    write_json(FOLDER / f"device-{asked.case}.json", {"bytes of the plan": sizes, "rows": rows})


def timed(model: Supernet, plan: Path, folder: Path, threads: int) -> tuple[LatencyTable, Measured]:
    """The table of a number of threads, and the times of the whole networks."""
    if not folder.exists():
        shutil.copytree(plan, folder)
    command = [sys.executable, "-I", folder / elsewhere.PROGRAM, "--threads", str(threads)]
    subprocess.run(command, check=True)
    table = elsewhere.collect(model, folder)
    record = elsewhere.PlanRecord.model_validate_json((folder / elsewhere.PLAN).read_bytes())
    times = elsewhere.TimesFile.model_validate_json((folder / elsewhere.TIMES).read_bytes()).times
    archs = {model.space.architecture(n.architecture): times[n.file][0] for n in record.networks}
    return table, archs


def checked(model: Supernet, table: LatencyTable, times: Measured) -> list[Architecture]:
    """The networks that a table was not fitted to."""
    archs = sorted(times, key=predictions(model.space, table))
    return [archs[i] for i in parted(len(archs))[1]]


if __name__ == "__main__":
    main()
