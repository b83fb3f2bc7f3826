"""Networks searched for by milliseconds against networks searched for by MACs.

    python -m studies.latency OUT --seeds 3

The runs by MACs are those of Fig. 4 with learned boundaries; those by milliseconds have the same
space, data, training and search, the latency table of this machine in ONNX Runtime on one thread,
and as range what the table predicts of the cheapest and the dearest network that MACs found. At the
end all networks of all fronts are timed in turn. What was made before is not made again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import moocore
import numpy as np
import typer

import boundnas as bn
from boundnas.app.cli import guarded, orderly
from boundnas.app.pipeline import Job
from boundnas.config import RunConfig, write_config
from boundnas.cost import Latency, LatencyTable
from boundnas.engine.machine import fingerprint
from boundnas.errors import RunError
from boundnas.latency import whole
from boundnas.report.interval import t_interval
from boundnas.search.pareto import chosen, mean_over_log_cost
from boundnas.store.files import write_json
from boundnas.store.folder import RunFolder
from boundnas.supernet.extract import outlined
from studies.figures import configuration

MACS, LATENCY = "macs", "latency"
"""What networks are searched for by."""

ROUNDS = 30
"""Times that are taken of each network."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@guarded
def comparison(
    out: Annotated[Path, typer.Argument(help="Folder for the table, the runs and what is found.")],
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each.")] = 3,
) -> None:
    """Train and search by both costs, time all networks in turn, and compare; resumable."""
    runs = out / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    by_macs = [
        configuration("fig4", "boundaries", seed, "small", "fashion_mnist", None)
        for seed in range(seeds)
    ]
    table = table_of(by_macs[0], runs / "latency.json")
    for config in by_macs:
        finish(runs, config.name, write_config(config))
    limits = range_of(table, [bn.open(runs / config.name) for config in by_macs])
    for config in by_macs:
        finish(runs, name_of(config, LATENCY), by_latency(config, limits))
    rows = [row for config in by_macs for row in timed(runs, config, table)]
    write_json(out / "latency.json", {"range": limits, "machine": fingerprint(), "rows": rows})
    print(*told(rows, limits), sep="\n")


def table_of(config: RunConfig, path: Path) -> LatencyTable:
    """The latency table of the space, measured here if it is not there yet."""
    if path.exists():
        return LatencyTable.read(path)
    return bn.latency.measure(Job.prepare(config).model, path)


def name_of(config: RunConfig, cost: str) -> str:
    """The name of the run of a configuration by MACs, or of its counterpart by latency."""
    return config.name if cost == MACS else config.name.replace("-W", "-latency-W")


def by_latency(config: RunConfig, limits: Sequence[float]) -> str:
    """A configuration with milliseconds for MACs."""
    head, _, rest = write_config(config).partition("cost:\n")
    _, _, tail = rest.partition("train:\n")
    lower, upper = limits
    cost = f"cost: {{metric: latency, table: latency.json, lower: {lower}, upper: {upper}}}\n"
    return head.replace(config.name, name_of(config, LATENCY)) + cost + "train:\n" + tail


def finish(runs: Path, name: str, text: str) -> None:
    """A run in a process of its own, if it has no front yet.

    Raises:
        RunError: It failed.
    """
    if RunFolder(runs / name).front.exists():
        return
    file = runs / f"{name}.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "boundnas", "run", str(file), "--runs", str(runs)]
    if code := subprocess.run(command, check=False).returncode:
        raise RunError(f"{name}: the run ended with code {code}; the same command goes on")


def range_of(table: LatencyTable, opened: Sequence[bn.Run]) -> tuple[float, float]:
    """Milliseconds that the table predicts of the fastest and the slowest network inside."""
    cost = Latency(opened[0].model, table)
    times = [cost(network.arch) for run in opened for network in run.front.networks]
    return min(times) / 1e6, max(times) / 1e6


def timed(runs: Path, config: RunConfig, table: LatencyTable) -> Iterator[dict[str, Any]]:
    """A row for each network of both fronts of a seed, with its time beside the prediction."""
    fronts = {cost: bn.open(runs / name_of(config, cost)) for cost in (MACS, LATENCY)}
    found = [
        (cost, run.model, network)
        for cost, run in fronts.items()
        for network in (*run.front.networks, *run.front.outside)
    ]
    predict = Latency(fronts[MACS].model, table)
    times = whole([outlined(model, n.arch) for _, model, n in found], rounds=ROUNDS)
    for (cost, _, network), time in zip(found, times, strict=True):
        yield {
            "seed": config.seed,
            "by": cost,
            "macs": network.macs,
            "predicted": predict(network.arch),
            "measured": time.median,
            "quartiles": [time.lower, time.upper],
            "validation": network.validation,
            "test": network.test,
            "architecture": network.arch.values,
        }


def told(rows: Sequence[dict[str, Any]], limits: Sequence[float]) -> Iterator[str]:
    """Test accuracy of what validation chooses at a time, by seed, and the differences.

    Times from the one on at which every front has a network; what a front lacks counts nowhere.
    The hypervolume counts from 0 to the upper limit.
    """
    lower, upper = fastest_common(rows), limits[1] * 1e6
    budgets = [lower * (upper / lower) ** part for part in (0.25, 0.5, 0.75)]
    yield f"| | {' | '.join(f'at {b / 1e6:.3f} ms' for b in budgets)} | score | hypervolume |"
    yield "|---|---|---|---|---|---|"
    found: dict[str, list[list[float]]] = {MACS: [], LATENCY: []}
    for by, lists in found.items():
        for seed in sorted({row["seed"] for row in rows}):
            mine = [row for row in rows if (row["by"], row["seed"]) == (by, seed)]
            times, validation, test = (
                [row[key] for row in mine] for key in ("measured", "validation", "test")
            )
            at = [chosen(times, validation, budget, lower) for budget in budgets]
            score = mean_over_log_cost(times, validation, test, lower, upper)
            at_budgets = [test[i] for i in at if i is not None]
            lists.append([100 * x for x in (*at_budgets, score, hypervolume(times, test, upper))])
        for seed, values in enumerate(lists):
            yield f"| by {by}, seed {seed} | {' | '.join(f'{v:.2f} %' for v in values)} |"
    beside = zip(found[LATENCY], found[MACS], strict=True)
    differences = [[a - b for a, b in zip(*pair, strict=True)] for pair in beside]
    yield f"| by {LATENCY} - by {MACS} | {' | '.join(map(_mean, zip(*differences, strict=True)))} |"


def fastest_common(rows: Sequence[dict[str, Any]]) -> float:
    """Nanoseconds of the slowest of the fastest networks of all fronts."""
    fastest: dict[tuple[str, int], float] = {}
    for row in rows:
        front = row["by"], row["seed"]
        fastest[front] = min(row["measured"], fastest.get(front, row["measured"]))
    return max(fastest.values())


def hypervolume(times: Sequence[float], test: Sequence[float], upper: float) -> float:
    """The part of the rectangle from 0 to ``upper`` and to an accuracy of 1 that is dominated.

    Examples:
        >>> hypervolume([1, 2], [0.5, 1.0], 4)
        0.625
    """
    points = np.column_stack([times, test])
    return float(moocore.hypervolume(points, ref=[upper, 0], maximise=[False, True])) / upper


def _mean(differences: Sequence[float]) -> str:
    """The mean over seeds and Student's 95 % interval of it."""
    ends = t_interval(differences)
    assert ends is not None  # two seeds or more
    return f"{fmean(differences):+.2f} ({ends[0]:+.2f} to {ends[1]:+.2f})"


def run() -> None:
    """The command, with the output and the exit codes of ``boundnas``."""
    with orderly():
        app(prog_name="python -m studies.latency")


if __name__ == "__main__":
    run()
