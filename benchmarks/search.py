"""The genetic search with and without giving up early: candidates per second, and the fronts.

Both search the same trained supernet from the same seeds, in turn. The plain way recalibrates every
candidate on the same images and measures it on the whole validation split, one by one; the other
gives a candidate up where it trails a cheaper one on a part of the images (``search.give_up``).
Fronts are scored by `mean_over_log_cost` within the run's cost range, on the validation split that
the search selects on and on test data, with exact accuracies for both.

    python benchmarks/search.py CONFIG [--give-up 1.0 ...] [--seeds 5] [--initial 64] [--rounds 6]
                                [--children 32] [--threads 1] [--runs runs] [--output file.md]
                                [--growth]

CONFIG is trained first, unless its run folder is there. ``--growth`` times the plain search against
the population and the number of validation images instead, with the exponents.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from boundnas import Front, SearchSettings, search
from boundnas.config import read_config
from boundnas.data import Subset
from boundnas.pareto import mean_over_log_cost
from boundnas.pipeline import Job
from boundnas.run_folder import RunFolder
from boundnas.search import Evaluator
from boundnas.train import Run


@dataclass(frozen=True)
class Searched:
    """One search: its time, and what it looked at and found.

    Args:
        seconds: Of the whole search.
        images: Validation images looked at, by candidate.
        validation: Score of the front on the validation split.
        test: Likewise on test data.
        networks: Size of the front.
    """

    seconds: float
    images: Sequence[int]
    validation: float
    test: float
    networks: int


def searched(run: Run, settings: SearchSettings, seed: int) -> Searched:
    run = replace(run, sandwich=replace(run.sandwich, seed=seed))
    measure, made = Evaluator.__call__, []

    def counted(self: Evaluator, *args: object) -> object:
        made.append(measure(self, *args))  # type: ignore[arg-type]
        return made[-1]

    with mock.patch.object(Evaluator, "__call__", counted):
        start = time.perf_counter()
        front = search(run, settings)
        seconds = time.perf_counter() - start
    return Searched(
        seconds,
        [e.images for e in made],
        score(run, front, "validation_accuracy"),
        score(run, front, "test_accuracy"),
        len(front.networks) + len(front.dominated_on_test),
    )


def score(run: Run, front: Front, accuracy: str) -> float:
    networks = [*front.networks, *front.dominated_on_test]
    return mean_over_log_cost(
        [n.macs for n in networks],
        [getattr(n, accuracy) for n in networks],
        *run.sandwich.cost_range,
    )


def comparison(run: Run, settings: SearchSettings, give_up: Sequence[float], seeds: int) -> str:
    ways = {"plain": None} | {f"{z:g}": z for z in give_up}
    found: dict[str, list[Searched]] = {name: [] for name in ways}
    for seed in range(seeds):
        order = list(ways.items())
        for name, z in order if seed % 2 else order[::-1]:
            s = searched(run, settings.model_copy(update={"give_up": z}), seed)
            found[name].append(s)
            print(seed, name, f"{s.seconds:.1f} s", s.validation, s.test, flush=True)
    lines = [
        "| give_up | candidates/s, median | times the plain way (range) | of the images | score on "
        "validation, mean | difference by seed | score on test, mean | difference by seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, results in found.items():
        pairs = list(zip(results, found["plain"], strict=True))
        faster = [p.seconds / len(p.images) * len(r.images) / r.seconds for r, p in pairs]
        seen = [sum(r.images) / (max(r.images) * len(r.images)) for r in results]
        row = [
            name,
            f"{statistics.median(len(r.images) / r.seconds for r in results):.2f}",
            f"{statistics.median(faster):.2f} ({min(faster):.2f} to {max(faster):.2f})",
            f"{statistics.mean(seen):.0%}",
        ]
        for which in ("validation", "test"):
            scores = [getattr(r, which) for r in results]
            differences = [getattr(r, which) - getattr(p, which) for r, p in pairs]
            row += [
                f"{statistics.mean(scores):.4f}",
                " ".join(f"{d:+.4f}" for d in differences),
            ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def growth(run: Run, settings: SearchSettings) -> str:
    lines = ["| search | size | seconds | exponent |", "|---|---|---|---|"]

    def rows(what: str, seconds: dict[int, float]) -> None:
        sizes = np.log(list(seconds))
        exponent = np.polyfit(sizes, np.log(list(seconds.values())), 1)[0]
        for size, value in seconds.items():
            lines.append(f"| {what} | {size} | {value:.1f} | {exponent:.2f} |")

    small = settings.model_copy(update={"rounds": 0, "initial": 16})
    searched(run, small, 0)  # compiles kernels
    population = {
        n: searched(run, small.model_copy(update={"initial": n}), 0).seconds
        for n in (8, 16, 32, 64)
    }
    rows("first population only, by its size", population)
    validation = run.data.validation
    images = {}
    for n in (750, 1500, 3000, 6000):
        part = Subset(validation, torch.arange(min(n, len(validation))))
        images[len(part)] = searched(
            replace(run, data=replace(run.data, validation=part)), small, 0
        ).seconds
    rows("16 candidates, by validation images", images)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("config", type=Path)
    parser.add_argument("--give-up", type=float, nargs="*", default=[1.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--initial", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--children", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    config = read_config(args.config)
    job, path = Job.prepare(config), args.runs / config.name
    torch.set_num_threads(args.threads)
    folder = RunFolder(path) if path.exists() else RunFolder.create(path, args.config.read_text())
    run = replace(job.train(folder), folder=None)
    settings = SearchSettings(
        initial=args.initial,
        rounds=args.rounds,
        crossovers=args.children // 2,
        mutations=args.children - args.children // 2,
        calibration_images=config.search.calibration_images,
    )
    table = growth(run, settings) if args.growth else None
    table = table or comparison(run, settings, args.give_up, args.seeds)
    text = (
        f"{config.name}: {args.initial} candidates, then {args.rounds} rounds of {args.children}; "
        f"{settings.calibration_images} calibration and {len(run.data.validation)} validation "
        f"images; {args.threads} threads, {platform.machine()}, PyTorch {version('torch')}.\n\n"
        f"{table}\n"
    )
    print(text)
    if args.output:
        args.output.write_text(text)


if __name__ == "__main__":
    main()
