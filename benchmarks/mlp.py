"""Learned against fixed boundaries where there is little to win: a multilayer perceptron.

Trains an MLP supernet on Fashion-MNIST with and without learned boundaries, several seeds of each
and equal steps, and compares their fronts: mean test accuracy over log cost within the range.

    python benchmarks/mlp.py [--seeds 5] [--steps 1500] [--threads 1] [--output file.md]
"""

from __future__ import annotations

import argparse
import platform
import statistics
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas import Architecture, SearchSettings, Supernet, TrainSettings, elastic, fit, search
from boundnas.data import ImageData, load
from boundnas.report.interval import t_interval
from boundnas.search.pareto import mean_over_log_cost

COST_RANGE = (0.03e6, 0.1e6)


class Perceptron(Supernet):
    """Three hidden layers of 16 to 128 units; 0.013 to 0.134 MMACs."""

    def __init__(self) -> None:
        super().__init__(input_shape=(1, 28, 28))
        widths = [self.dimension(f"layer{i}.width", range(16, 129, 16)) for i in (1, 2, 3)]
        sizes = [28 * 28, *widths, 10]
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            self.add_module(f"layer{i + 1}", elastic.Linear(inputs, outputs))

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        x = x.flatten(1)
        for i in (1, 2, 3):
            x = F.relu(getattr(self, f"layer{i}")(x, arch))
        return self.layer4(x, arch)


@dataclass(frozen=True)
class Outcome:
    """One trained and searched supernet.

    Args:
        score: Mean test accuracy over log cost within the range.
        smallest: Test accuracy of the cheapest network of the front.
        largest: Likewise of the most expensive one.
    """

    score: float
    smallest: float
    largest: float


def outcome(data: ImageData, learn: str, steps: int, seed: int) -> Outcome:
    torch.manual_seed(seed)
    settings = TrainSettings(steps=steps, learn=learn, start_std=0.1)  # type: ignore[arg-type]
    run = fit(Perceptron(), data, cost_range=COST_RANGE, settings=settings, seed=seed)
    front = search(
        run, SearchSettings(initial=64, rounds=6, crossovers=16, mutations=16, bounds="whole")
    )
    networks = sorted([*front.networks, *front.outside], key=lambda n: n.macs)
    validation, accuracies = zip(*((n.validation, n.test) for n in networks), strict=True)
    score = mean_over_log_cost([n.macs for n in networks], validation, accuracies, *COST_RANGE)
    return Outcome(score, accuracies[0], accuracies[-1])


def percent(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[str, list[Outcome]] = {"none": [], "both": []}
    for seed in range(args.seeds):
        data = load("fashion_mnist", validation_fraction=0.1, seed=seed)
        for learn, outcomes in found.items():
            outcomes.append(outcome(data, learn, args.steps, seed))
            print(seed, learn, outcomes[-1], flush=True)
    lines = [
        f"Fashion-MNIST, MLP of three hidden layers, 16 to 128 units each; {args.steps} steps of "
        f"batch 64, seeds 0 to {args.seeds - 1}; {args.threads} threads, {platform.machine()}, "
        f"PyTorch {torch.__version__}. Test accuracies in percent.",
        "",
        "| boundaries | score | smallest of the front | largest of the front |",
        "|---|---|---|---|",
    ]
    for learn, outcomes in found.items():
        columns = [[getattr(o, n) for o in outcomes] for n in ("score", "smallest", "largest")]
        name = {"none": "fixed", "both": "learned"}[learn]
        lines.append(f"| {name} | {' | '.join(map(percent, columns))} |")
    differences = 100 * np.subtract(*([o.score for o in found[k]] for k in ("both", "none")))
    low, high = t_interval(differences.tolist()) or (np.nan, np.nan)
    lines += [
        "",
        f"Learned - fixed by seed: {' '.join(f'{d:+.2f}' for d in differences)}; mean "
        f"{differences.mean():+.2f} ({low:+.2f} to {high:+.2f}).",
    ]
    text = "\n".join(lines)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
