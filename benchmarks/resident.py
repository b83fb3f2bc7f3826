"""Bytes that ONNX Runtime takes for a pass of a network, in a process that holds nothing else.

What is most resident in a pass, less what was resident before, and the inputs, which were. Either
each tensor is allocated and freed by itself, in the layout of the graph or in that of blocks of
channels, and the first pass, which sets things up, does not count; or it runs three passes with
blocks and an arena, which keeps what the first one took beside the one piece of memory that later
ones have, without planned reuse or, as it comes, with it.

    python benchmarks/resident.py net.onnx "plain layout"|"blocked layout"|"no planned reuse"|…
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def resident(which: str) -> int:
    """Bytes of this process that are resident, now (``VmRSS``) or at most (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))


def take(path: str, way: str) -> int:
    """Bytes that a pass takes, in one of the ways."""
    apart = way.endswith("layout")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if apart:
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    if way != "as it comes":
        options.enable_mem_reuse = False
    if way == "plain layout":
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    inputs = {given.name: np.ones(given.shape, np.float32)}
    if apart:
        session.run(None, inputs)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most resident counts from now on
    for _ in range(1 if apart else 3):
        session.run(None, inputs)
    return resident("VmHWM") - before + sum(x.nbytes for x in inputs.values())


if __name__ == "__main__":
    print(take(*sys.argv[1:]))
