"""What a step costs beside the same step without learned boundaries, and beside static networks.

All figures are ratios of times taken in turn in one run, as medians with quartiles:

- boundaries: a step that learns both boundaries against a plain step on the same four networks,
- slicing: forward and backward of a sub-network in the supernet against the extracted network,
- memory: peak of the step against training the static max network, in processes of their own.

    python benchmarks/step.py [--family mobilenet_v2] [--width 1.0] [--image-size 32]
                              [--batch-size 64] [--threads 2] [--steps 9] [--ghost-fraction 1.0]
                              [--output file.md]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas import TrainSettings, calibrate, extract, models
from boundnas.cost import MACs
from boundnas.models import MobileNet
from boundnas.policy import Policy, SampledArchitecture
from boundnas.randomness import stream
from boundnas.sandwich import Sandwich
from boundnas.train import start_policy

RANDOM_NETWORKS = 5
"""Random networks that slicing is measured on, beside the max and the min."""


class Ungated:
    """Draws what a policy draws, without the gates that learning it needs."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def sample(self, *args: Any) -> SampledArchitecture:
        return replace(self.policy.sample(*args), gates=None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


@dataclass(frozen=True)
class Setting:
    """A supernet, a batch, and the two ways to make a step."""

    model: MobileNet
    images: Tensor
    labels: Tensor
    learning: Sandwich
    plain: Sandwich


def setting(args: argparse.Namespace) -> Setting:
    torch.manual_seed(args.seed)
    model = getattr(models, args.family)(width=args.width, image_size=args.image_size).train()
    cost = MACs(model)
    smallest, largest = cost.reach
    settings = TrainSettings(steps=1, ghost_fraction=args.ghost_fraction, start_std=0.1)
    policies = [start_policy(model, b, settings, args.seed) for b in ("max", "min")]
    cost_range = (2.0 * smallest, 0.5 * largest)
    learning = Sandwich(model, *policies, cost, cost_range, settings, args.seed)
    plain = replace(
        learning,
        max_policy=Ungated(policies[0]),  # type: ignore[arg-type]
        min_policy=Ungated(policies[1]),  # type: ignore[arg-type]
    )
    images = torch.randn(args.batch_size, *model.input_shape)
    images = images.contiguous(memory_format=torch.channels_last)
    return Setting(model, images, torch.randint(10, (args.batch_size,)), learning, plain)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratios(first: Sequence[float], second: Sequence[float]) -> str:
    found = [a / b for a, b in zip(first, second, strict=True)]
    low, middle, high = statistics.quantiles(found, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def boundaries(s: Setting, steps: int) -> list[str]:
    """Steps with and without learning, on the same networks, in turn."""
    times: dict[str, list[float]] = {"learning": [], "plain": []}
    for step in range(steps):
        # Once untimed: kernels for new shapes are compiled in the first pass of whoever is first.
        for sandwich in (s.learning, s.plain):
            sandwich.step(s.images, s.labels, step)
        order = (("learning", s.learning), ("plain", s.plain))
        for name, sandwich in order if step % 2 else order[::-1]:
            s.model.zero_grad()
            times[name].append(timed(partial(sandwich.step, s.images, s.labels, step)))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return [
        "| a step with learned boundaries / a plain one on the same four networks | "
        f"{ratios(times['learning'], times['plain'])} | "
        f"{seconds['learning']:.3f} s, {seconds['plain']:.3f} s |"
    ]


def slicing(s: Setting, repeats: int, seed: int) -> list[str]:
    """Passes through the supernet and through the extracted network, in turn."""
    space, generator = s.model.space, stream(seed, "benchmark")
    architectures = {"max": space.largest, "min": space.smallest}
    for i in range(RANDOM_NETWORKS):
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


def peak(args: argparse.Namespace) -> int:
    """Kilobytes that training adds to this process: of the step, or of the static max network."""
    s = setting(args)
    # What comes before is in both: the supernet, its gradients and the batch.
    for parameter in s.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    static = None
    if args.peak == "static":
        arch = calibrate(s.model, s.model.space.largest, [s.images[:2]])
        static = extract(s.model, arch).train()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is in use now
    before = peak_memory()
    for step in range(3):
        if static is None:
            s.learning.step(s.images, s.labels, step)
        else:
            F.cross_entropy(static(s.images), s.labels).backward()
    return peak_memory() - before


def peak_memory() -> int:
    """Kilobytes of this process at its peak (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def memory() -> list[str]:
    found = {
        which: int(
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--peak", which],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for which in ("step", "static")
    }
    return [
        "| peak memory of a step / of training the static max network | "
        f"{found['step'] / found['static']:.3f} | "
        f"{found['step'] / 1024:.0f} MiB, {found['static'] / 1024:.0f} MiB |"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="mobilenet_v2")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--ghost-fraction", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--peak", choices=("step", "static"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        print(peak(args))
        return
    s = setting(args)
    text = "\n".join(
        [
            f"{args.family}, width {args.width:g}, {args.image_size} pixels, "
            f"batch {args.batch_size}, ghost fraction {args.ghost_fraction:g}; "
            f"{args.threads} threads, {platform.machine()}, PyTorch {torch.__version__}, "
            f"BoundNAS {version('boundnas')}, seed {args.seed}.",
            "",
            f"| ratio | median of {args.steps} pairs (quartiles) | medians |",
            "|---|---|---|",
            *boundaries(s, args.steps),
            *slicing(s, args.steps, args.seed),
            *memory(),
        ]
    )
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
