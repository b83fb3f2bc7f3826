"""Peak memory as it is predicted, beside what ONNX Runtime takes.

Networks of several spaces, from the smallest to the largest, are written as ONNX files. A process
of its own runs each, on one thread: what it takes is the most memory that it ever had resident in
a pass, less what it had before, and its inputs. Four ways of running are compared: each tensor is
allocated and freed by itself, in the layout of the graph or in blocks of 16 channels; and ONNX
Runtime with blocks and an arena, without planned reuse or, as it comes, with it.

    python benchmarks/memory.py [--networks 12] [--batch 8] [--output docs/results/memory]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch

import boundnas as bn
from boundnas.cost import Bytes, PeakMemory
from boundnas.cost.plan import Buffer, Plan
from boundnas.randomness import stream
from boundnas.space import Architecture
from boundnas.supernet.extract import random_inputs

SPACES = {
    "Table 1": lambda: bn.models.mobilenet_v3(1.0, 32),
    "ResNet-34": lambda: bn.models.resnet(1.0, 32),
    "DeiT-Tiny": lambda: bn.models.vit(1.0, 32),
}
BLOCK = 16
"""Channels that ONNX Runtime holds together on processors with AVX-512; 8 on others of x86."""

WAYS = {
    "plain layout": "plan",
    "blocked layout": "blocks",
    "no planned reuse": "blocks",
    "as it comes": "reuse",
}
"""See `benchmarks/resident.py`; and the prediction that is meant for each, see `predictions`."""
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "16384",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
}
"""Memory that is freed goes back to the system at once, so that the most resident is the peak."""


def networks(model: bn.Supernet, number: int) -> list[Architecture]:
    """The smallest, the largest, and random ones of growing parts of the space, two options on."""
    space, generator = model.space, stream(0, "networks")
    found = [space.smallest, space.largest]
    for i in range(number - 2):
        part = (i + 1) / (number - 1)
        allowed = [
            tuple(range(min(len(d), max(2, round(part * len(d)))))) for d in space.dimensions
        ]
        found.append(space.sample(generator, allowed))
    return found


def predictions(model: bn.Supernet, batch: int) -> dict[str, Callable[[Architecture], int]]:
    """The cost, in the layout of the graph and in blocks; and what planned reuse makes of it."""
    return {
        "plan": PeakMemory(model, batch),
        "blocks": PeakMemory(model, batch, BLOCK),
        "reuse": lambda arch: reused(Plan(model, arch, batch, BLOCK), arch),
    }


def reused(plan: Plan, arch: Architecture) -> int:
    """Bytes of a plan whose memory goes to a later tensor of exactly its size.

    Each memory is held from the first such tensor to the last. It depends on which sizes happen to
    be equal, and so has no form in which each option has its gradient: it is no cost.
    """
    moments = list(plan.moments().values())
    memories: list[tuple[int, list[int]]] = []  # bytes, and the moments at which one is in use
    used: dict[Buffer, int] = {}
    for now, held in enumerate(moments):
        used = {b: memory for b, memory in used.items() if b in held}
        for buffer in held:
            if buffer not in used:
                size, taken = buffer.held(arch), set(used.values())
                free = (i for i, (s, _) in enumerate(memories) if s == size and i not in taken)
                used[buffer] = next(free, len(memories))
                if used[buffer] == len(memories):
                    memories.append((size, []))
            memories[used[buffer]][1].append(now)
    spans = [(size, min(at), max(at)) for size, at in memories]
    return max(sum(s for s, a, b in spans if a <= now <= b) for now in range(len(moments)))


def measured(model: bn.Supernet, arch: Architecture, batch: int, folder: Path) -> dict[str, int]:
    """What a network takes, by the way of running, and the size of its file."""
    net = bn.extract(model, bn.calibrate(model, arch, [random_inputs(model)]))
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one: it is the faster
        torch.onnx.export(net, (torch.ones(batch, *model.input_shape),), path, dynamo=False)
    found = {}
    for way in WAYS:
        command = [sys.executable, str(Path(__file__).with_name("resident.py")), str(path), way]
        done = subprocess.run(
            command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True
        )
        found[way] = int(done.stdout)
    return found | {"file": path.stat().st_size}


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """The correlation of ranks; equal ones share theirs."""

    def ranks(x: Sequence[float]) -> list[float]:
        return [sum(y < v for y in x) + sum(y == v for y in x) / 2 for v in x]

    return statistics.correlation(ranks(a), ranks(b))


def table(rows: list[dict[str, Any]], way: str) -> str:
    """Ranks of all predictions of what a way takes, and errors of the one that is meant for it."""
    taken = [row[way] for row in rows]
    ranks = [
        f"{spearman([row[p] for row in rows], taken):.3f}" for p in ("plan", "blocks", "reuse")
    ]
    ratios = [row[WAYS[way]] / row[way] for row in rows]
    fitted = statistics.median(ratios)
    off = statistics.fmean(abs(r / fitted - 1) for r in ratios)
    return f"{' | '.join(ranks)} | {fitted:.2f} | {100 * off:.1f} %"


def report(spaces: dict[str, list[dict[str, Any]]], batch: int) -> str:
    """Both tables, in Markdown."""
    cores = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    lines = [
        f"{cores[0].partition(': ')[2]} ({platform.system()}), 1 thread, Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}, ONNX Runtime "
        f"{onnxruntime.__version__}. Batches of {batch}, seed 0, images of 32x32.",
        "",
        "| space | networks | MB, from to | ONNX Runtime | Spearman: plan | blocks | blocks, reuse "
        "| predicted / measured, median | mean error about it |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    everything = [row for rows in spaces.values() for row in rows]
    for name, rows in [*spaces.items(), ("all", everything)]:
        for way in WAYS:
            ends = [f"{f(r[way] for r in rows) / 1e6:.1f}" for f in (min, max)]
            lines.append(
                f"| {name} | {len(rows)} | {' to '.join(ends)} | {way} | {table(rows, way)} |"
            )
    lines += [
        "",
        "| space | networks | ONNX file, MB, from to | file / Bytes, from to |",
        "|---|---|---|---|",
    ]
    for name, rows in spaces.items():
        files = [row["file"] for row in rows]
        parts = [row["file"] / row["bytes"] for row in rows]
        lines.append(
            f"| {name} | {len(rows)} | {min(files) / 1e6:.2f} to {max(files) / 1e6:.2f} | "
            f"{min(parts):.3f} to {max(parts):.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    spaces: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, build in SPACES.items():
            torch.manual_seed(0)
            model = build()
            size, predicted = Bytes(model), predictions(model, options.batch)
            spaces[name] = []
            for arch in networks(model, options.networks):
                row = measured(model, arch, options.batch, Path(folder))
                row |= {name: of(arch) for name, of in predicted.items()} | {"bytes": size(arch)}
                spaces[name].append(row | {"architecture": arch.values})
                print(name, row, file=sys.stderr, flush=True)
    text = report(spaces, options.batch)
    print(text)
    if options.output is not None:
        options.output.with_suffix(".json").write_text(json.dumps(spaces, indent=1) + "\n")


if __name__ == "__main__":
    main()
