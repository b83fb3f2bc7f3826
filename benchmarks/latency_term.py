"""What part of a training step the relaxed latency takes.

    python benchmarks/latency_term.py [--steps 15]

The demo's space at batches of 64 and Table 1 (width 0.5, 32x32) at batches of 16, with their tables
in docs/results/latency/ as cost. A step has the largest and the smallest network, two random ones,
and two relaxed latencies with their gradients, one of each boundary. Steps and the latter alone are
timed in turn on one thread, by the time that the processor spent on this process, so that others
beside count little. Prints medians, and the ratio with its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from benchmarks.latency import FOLDER, model_of
from benchmarks.step import ratios, setting_of

from boundnas import TrainSettings
from boundnas.cost import Latency
from boundnas.randomness import stream

CASES = {"digits": 64, "table1": 16}
"""Batch sizes."""

CALLS = 20
"""So often the term is computed for one time that is taken."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| space | batch | terms | a step | two relaxed latencies | part of a step |")
    print("|---|---|---|---|---|---|")
    for name, batch in CASES.items():
        model = model_of(name).train()
        cost = Latency(model, FOLDER / f"{name}.json")
        s = setting_of(model, TrainSettings(steps=1, start_std=0.1), batch, 0, cost)
        works = partial(s.learning.step, s.images, s.labels), partial(term, cost)
        for work in works:
            work(0)  # what is prepared at first
        times = [[spent(partial(work, n)) for work in works] for n in range(asked.steps)]
        whole, both = zip(*times, strict=True)
        both = [t / CALLS for t in both]
        print(
            f"| {name} | {batch} | {len(cost.terms[2]):,} | {statistics.median(whole):.4f} s | "
            f"{statistics.median(both):.6f} s | {ratios(both, whole, 5)} |"
        )


def term(cost: Latency, step: int) -> None:
    """Two relaxed latencies with the gradients of all gates, so often as `CALLS` says."""
    generator = stream(0, "benchmark", step)
    gates = [torch.rand(len(d), generator=generator) for d in cost.space.dimensions]
    gates = [(gate / gate.sum()).requires_grad_() for gate in gates]
    for _ in range(CALLS):
        for _ in range(2):
            cost.relaxed(cost.space.largest.carrying(gates=tuple(gates))).backward()


def spent(work: Callable[[], object]) -> float:
    """Seconds of the processor."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
