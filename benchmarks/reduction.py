"""The one message of a step between ranks on one machine, beside a message per tensor.

Each rank averages as many numbers as the supernet of Table 1 has weights with the others, over the
loopback device: all of it in one message, as training does, and tensor by tensor, as it would be
if every gradient were sent when it is there. An artificial delay stands for a slow network.

    python benchmarks/reduction.py [--ranks 2 4 8] [--delay 0.0]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from boundnas.engine import ranks

NUMBERS = 4_766_728
"""Weights of the space of Table 1 with a thousand classes."""

TENSORS = 206
"""So many tensors they are."""


def median(work: Callable[[], None], repeats: int) -> float:
    """Median seconds of some work that all ranks begin together, after a first time."""
    times = []
    for _ in range(repeats + 1):
        ranks.wait("before a measurement")
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measure(delay: float) -> None:
    """Take part; the first rank prints a row."""
    torch.set_num_threads(1)
    tensors = [torch.ones(NUMBERS // TENSORS) for _ in range(TENSORS)]

    def send(each: list[torch.Tensor]) -> None:
        time.sleep(delay)
        ranks.average(each, "a measurement")

    with ranks.connected(600):
        together = median(lambda: send(tensors), 9)
        apart = median(lambda: [send([t]) for t in tensors] and None, 3)
        if ranks.rank() == 0:
            print(
                f"| {ranks.size()} | {1e3 * together:.0f} ms | {1e3 * apart:.0f} ms |", flush=True
            )


def main() -> None:
    """Start the ranks and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every message")
    options = parser.parse_args()
    if "RANK" in os.environ:
        measure(options.delay)
        return
    print("| ranks | one message | a message per tensor |\n|---|---|---|", flush=True)
    for count in options.ranks:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launch += [f"--nproc-per-node={count}", __file__, f"--delay={options.delay}"]
        subprocess.run(launch, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


if __name__ == "__main__":
    main()
