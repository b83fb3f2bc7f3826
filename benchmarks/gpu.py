"""What must hold on a GPU, and how fast it is there: one report from one call.

    benchmarks/gpu.sh [--device cuda] [--minutes 6] [--data FOLDER] [--peer FOLDER]
                      [--parts NAME ...] [--output gpu.md]

Parts, in this order, each by itself, so that one that fails says so and the others go on:

- gradient: the policy gradient, by slices and replayed, against the masked full-width pass of the
  tests, in double precision,
- extraction: the supernet's slice against the extracted network, bit for bit,
- resume: a run stopped half way against one that was not, byte for byte,
- peak: what a large matrix product reaches on this card, in float32 and bfloat16,
- steps: a step of networks that are new to the device, and of the same again, by slices and as it
  is replayed: milliseconds, kernels, how long the device computes, and memory,
- narrow: steps by slices of few and odd numbers of channels, in a process of its own that waits for
  every kernel, as one once ended in "misaligned address",
- training: the paper's CIFAR-sized space on Fashion-MNIST, fixed, clipped and learned boundaries,
- search: candidates a second, the first time and again,
- step: `step.py` in float32 and in bfloat16 (times of the device, waits of the host),
- peer: `peer_step.py` with a copy of AttentiveNAS' code in ``--peer``.

The report is written anew after every part. No part starts when less than its share of the minutes
is left. ``--parts`` names some. ``--data`` is a folder with the four files of Fashion-MNIST;
without it two parts take the digits of scikit-learn, and say so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from tests.oracle import masked
from tests.small import COST_RANGE, digest, mobilenet
from tests.spaces import SPACES, images, supernet
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import boundnas as bn
from boundnas.errors import BoundNASError
from boundnas.fit.replay import replayed, replays
from boundnas.guard.masking import obstacle
from boundnas.method.policy import BOUNDARIES, Boundary, initial_policy
from boundnas.method.sandwich import Sandwich
from boundnas.randomness import stream
from boundnas.search import Evaluator
from boundnas.store.folder import RunFolder
from step import Setting, setting_of
from step import timed as once

ROOT = Path(__file__).parents[1]
SECONDS = 60
"""That another benchmark is given."""


def gradient(device: str) -> Iterator[str]:
    """Largest relative difference of any dimension's gradient, by space: by slices, replayed."""
    for name in SPACES:
        model = supernet(name).double().to(device)
        ways = {"slices": nullcontext, "recordings": partial(replayed, model)}
        if device != "cuda" or obstacle(model) is not None:
            del ways["recordings"]
        worst = dict.fromkeys(ways, 0.0)
        for boundary in BOUNDARIES:
            expected = policy_gradient(model, boundary, partial(masked, model))
            for way, within in ways.items():
                found = policy_gradient(model, boundary, within)
                error = float((found - expected).norm() / expected.norm())
                worst[way] = max(worst[way], error)
        told = ", ".join(f"{way} {error:.1e}" for way, error in worst.items())
        holds = all(error < 1e-9 for error in worst.values())
        yield f"| {name} | {told} | {'holds' if holds else '**FAILS**'} (1e-9) |"


def policy_gradient(
    model: bn.Supernet, boundary: Boundary, within: Callable[[], AbstractContextManager[object]]
) -> Tensor:
    """That of one pass, computed within a context."""
    start = initial_policy(model.space, boundary, stream(0, "start"), std=0.07)
    x = images(model, 5)
    policy, labels = start.double().to(x.device), torch.arange(len(x), device=x.device) % 2
    arch = policy.sample(stream(0, "gumbel"))
    with within():
        F.cross_entropy(model(x, arch), labels).backward()
    return policy.logits.grad


def extraction(device: str) -> Iterator[str]:
    """Networks of every space whose extracted form computes the same bits."""
    for name in SPACES:
        model = supernet(name).to(device).eval()
        generator, same, different = stream(0, "extract"), 0, 0.0
        archs = [model.space.smallest, model.space.largest]
        archs += [model.space.sample(generator) for _ in range(3)]
        for arch in archs:
            held = bn.calibrate(model, arch, [images(model, 8)])
            net, x = bn.extract(model, held), images(model, 4, 1)
            with torch.no_grad():
                ours, theirs = model(x, held), net(x)
            same += bool(torch.equal(ours, theirs))
            different = max(different, float((ours - theirs).abs().max()))
        verdict = "holds" if same == len(archs) else "**FAILS**"
        yield f"| {name} | {same} of {len(archs)}, largest difference {different:.1e} | {verdict} |"


def resume(device: str) -> Iterator[str]:
    """Whether 12 steps in one go and in two goes end in the same bytes."""
    settings = bn.TrainSettings(steps=12, batch_size=16, checkpoint_every=6)
    digests = []
    with tempfile.TemporaryDirectory() as folder:
        for stop in (False, True):
            held = RunFolder.create(Path(folder) / str(stop), "name: run\n")
            for attempt in range(1 + stop):
                model = mobilenet().to(device)
                if stop and not attempt:
                    calls = []

                    def killed(*_: object, calls: list = calls) -> None:
                        calls.append(0)
                        if len(calls) > 8 * 4:  # in the ninth step, after the checkpoint
                            raise KeyboardInterrupt

                    hook = model.register_forward_pre_hook(killed)
                    try:
                        bn.fit(model, bn.data.digits(), cost_range=COST_RANGE, settings=settings,
                               folder=held)  # fmt: skip
                    except KeyboardInterrupt:
                        hook.remove()
                        continue
                run = bn.fit(model, bn.data.digits(), cost_range=COST_RANGE, settings=settings,
                             folder=held)  # fmt: skip
            digests.append(digest(run.model.cpu(), run.boundaries.max.cpu()))
    same = digests[0] == digests[1]
    yield f"| 12 steps, stopped in the 9th | {'same bytes' if same else 'other bytes'} | |"


def timed(work: Callable[[], object], repeats: int = 10) -> float:
    """Median seconds of a work that was done twice before."""
    return statistics.median([once(work) for _ in range(repeats + 2)][2:])


def peak(device: str) -> Iterator[str]:
    """TFLOP/s of a large product of random matrices."""
    side = 8192 if device == "cuda" else 512
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        seconds = timed(lambda a=a, b=b: a @ b)
        yield f"| {dtype} matrix product of {side} | {2e-12 * side**3 / seconds:.1f} TFLOP/s | |"


def told(script: str, *arguments: str) -> Iterator[str]:
    """The tables of another benchmark, in float32 and in bfloat16."""
    for more in ([], ["--autocast"]):
        command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments, *more]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            yield f"Stopped after {SECONDS} s: {' '.join(command[1:])}"
            continue
        yield from (done.stdout if not done.returncode else done.stderr[-1500:]).splitlines()


def step(device: str) -> Iterator[str]:
    """The tables of step.py."""
    size = ["--batch-size", "256"]
    if device != "cuda":
        size = ["--batch-size", "8", "--width", "0.25", "--image-size", "16"]
    yield from told("step.py", "--device", device, "--steps", "3", "--networks", "1", *size)


def peer(device: str, checkout: Path | None) -> Iterator[str]:
    """The tables of peer_step.py."""
    if checkout is None:
        yield "No copy of its code was given."
        return
    size = ["--steps", "3", "--batch-size", "256" if device == "cuda" else "4"]
    yield from told("peer_step.py", str(checkout), "--device", device, *size)


STEPS = (
    ("mobilenet_v2", 1.0, torch.float32),
    ("mobilenet_v2", 1.0, torch.bfloat16),
    ("mobilenet_v3", 1.0, torch.bfloat16),
    ("mobilenet_v2", 0.25, torch.float32),
)
"""Spaces, widths and precisions."""


def steps(device: str) -> Iterator[str]:
    """What a step takes, replayed and by slices."""
    batch = 256 if device == "cuda" else 4
    for family, width, dtype in STEPS[: None if device == "cuda" else 1]:
        torch.manual_seed(0)
        model = getattr(bn.models, family)(width=width, image_size=32).to(device).train()
        s = setting_of(model, bn.TrainSettings(steps=1, start_std=0.1), batch, 0)
        name = f"{family}, width {width:g}, {dtype}".replace("torch.", "")
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            # By slices a step of new networks takes seconds on a GPU.
            for way, number in (("replayed", 5), ("by slices", 1)):
                with replays(model) if way == "replayed" else nullcontext():
                    for kind, sandwich in (("learned", s.learning), ("plain", s.plain)):
                        yield f"| {name} | {way}, {kind} | {told_of(sandwich, s, device, number)} |"


NARROW = """
import torch, boundnas as bn
from step import setting_of
model = bn.models.mobilenet_v2(width=0.25, image_size=32).to("{0}").train()
s = setting_of(model, bn.TrainSettings(steps=1, start_std=0.1), {1}, 0)
for i in range(2):
    s.learning.step(s.images, s.labels, i)
print("finished")
"""
"""Steps by slices."""


def narrow(device: str) -> Iterator[str]:
    """How steps by slices of a quarter of the width end."""
    program = NARROW.format(device, 64 if device == "cuda" else 4)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS,
        env={**os.environ, "CUDA_LAUNCH_BLOCKING": "1", "PYTHONPATH": path_of_benchmarks()},
    )  # fmt: skip
    yield f"| width 0.25, by slices | {(done.stdout + done.stderr[-1500:]).strip()} | |"


def path_of_benchmarks() -> str:
    """Where a process finds what this one found, and the benchmarks."""
    return os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])


def told_of(sandwich: Sandwich, s: Setting, device: str, number: int) -> str:
    """What steps of new networks and of the same again take, and what a profile of one says."""

    def step(i: int) -> None:
        s.model.zero_grad()
        sandwich.step(s.images, s.labels, i)

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first = once(partial(step, 0))
    new = [once(partial(step, i)) for i in range(1, 1 + number)]
    again = [once(partial(step, i)) for i in range(1, 1 + number)]
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=kinds) as found:
        step(1)
    ran = [e for e in found.events() if e.device_type == DeviceType.CUDA]
    busy = 1e-3 * sum(e.time_range.elapsed_us() for e in ran)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    return (
        f"first {1e3 * first:,.0f} ms; new networks {1e3 * statistics.median(new):,.1f}, again "
        f"{1e3 * statistics.median(again):,.1f} ms; {len(ran)} kernels, {busy:.1f} ms of the "
        f"device; {memory:.2f} GiB"
    )


def data_of(folder: Path | None) -> bn.data.ImageData:
    """Fashion-MNIST where it is at hand."""
    if folder is not None:
        return bn.data.load("fashion_mnist", str(folder))
    return bn.data.digits()


def search(device: str, folder: Path | None) -> Iterator[str]:
    """Candidates a second, of the paper's space at a quarter of its width."""
    data = data_of(folder)
    model = supernet_for(data, 0.25, device)
    evaluator = Evaluator(model, data, bn.SearchSettings(), 0)
    generator = stream(0, "candidates")
    archs = [model.space.sample(generator) for _ in range(8 if device == "cuda" else 2)]
    with evaluator.measuring() as measure:
        first, again = (once(lambda: list(measure(archs))) for _ in range(2))
    yield (
        f"| {data.name}, {len(data.validation)} validation images, 2,048 for calibration | "
        f"{len(archs) / first:.2f} candidates a second, the same again {len(archs) / again:.2f} | |"
    )


def supernet_for(data: bn.data.ImageData, width: float, device: str) -> bn.Supernet:
    """Table 1's space for a data set."""
    torch.manual_seed(0)
    channels, size, _ = data.shape
    return bn.models.mobilenet_v2(
        width=width, image_size=size, in_channels=channels, classes=len(data.classes)
    ).to(device)


WAYS = (("none", "whole"), ("none", "from_cost"), ("both", "whole"))
"""What is learned, and where the boundaries begin: fixed, clipped and learned ones."""

RATE = 0.02
"""Step size of the weights: at width 1 and the default of 0.1 the loss of so short a training
leaves for good what guessing gives, on a CPU too."""


def training(device: str, folder: Path | None, seconds: float) -> Iterator[str]:
    """Equal steps for fixed, clipped and learned boundaries in bfloat16, after a few to time."""
    data = data_of(folder)
    width, batch = (1.0, 256) if device == "cuda" else (0.125, 16)
    a_step = trained(data, width, batch, WAYS[-1], device, 5)[1]
    steps = max(5, int((seconds / len(WAYS) - (20 if device == "cuda" else 1)) / a_step))
    for way in WAYS:
        learn, start = way
        said = f"| {data.name}, width {width:g}, batch {batch}, learn {learn}, bounds {start} | "
        try:
            run, a_step = trained(data, width, batch, way, device, steps)
            found = f"{steps} steps of {1e3 * a_step:.1f} ms, {front_of(run)}"
        except BoundNASError as error:
            found = f"**STOPPED**: {error}"
        yield f"{said}{found} | |"


def trained(
    data: bn.data.ImageData, width: float, batch: int, way: tuple[str, str], device: str, steps: int
) -> tuple[bn.Run, float]:
    """A run, and the median seconds of its steps."""
    reach, times = bn.cost.MACs(supernet_for(data, width, "cpu")).reach, list[float]()
    settings = bn.TrainSettings(
        steps=steps, batch_size=batch, learn=way[0], bounds=way[1], learning_rate=RATE,
        precision="bf16",
    )  # fmt: skip
    run = bn.fit(
        supernet_for(data, width, device), data, cost_range=(2.0 * reach[0], 0.5 * reach[1]),
        settings=settings, observers=[Clock(times)],
    )  # fmt: skip
    return run, statistics.median(b - a for a, b in pairwise(times))


def front_of(run: bn.Run) -> str:
    """The losses of the max network, and the front of a few networks between the boundaries."""
    losses = [run.metrics[i]["loss_max"] for i in (0, len(run.metrics) // 2, -1)]
    front = bn.search(run, bn.SearchSettings(initial=8, rounds=0, crossovers=0, mutations=0))
    shown = front.networks
    return (
        f"loss of the max network {' to '.join(f'{loss:.2f}' for loss in losses)}, "
        f"{len(shown)} networks of 8 on the front from {shown[0].macs / 1e6:.2f} to "
        f"{shown[-1].macs / 1e6:.2f} MMACs, test accuracy {min(n.test for n in shown):.1%} to "
        f"{max(n.test for n in shown):.1%}"
    )


@dataclass
class Clock(bn.Observer):
    """When each step ended."""

    times: list[float]

    def step(self, row: object) -> None:
        self.times.append(time.perf_counter())


def main() -> None:
    """Run all parts and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--parts", nargs="+")
    parser.add_argument("--output", type=Path, default=Path("gpu.md"))
    options = parser.parse_args()
    device, began = options.device, time.monotonic()
    torch.backends.cudnn.deterministic = True

    def left() -> float:
        return 60 * options.minutes - (time.monotonic() - began)

    parts: dict[str, tuple[float, Callable[[], Iterator[str]]]] = {
        "gradient": (15, lambda: gradient(device)),
        "extraction": (20, lambda: extraction(device)),
        "resume": (15, lambda: resume(device)),
        "peak": (5, lambda: peak(device)),
        "steps": (60, lambda: steps(device)),
        "narrow": (45, lambda: narrow(device)),
        "training": (60, lambda: training(device, options.data, 0.45 * left())),
        "search": (20, lambda: search(device, options.data)),
        "step": (40, lambda: step(device)),
        "peer": (20, lambda: peer(device, options.peer)),
    }
    machine = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    lines = [f"{machine}, PyTorch {torch.__version__}, {options.minutes:g} minutes allowed.", ""]
    for name in options.parts or parts:
        needs, part = parts[name]
        start = time.monotonic()
        lines += [f"## {name}", "", "| | | |", "|---|---|---|"]
        try:
            lines += list(part()) if left() > needs else [f"Not run: {left():.0f} s were left."]
        except Exception:
            lines += ["**FAILED**", "```", traceback.format_exc()[-1500:], "```"]
        lines += ["", f"{time.monotonic() - start:.0f} s", ""]
        options.output.write_text("\n".join(lines))
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    print(options.output.read_text())


if __name__ == "__main__":
    main()
