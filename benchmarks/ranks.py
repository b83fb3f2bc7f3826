"""Training throughput of several ranks of one thread beside one rank of as many threads.

Each round trains in fresh processes, first one way, then the other, on the same batches. A step's
time is taken from its start to the next one's start, so it holds the reading of images, the four
passes, the reduction and the update. Printed are the ratio of throughputs (ranks / one rank) of
every round, their median, and how long the reduction takes.

    python benchmarks/ranks.py [--ranks 2] [--width 1.0] [--batch-size 64] [--steps 9] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import torch

from boundnas import TrainSettings, data, fit, models
from boundnas.cost import MACs
from boundnas.engine import ranks
from boundnas.fit import loop

WARM_UP = 2
"""Steps at the start that are not counted."""


def work(options: argparse.Namespace) -> None:
    """Train in this rank; the first one prints the times of its steps and reductions."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = models.mobilenet_v2(options.width, image_size=32)
    noise = torch.randint(256, (4 * options.batch_size, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(len(noise)) % 10
    source = data.InMemory(noise, labels)
    images = data.assemble(
        "noise",
        source,
        labels,
        source,
        tuple("0123456789"),
        validation_fraction=0.2,
        seed=0,
        padding=4,
        flip=True,
    )
    starts: list[float] = []
    reductions: list[float] = []
    passes = iter(range(10**9))

    def note(*_: object) -> None:
        if next(passes) % 4 == 0:
            starts.append(time.perf_counter())

    def timed(tensors: list[torch.Tensor], when: str) -> None:
        started = time.perf_counter()
        ranks.average(tensors, when)
        reductions.append(time.perf_counter() - started)

    loop.average = timed  # type: ignore[assignment]
    cost = MACs(model)
    model.register_forward_pre_hook(note)
    settings = TrainSettings(
        steps=options.steps + WARM_UP + 1, batch_size=options.batch_size, learning_rate=0.01
    )
    with ranks.connected(600):
        fit(model, images, cost_range=(10e6, 90e6), cost=cost, settings=settings)
        steps = [b - a for a, b in pairwise(starts)][WARM_UP:]
        if ranks.rank() == 0:
            print(json.dumps({"steps": steps, "reductions": reductions[WARM_UP:]}))


def timed(options: argparse.Namespace, count: int, threads: int) -> dict[str, list[float]]:
    """Times of a training by ``count`` ranks of ``threads`` threads each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", __file__, "--threads", str(threads), "--work"]
    for name in ("width", "batch_size", "steps"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        check=True,
    )
    times: dict[str, list[float]] = json.loads(done.stdout)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    print(f"{platform.processor() or platform.machine()}, PyTorch {torch.__version__}")
    ratios = []
    for _ in range(options.rounds):
        one = timed(options, 1, options.ranks)
        several = timed(options, options.ranks, 1)
        times = [statistics.median(each["steps"]) for each in (one, several)]
        reduction = statistics.median(several["reductions"])
        ratios.append(times[0] / times[1])
        print(
            f"one rank, {options.ranks} threads {times[0]:.3f} s a step; {options.ranks} ranks "
            f"{times[1]:.3f} s, of which reduction {reduction:.3f} s with the wait for the "
            f"slower; throughput {ratios[-1]:.3f}"
        )
    print(f"throughput of ranks over threads: median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
