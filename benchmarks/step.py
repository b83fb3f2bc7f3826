"""What a step costs beside the same step without learned boundaries, and beside static networks.

All figures are ratios of times taken in turn in one run, as medians with quartiles:

- boundaries: a step that learns both boundaries against a plain step on the same four networks,
- slicing: forward and backward of a sub-network in the supernet against the extracted network,
- memory: peak of the step against training the static max network, in processes of their own, with
  gradient checkpointing and without,
- arithmetic: what the max network's pass reaches beside 1x1 convolutions alone.

    python benchmarks/step.py [--family mobilenet_v2] [--width 1.0] [--image-size 32]
                              [--batch-size 64] [--threads 2] [--steps 9] [--networks 5]
                              [--ghost-fraction 0.125]
                              [--estimator straight_through] [--device cpu|cuda] [--autocast]
                              [--output file.md]

``--device cuda`` takes the times of the device, counts how often a step makes the host wait for it,
and leaves out memory; training passes are replayed there, as in a training. ``--autocast`` computes
in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas import Architecture, Supernet, TrainSettings, calibrate, elastic, extract, models
from boundnas.cost import Budget, Cost, MACs
from boundnas.engine.tuning import give_back, tune
from boundnas.fit.replay import replays
from boundnas.fit.start import start_boundaries
from boundnas.method.policy import Boundaries, Policy
from boundnas.method.sandwich import Sandwich
from boundnas.method.variants import ESTIMATORS, chosen
from boundnas.randomness import stream
from boundnas.task import Classification

PEAKS = ("static", "step", "recomputed")
"""What memory is measured of."""


class Ungated:
    """Draws what a policy draws, without the gates that learning it needs."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def sample(self, *args: Any, **options: Any) -> Architecture:
        return self.policy.sample(*args, **{**options, "learns": False})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


@dataclass(frozen=True)
class Setting:
    """A supernet, a batch, and the two ways to make a step."""

    model: Supernet
    images: Tensor
    labels: Tensor
    learning: Sandwich
    plain: Sandwich


def setting(args: argparse.Namespace) -> Setting:
    torch.manual_seed(args.seed)
    model = getattr(models, args.family)(width=args.width, image_size=args.image_size).train()
    settings = TrainSettings(
        steps=1, ghost_fraction=args.ghost_fraction, estimator=args.estimator, start_std=0.1
    )
    return setting_of(model.to(args.device), settings, args.batch_size, args.seed)


def setting_of(
    model: Supernet, settings: TrainSettings, batch: int, seed: int, cost: Cost | None = None
) -> Setting:
    """Steps of a supernet with random images, on the supernet's device; by default for MACs."""
    device = next(model.parameters()).device
    cost = cost or MACs(model)
    smallest, largest = cost.reach
    budgets = [Budget(cost, (2.0 * smallest, 0.5 * largest))]
    boundaries = start_boundaries(model, settings, seed, budgets)
    task, variants = Classification(), chosen(settings, cost)
    learning = Sandwich(model, task, boundaries, budgets, settings, seed, variants)
    ungated = (Ungated(policy) for _, policy in boundaries.items())
    plain = replace(
        learning,
        boundaries=Boundaries(*ungated, boundaries.tau, boundaries.eq6),  # type: ignore[arg-type]
        variants=replace(variants, surrogate=None),
    )
    images = torch.randn(batch, *model.input_shape).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,)).to(device)
    return Setting(model, images, labels, learning, plain)


def timed(work: Callable[[], object]) -> float:
    """Seconds until all of the work is done, on whatever device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratios(first: Sequence[float], second: Sequence[float], digits: int = 3) -> str:
    found = [a / b for a, b in zip(first, second, strict=True)]
    low, middle, high = (f"{ratio:.{digits}f}" for ratio in statistics.quantiles(found, n=4))
    return f"{middle} ({low} to {high})"


def step_times(s: Setting, steps: int) -> dict[str, list[float]]:
    """Seconds of steps with and without learning, on the same networks, in turn."""
    times: dict[str, list[float]] = {"learning": [], "plain": []}
    for step in range(steps):
        # Once untimed: kernels for new shapes are compiled in the first pass of whoever is first.
        for sandwich in (s.learning, s.plain):
            sandwich.step(s.images, s.labels, step)
        order = (("learning", s.learning), ("plain", s.plain))
        for name, sandwich in order if step % 2 else order[::-1]:
            s.model.zero_grad()
            times[name].append(timed(partial(sandwich.step, s.images, s.labels, step)))
    return times


def boundaries(s: Setting, steps: int) -> list[str]:
    times = step_times(s, steps)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return [
        "| a step with learned boundaries / a plain one on the same four networks | "
        f"{ratios(times['learning'], times['plain'])} | "
        f"{seconds['learning']:.3f} s, {seconds['plain']:.3f} s |"
    ]


def slicing(s: Setting, repeats: int, seed: int, number: int) -> list[str]:
    """Passes through the supernet and through the extracted network, in turn."""
    space, generator = s.model.space, stream(seed, "benchmark")
    architectures = {"max": space.largest, "min": space.smallest}
    for i in range(number):
        architectures[f"random {i + 1}"] = space.sample(generator)
    rows = []
    for name, arch in architectures.items():
        static = extract(s.model, calibrate(s.model, arch, [s.images])).train()

        def supernet(arch: Any = arch) -> None:
            F.cross_entropy(s.model(s.images, arch), s.labels).backward()
            s.model.zero_grad()

        def plain(static: Any = static) -> None:
            F.cross_entropy(static(s.images), s.labels).backward()
            static.zero_grad()

        supernet(), plain()
        pairs = [(timed(supernet), timed(plain)) for _ in range(repeats)]
        ours, theirs = zip(*pairs, strict=True)
        rows.append(
            f"| pass of the {name} network / extracted | {ratios(ours, theirs)} | "
            f"{statistics.median(ours):.4f} s, {statistics.median(theirs):.4f} s |"
        )
    return rows


def peak(args: argparse.Namespace) -> dict[str, float]:
    """What training takes in this process: of the step, or of the static max network.

    Returns:
        Kilobytes that it adds, those of the whole process, and seconds of the processor.
    """
    tune()  # as a training does
    s = setting(args)
    again = args.peak == "recomputed"
    settings = s.learning.settings.model_copy(update={"gradient_checkpointing": again})
    sandwich = replace(s.learning, settings=settings)
    # What comes before is in both: the supernet, its gradients and the batch.
    for parameter in s.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    static = None
    if args.peak == "static":
        arch = calibrate(s.model, s.model.space.largest, [s.images[:2]])
        static = extract(s.model, arch).train()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is in use now
    before, start = peak_memory(), time.process_time()
    for step in range(args.peak_steps):
        if static is None:
            sandwich.step(s.images, s.labels, step, lambda *_: give_back() if again else None)
        else:
            F.cross_entropy(static(s.images), s.labels).backward()
    seconds = (time.process_time() - start) / args.peak_steps
    return {"added": peak_memory() - before, "whole": peak_memory(), "seconds": seconds}


def peak_memory() -> int:
    """Kilobytes of this process at its peak (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def arithmetic(s: Setting, repeats: int) -> list[str]:
    """GFLOP/s of the max network's forward and backward pass, and of 1x1 convolutions alone.

    Two operations a MAC, and a backward pass of twice the forward pass, for both. The convolution
    is the largest the space has at an eighth of the image's height and width; without any, nothing.
    """
    space, model = s.model.space, s.model
    macs = MACs(model)(space.largest) * len(s.images)

    def network() -> None:
        F.cross_entropy(model(s.images, space.largest), s.labels).backward()
        model.zero_grad()

    convolutions = [m.weight for m in model.modules() if isinstance(m, elastic.Conv2d)]
    products = [weight for weight in convolutions if weight.shape[-1] == 1]
    if not products:
        return []
    weight = max(products, key=torch.numel)
    side = s.images.shape[-1] // 8
    x = torch.randn(len(s.images), weight.shape[1], side, side, device=weight.device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = weight.detach().clone().requires_grad_()

    def convolution() -> None:
        torch.autograd.grad(F.conv2d(x, weight).sum(), (x, weight))

    network(), convolution()
    pairs = [(timed(network), timed(convolution)) for _ in range(repeats)]
    size = len(s.images) * side**2 * weight.numel()
    rates = [(6e-9 * macs / n, 6e-9 * size / c) for n, c in pairs]
    ours, peak = zip(*rates, strict=True)
    return [
        f"| GFLOP/s of the max network's pass / of 1x1 convolutions ({weight.shape[1]} to "
        f"{weight.shape[0]} channels, {side}x{side}) | {ratios(ours, peak)} | "
        f"{statistics.median(ours):.0f}, {statistics.median(peak):.0f} |"
    ]


def waits(s: Setting) -> list[str]:
    """How often the host waits for the device within a step, by PyTorch's own detection."""
    s.learning.step(s.images, s.labels, 0)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        s.learning.step(s.images, s.labels, 1)
    torch.cuda.set_sync_debug_mode("default")
    places = sorted({f"{Path(w.filename).name}:{w.lineno}" for w in caught})
    return [f"| waits of the host for the device in a step | {len(caught)} | {', '.join(places)} |"]


def memory() -> list[str]:
    """Peaks of processes of their own: of the static network, a step, and one that recomputes."""
    found = {}
    for which in PEAKS:
        command = [sys.executable, __file__, *sys.argv[1:], "--peak", which]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[which] = json.loads(done.stdout)
    static, plain, again = (found[which] for which in PEAKS)
    rows = [
        f"| peak memory of a step{how} / of training the static max network | "
        f"{each['added'] / static['added']:.3f} | {each['added'] / 1024:.0f} MiB, "
        f"{static['added'] / 1024:.0f} MiB; the whole process {each['whole'] / 1024:.0f} MiB |"
        for how, each in (("", plain), (" with gradient checkpointing", again))
    ]
    return [
        *rows,
        "| processor time of a step with gradient checkpointing / without | "
        f"{again['seconds'] / plain['seconds']:.3f} | "
        f"{again['seconds']:.2f} s, {plain['seconds']:.2f} s |",
    ]


def measured(s: Setting, args: argparse.Namespace) -> list[str]:
    """All rows but those of memory."""
    return [
        *boundaries(s, args.steps),
        *slicing(s, args.steps, args.seed, args.networks),
        *arithmetic(s, args.steps),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="mobilenet_v2")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--networks", type=int, default=5, help="random ones that slicing is for")
    parser.add_argument(
        "--ghost-fraction", type=float, default=TrainSettings(steps=1).ghost_fraction
    )
    parser.add_argument("--estimator", choices=tuple(ESTIMATORS), default="straight_through")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--autocast", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--memory", action="store_true", help="measure nothing else")
    parser.add_argument("--peak-steps", type=int, default=3, help="that memory is measured in")
    parser.add_argument("--peak", choices=PEAKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        print(json.dumps(peak(args)))
        return
    s = setting(args)
    with torch.autocast(args.device, torch.bfloat16, enabled=args.autocast), replays(s.model):
        rows = [] if args.memory else measured(s, args)
        rows += waits(s) if args.device == "cuda" else memory()
    machine = f"{args.threads} threads, {platform.machine()}"
    if args.device == "cuda":
        machine = torch.cuda.get_device_name()
    text = "\n".join(
        [
            f"{args.family}, width {args.width:g}, {args.image_size} pixels, "
            f"batch {args.batch_size}, {args.estimator.replace('_', ' ')}, "
            f"ghost fraction {args.ghost_fraction:g}"
            f"{', bfloat16 autocast' * args.autocast}; "
            f"{machine}, PyTorch {torch.__version__}, "
            f"BoundNAS {version('boundnas')}, seed {args.seed}.",
            "",
            f"| ratio | median of {args.steps} pairs (quartiles) | medians |",
            "|---|---|---|",
            *rows,
        ]
    )
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
