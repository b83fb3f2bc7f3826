"""How close is the straight-through policy gradient to the true one?

Trains a small supernet with learned boundaries, then compares on one fixed batch, for the min and
the max policy, with the brute-force gradient of the expected loss:

- the library's straight-through gradient (``policy.sample`` and ``loss.backward()``),
- for contrast, a gradient that flows only through what was computed for the chosen slice.

    python benchmarks/policy_gradient.py [--steps 800] [--samples 4000] [--threads 1] [--seed 0]
                                         [--data digits|fashion_mnist] [--output file.md]
"""

from __future__ import annotations

import argparse
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

import boundnas
from boundnas import Architecture, Supernet, TrainSettings
from boundnas.cost import MACs
from boundnas.data import ImageData, load, normalize
from boundnas.distill import kl_divergence
from boundnas.elastic import activation, convolution, linear, squeeze_excite, stage
from boundnas.elastic.ghost import mix
from boundnas.models.mobilenet import MobileNet, StageTable, StemTable
from boundnas.policy import Policy
from boundnas.progress import Progress
from boundnas.randomness import stream
from boundnas.space import Dimension
from boundnas.train import Run, fit

BATCH = 256
FOLDS = 10
"""Folds of the control variate within each half of the brute-force samples."""

SCORE_SAMPLES_PER_GRADIENT = 4
"""A gradient sample has so much less noise than a score-function sample that fewer suffice."""

KINDS = ("width", "depth", "kernel", "se", "activation")

Loss = Callable[[Architecture], Tensor]


@dataclass(frozen=True)
class Estimate:
    """Single-sample gradients of an expected loss with respect to a policy's logits.

    Args:
        samples: Shape ``(N, D, d_max)``, zero beyond a dimension's options.
        seconds: What they took.
    """

    samples: Tensor
    seconds: float

    @property
    def mean(self) -> Tensor:
        return self.samples.mean(0)

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        first, second = self.samples.chunk(2)
        return first.mean(0), second.mean(0)


# The supernet and its training


def small_supernet(data: ImageData) -> MobileNet:
    """A MobileNetV3-like space with every kind of dimension; dropout off, so losses are exact."""
    both: dict[str, Any] = {
        "kernel": (3, 5),
        "se": (False, True),
        "activation": ("relu", "swish"),
    }
    stages = [
        StageTable((12, 24, 36, 48), (6, 12, 18), (1, 2), **both),
        StageTable((24, 48, 72, 96), (8, 16, 24), (1, 2, 3), stride=2, **both),
        StageTable((24, 48, 72, 96), (16, 24, 32), (1, 2), **both),
    ]
    channels, image_size, _ = data.shape
    stem = StemTable((4, 8, 12, 16), (3, 5), stride=2 if image_size > 16 else 1)
    return MobileNet(
        stem,
        stages,
        last_width=96,
        image_size=image_size,
        in_channels=channels,
        classes=len(data.classes),
        dropout=0.0,
        drop_connect=0.0,
    )


def train(data: ImageData, steps: int, seed: int) -> Run:
    torch.manual_seed(seed)
    model = small_supernet(data)
    smallest, largest = MACs(model).reach
    # Wanted: the middle of the space, so that both boundaries have room to move.
    cost_range = (smallest + 0.15 * (largest - smallest), smallest + 0.6 * (largest - smallest))
    settings = TrainSettings(
        steps=steps, learn="both", start_std=START_STD, policy_learning_rate=POLICY_LEARNING_RATE
    )
    run = fit(model, data, cost_range=cost_range, settings=settings, seed=seed)
    model.train()  # batch statistics, as in the steps of the training
    return run


START_STD = 0.1
POLICY_LEARNING_RATE = 2e-3


def losses(run: Run, seed: int) -> dict[str, tuple[Policy, Loss]]:
    """The loss of each policy's networks on one fixed batch, a function of the architecture."""
    data, model, sandwich = run.data, run.model, run.sandwich
    chosen = torch.randperm(len(data.train), generator=stream(seed, "benchmark_batch"))[:BATCH]
    images, labels = data.train.take(chosen)
    images = normalize(images, data.mean, data.std)
    with torch.no_grad():
        teacher = model(images, sandwich.max_policy.mode)
    return {
        "min": (sandwich.min_policy, lambda arch: kl_divergence(model(images, arch), teacher)),
        "max": (sandwich.max_policy, lambda arch: F.cross_entropy(model(images, arch), labels)),
    }


# The three estimators


@torch.no_grad()
def score_function(policy: Policy, loss: Loss, samples: int, seed: int) -> tuple[Estimate, int]:
    """Brute force: ``E[loss * d log p / d logits]``, from values of the loss alone.

    An additive model of the loss, one term per option of every dimension, is subtracted, and its
    own gradient, known exactly, is added. Each sample's model is fitted to other samples of the
    same half, so the estimate is unbiased and its halves are independent.

    Returns:
        The estimate, and how many different architectures were drawn.
    """
    start = time.perf_counter()
    p = policy.probabilities.double()
    indices = torch.multinomial(
        p, samples, replacement=True, generator=stream(seed, "score_function")
    ).T
    values: dict[tuple[int, ...], float] = {}
    with Progress(samples, "brute force", unit="sample") as progress:
        for row in map(tuple, indices.tolist()):
            if row not in values:
                values[row] = loss(Architecture(policy.space, row)).item()
            progress.advance()
    y = torch.tensor([values[row] for row in map(tuple, indices.tolist())], dtype=torch.float64)
    # d log p / d scores; the exact zero mean of every entry makes the model's mean its constant.
    scores = F.one_hot(indices, p.shape[-1]).double() - p
    halves = [
        _with_control_variate(half_scores, half_y, p)
        for half_scores, half_y in zip(scores.chunk(2), y.chunk(2), strict=True)
    ]
    gradients = torch.cat(halves) / policy.temperature
    return Estimate(gradients, time.perf_counter() - start), len(values)


def _with_control_variate(scores: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """Single-sample gradients with respect to the scores, shape ``(N, D, d_max)``."""
    gradients = torch.empty_like(scores)
    fold = torch.arange(len(y)) % FOLDS
    for f in range(FOLDS):
        rest, held_out = fold != f, fold == f
        constant = y[rest].mean()
        x = scores[rest].flatten(1)
        # The ridge settles the directions in which options of one dimension change together.
        normal = x.T @ x + torch.eye(x.shape[1], dtype=x.dtype)
        model = torch.linalg.solve(normal, x.T @ (y[rest] - constant)).view_as(p)
        exact = p * (model - (p * model).sum(-1, keepdim=True))
        predicted = constant + (scores[held_out] * model).sum((1, 2))
        residual = (y[held_out] - predicted)[:, None, None]
        gradients[held_out] = residual * scores[held_out] + exact
    return gradients


def straight_through(
    policy: Policy, loss: Loss, model: Supernet, samples: int, seed: int, label: str
) -> Estimate:
    """The library's gradient: a relaxed sample and a backward pass, in float32."""
    start, gradients = time.perf_counter(), []
    generator = stream(seed, "straight_through")
    with Progress(samples, label, unit="sample") as progress:
        for _ in range(samples):
            policy.logits.grad = None
            loss(policy.sample(generator)).backward()
            assert policy.logits.grad is not None
            gradients.append(policy.logits.grad.double())
            model.zero_grad()
            progress.advance()
    policy.logits.grad = None
    return Estimate(torch.stack(gradients), time.perf_counter() - start)


@contextmanager
def slice_only() -> Iterator[None]:
    """Within it, gates see only what was computed for the chosen slice.

    No channel that was not chosen is computed, and no alternative: a wider option and a larger
    kernel get the gradient of the part that is active, and of the depths, activations and
    squeeze-and-excites only the chosen one gets a gradient.
    """

    def mix_chosen(y: Tensor, gate: Tensor | None, alternatives: Any, fraction: float) -> Tensor:
        chosen = -1 if gate is None else int(gate.argmax())
        kept = {j: f for j, f in alternatives.items() if j == chosen}
        return mix(y, gate, kept, fraction)

    def active_crops(setting: Dimension, size: int, device: torch.device) -> Tensor:
        distance = (torch.arange(size, device=device) - size // 2).abs()
        distance = torch.maximum(distance[:, None], distance[None, :]).flatten()
        sizes = torch.tensor([int(c) for c in setting.choices], device=device)
        return (distance <= sizes[:, None] // 2).float()

    with ExitStack() as stack:
        for module in (activation, convolution, squeeze_excite, stage):
            stack.enter_context(mock.patch.object(module, "mix", mix_chosen))
        for module in (convolution, linear):
            stack.enter_context(mock.patch.object(module, "ghosts_of", lambda *_: False))
        stack.enter_context(mock.patch.object(convolution, "crops", active_crops))
        yield


# Comparing and reporting


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def signal_to_noise(samples: Tensor) -> float:
    """Length of the mean over the root-mean-square length of a sample's deviation from it."""
    mean = samples.mean(0)
    noise = (samples - mean).square().sum() / (len(samples) - 1)
    # The square of an average of N samples holds 1/N of their noise.
    signal = mean.square().sum() - noise / len(samples)
    return math.sqrt(max(0.0, float(signal / noise)))


def table(policy: Policy, true: Estimate, exact: Estimate, sliced: Estimate) -> list[str]:
    dimensions = policy.space.dimensions
    rows = {"all": list(range(len(dimensions)))}
    for kind in KINDS:
        rows[kind] = [i for i, d in enumerate(dimensions) if d.kind == kind]
    lines = [
        "| dimensions | cosine (2) to (1) | cosine (3) to (1) | halves of (1) | ceiling "
        "| norm (2) / (1) | norm (3) / (1) | share of (1) | SNR (1) | SNR (2) | SNR (3) |",
        "|" + "---|" * 11,
    ]
    for name, of in rows.items():
        truth, ours, theirs = (e.mean[of] for e in (true, exact, sliced))
        first, second = (half[of] for half in true.halves)
        between = cosine(first, second)
        ceiling = math.sqrt(max(0.0, 2 * between / (1 + between)))
        numbers = [
            cosine(ours, truth),
            cosine(theirs, truth),
            between,
            ceiling,
            float(ours.norm() / truth.norm()),
            float(theirs.norm() / truth.norm()),
            float(truth.square().sum() / true.mean.square().sum()),
            *(signal_to_noise(e.samples[:, of]) for e in (true, exact, sliced)),
        ]
        cells = " | ".join(f"{n:.3f}" for n in numbers)
        lines.append(f"| {name} ({len(of)}) | {cells} |")
    return lines


def machine(threads: int) -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [li for li in cpuinfo.read_text().splitlines() if li.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return (
        f"{name} ({platform.system()}), {threads} thread{'s' * (threads != 1)}, Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Straight-through against brute-force gradients.")
    parser.add_argument("--steps", type=int, default=800, help="training steps (default: 800)")
    parser.add_argument(
        "--samples", type=int, default=4000, help="brute-force samples per policy (default: 4000)"
    )
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="fixes every draw (default: 0)")
    parser.add_argument("--data", choices=("digits", "fashion_mnist"), default="digits")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    args = parser.parse_args()
    if args.samples < 4 * FOLDS:
        parser.error(f"--samples must be at least {4 * FOLDS}, found {args.samples}")
    return args


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    data = load(args.data, seed=args.seed)
    run = train(data, args.steps, args.seed)
    trained = time.perf_counter() - start
    few = args.samples // SCORE_SAMPLES_PER_GRADIENT
    tables: list[str] = []
    for name, (policy, loss) in losses(run, args.seed).items():
        true, distinct = score_function(policy, loss, args.samples, args.seed)
        exact = straight_through(policy, loss, run.model, few, args.seed, f"exact {name}")
        with slice_only():
            sliced = straight_through(policy, loss, run.model, few, args.seed, f"slice {name}")
        p = policy.probabilities
        entropy = -(p * p.clamp_min(1e-30).log()).sum(-1)
        tables += [
            f"### The {name} policy",
            "",
            f"{distinct} different architectures among {args.samples}; options in effect per "
            f"dimension (exp of the entropy) {entropy.exp().mean():.2f} of "
            f"{sum(map(len, policy.space.dimensions)) / len(policy.space):.2f}. "
            f"Seconds: (1) {true.seconds:.0f}, (2) {exact.seconds:.0f}, (3) {sliced.seconds:.0f}.",
            "",
            *table(policy, true, exact, sliced),
            "",
        ]
    report = "\n".join([*preamble(args, few, trained, time.perf_counter() - start), *tables])
    print(report, end="")
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(report, encoding="utf-8")


def preamble(args: argparse.Namespace, few: int, trained: float, seconds: float) -> list[str]:
    given = [a for a in sys.argv[1:]]
    return [
        "TODO",
        "",
        shlex.join(["python", "benchmarks/policy_gradient.py", *given]),
        machine(args.threads), f"{few} {trained:.0f} {seconds:.0f} {boundnas.__name__}",
    ]


if __name__ == "__main__":
    main()
