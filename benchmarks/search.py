"""The search beside the plain way: candidates per second, and the fronts.

All search the same trained supernet from the same seeds, in turn. The plain way recalibrates every
candidate on the same images and measures it on the whole validation split, one by one, layer by
layer; the default folds normalizations into convolutions, classifies in larger batches and measures
several candidates at a time, one a thread; and screening (``search.screen``) measures only what by
estimates would be on the front on all images. Fronts are scored by `mean_over_log_cost` within the
run's cost range, on the validation split that the search selects on and on test data, with exact
accuracies for all.

    python benchmarks/search.py CONFIG [--ways plain default 0.125 0.125x4] [--seeds 5]
                                [--initial 64] [--rounds 6] [--children 32] [--images 12000]
                                [--threads 1] [--runs runs] [--output file.md]
                                [--growth [--plot file.svg]]

CONFIG is trained first, unless its run folder is there. A way is ``plain``, ``default``, another
method (``nsga2``, ``tpe``) or the part of the images to screen on, with ``xN`` for N times the
rounds: what screening saves can be spent on more candidates. All are compared with the first one.
``--images`` takes so many images of the validation split. ``--growth`` times the default search
against the population and the number of validation images instead, with the exponents.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from boundnas import Front, SearchSettings, search
from boundnas.app.pipeline import Job
from boundnas.config import read_config
from boundnas.data import Subset
from boundnas.engine import forked
from boundnas.fit.run import Run
from boundnas.search import Evaluation, Evaluator, evaluator
from boundnas.search.pareto import mean_over_log_cost
from boundnas.search.sampled import METHODS
from boundnas.search.workers import Judged
from boundnas.space import Architecture
from boundnas.store.folder import RunFolder
from growth import exponent, plot

PLAIN = "plain"


@contextmanager
def plainly() -> Iterator[None]:
    """Within it, candidates are measured one by one, as they would be trained: nothing folded."""

    def validated(self: Evaluator, arch: Architecture) -> Tensor:
        order = torch.arange(len(self.data.validation))
        return self.scores(self.calibrated(arch), self.data.validation, order)

    with (
        mock.patch.object(forked, "AVAILABLE", False),
        mock.patch.object(Evaluator, "validated", validated),
        mock.patch.object(evaluator, "BATCHES_AT_ONCE", 1),
    ):
        yield


@dataclass(frozen=True)
class Searched:
    """One search: its time, and what it looked at and found.

    Args:
        seconds: Of the search, up to where the front is measured on test data.
        candidates: Architectures that were measured or screened.
        images: Validation images that their scores rest on, in all.
        validation: Score of the front on the validation split.
        test: Likewise on test data.
        networks: Size of the front.
    """

    seconds: float
    candidates: int
    images: int
    validation: float
    test: float
    networks: int


def searched(run: Run, settings: SearchSettings, seed: int) -> Searched:
    run = replace(run, seed=seed)
    tested, evaluation = Evaluator.score, Evaluator._evaluation
    candidates: list[Architecture] = []
    images: list[int] = []
    on_test: list[float] = []

    def evaluated(self: Evaluator, arch: Architecture, judged: Judged) -> Evaluation:
        candidates.append(arch.plain)
        images.append(judged.images)
        return evaluation(self, arch, judged)

    def noted(self: Evaluator, *args: Any) -> float:
        on_test.append(time.perf_counter())
        return tested(self, *args)

    with (
        mock.patch.object(Evaluator, "_evaluation", evaluated),
        mock.patch.object(Evaluator, "score", noted),
    ):
        start = time.perf_counter()
        front = search(run, settings)
    seconds = min(on_test) - start
    return Searched(
        seconds,
        len(set(candidates)),
        sum(images),
        score(run, front, "validation"),
        score(run, front, "test"),
        len(front.networks) + len(front.outside),
    )


def score(run: Run, front: Front, accuracy: str) -> float:
    networks = [*front.networks, *front.outside]
    return mean_over_log_cost(
        [n.macs for n in networks],
        [n.validation for n in networks],
        [getattr(n, accuracy) for n in networks],
        *run.budgets[0].range,
    )


def settings_of(way: str, settings: SearchSettings) -> SearchSettings:
    if way in (PLAIN, "default"):
        return settings
    if way in METHODS:
        return settings.model_copy(update={"method": way})
    part, _, longer = way.partition("x")
    rounds = int(longer or 1) * settings.rounds
    return settings.model_copy(update={"screen": float(part), "rounds": rounds})


def comparison(run: Run, settings: SearchSettings, names: Sequence[str], seeds: int) -> str:
    ways = {name: settings_of(name, settings) for name in names}
    found: dict[str, list[Searched]] = {name: [] for name in ways}
    for seed in range(seeds):
        order = list(ways.items())
        for name, way in order if seed % 2 else order[::-1]:
            with plainly() if name == PLAIN else nullcontext():
                s = searched(run, way, seed)
            found[name].append(s)
            print(seed, name, f"{s.seconds:.1f} s", s.validation, s.test, flush=True)
    lines = [
        f"| search | candidates | candidates/s, median | times those of {names[0]} (range) | "
        "images a candidate, of the split | score on validation, mean | difference by seed | "
        "score on test, mean | difference by seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    split = len(run.data.validation)
    for name, results in found.items():
        pairs = list(zip(results, found[names[0]], strict=True))
        faster = [p.seconds / p.candidates * r.candidates / r.seconds for r, p in pairs]
        row = [
            name,
            f"{statistics.median(r.candidates for r in results):.0f}",
            f"{statistics.median(r.candidates / r.seconds for r in results):.2f}",
            f"{statistics.median(faster):.2f} ({min(faster):.2f} to {max(faster):.2f})",
            f"{statistics.mean(r.images / r.candidates / split for r in results):.0%}",
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


def growth(run: Run, settings: SearchSettings, path: Path | None) -> str:
    small = settings.model_copy(update={"rounds": 0, "initial": 16})
    searched(run, small, 0)  # compiles kernels
    found: dict[str, list[tuple]] = {"candidates": [], "validation images, 16 candidates": []}
    population, images = found.values()
    for n in (8, 16, 32, 64):
        seconds = searched(run, small.model_copy(update={"initial": n}), 0).seconds
        population.append((n, seconds))
    validation = run.data.validation
    for n in (750, 1500, 3000, 6000):
        part = Subset(validation, torch.arange(min(n, len(validation))))
        of_part = replace(run, data=replace(run.data, validation=part))
        images.append((len(part), searched(of_part, small, 0).seconds))
    if path:
        plot(found, ("default search",), "search", path)
    lines = ["| varied | sizes | seconds | exponent |", "|---|---|---|---|"]
    for what, rows in found.items():
        sizes, seconds = zip(*rows, strict=True)
        lines.append(
            f"| {what} | {', '.join(map(str, sizes))} | "
            f"{', '.join(f'{s:.1f}' for s in seconds)} | {exponent(rows, 1):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("config", type=Path)
    parser.add_argument("--ways", nargs="+", default=[PLAIN, "default", "0.125", "0.125x4"])
    parser.add_argument("--images", type=int)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--initial", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--children", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    config = read_config(args.config)
    job, path = Job.prepare(config), args.runs / config.name
    torch.set_num_threads(args.threads)
    folder = RunFolder(path) if path.exists() else RunFolder.create(path, args.config.read_text())
    run = replace(job.train(folder), folder=None)
    if args.images:
        part = Subset(run.data.validation, torch.arange(args.images))
        run = replace(run, data=replace(run.data, validation=part))
    settings = SearchSettings(
        initial=args.initial,
        rounds=args.rounds,
        crossovers=args.children // 2,
        mutations=args.children - args.children // 2,
        calibration_images=config.search.calibration_images,
    )
    if args.growth:
        table = growth(run, settings, args.plot)
    else:
        table = comparison(run, settings, args.ways, args.seeds)
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
