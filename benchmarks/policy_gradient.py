"""How close is the straight-through policy gradient to the true one?

Trains a small supernet with learned boundaries, then compares on one fixed batch, for the min and
the max policy, with the brute-force gradient of the expected loss:

- the library's straight-through gradient (``policy.sample`` and ``loss.backward()``),
- for contrast, a gradient that flows only through what was computed for the chosen slice.

    python benchmarks/policy_gradient.py [--steps 800] [--samples 4000] [--threads 1] [--seed 0]
                                         [--data digits|fashion_mnist]
                                         [--gumbel-temperature 0.5] [--ghost-fraction 1.0]
                                         [--output file.md]
"""

from __future__ import annotations

import argparse
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas import Architecture, Supernet, TrainSettings
from boundnas.cost import MACs
from boundnas.data import ImageData, load, normalize
from boundnas.elastic import ElasticLayer, activation, convolution, linear, squeeze_excite, stage
from boundnas.elastic.ghost import mix
from boundnas.engine.progress import Progress
from boundnas.fit.run import Run
from boundnas.fit.train import fit
from boundnas.method.policy import Policy
from boundnas.models.mobilenet import MobileNet, StageTable, StemTable
from boundnas.randomness import stream
from boundnas.space import Dimension
from boundnas.task import kl_divergence

BATCH = 256
FOLDS = 10
"""Folds of the control variate within each half of the brute-force samples."""

START_STD = 0.1
POLICY_LEARNING_RATE = 2e-3
"""Both above the defaults, so that the boundaries move within a short run."""

TEMPERATURES = (2.0, 1.0, 0.5, 0.3)
"""Gumbel temperatures compared, beside the one of the run."""

EXACT, SLICED = 2, 8
"""Brute-force samples per sample of the other two, which cost more and are less noisy."""

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

    def between_halves(self, dimensions: list[int]) -> float:
        """Cosine between the means of the first and the second half of the samples."""
        first, second = self.samples[:, dimensions].chunk(2)
        return cosine(first.mean(0), second.mean(0))

    def reliability(self, dimensions: list[int]) -> float:
        """Expected cosine of the mean to what it would be with infinitely many samples."""
        between = max(0.0, self.between_halves(dimensions))
        return math.sqrt(2 * between / (1 + between))  # Spearman-Brown


# The supernet and its training


def small_supernet(data: ImageData) -> MobileNet:
    """A MobileNetV3-like space with every kind of dimension; dropout off, so losses are exact."""
    both: dict[str, Any] = {
        "kernel": (3, 5),
        "se": (False, True),
        "activation": ("relu", "swish"),
    }
    stages = [
        StageTable((12, 24, 36, 48), (6, 12, 18), (1, 2), stride=2, **both),
        StageTable((24, 48, 72, 96), (8, 16, 24), (1, 2, 3), **both),
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


def train(data: ImageData, steps: int, gumbel_temperature: float, seed: int) -> Run:
    torch.manual_seed(seed)
    model = small_supernet(data)
    smallest, largest = MACs(model).reach
    # Wanted: the middle of the space, so that both boundaries have room to move.
    cost_range = (smallest + 0.15 * (largest - smallest), smallest + 0.6 * (largest - smallest))
    settings = TrainSettings(
        steps=steps,
        learn="both",
        start_std=START_STD,
        policy_learning_rate=POLICY_LEARNING_RATE,
        gumbel_temperature=gumbel_temperature,
    )
    run = fit(model, data, cost_range=cost_range, settings=settings, seed=seed)
    model.train()  # batch statistics, as in the steps of the training
    return run


def losses(run: Run, seed: int, shuffled: bool = False) -> dict[str, tuple[Policy, Loss]]:
    """The loss of each policy's networks on one fixed batch, a function of the architecture.

    Args:
        run: A trained supernet and its policies.
        seed: Draws the batch.
        shuffled: Whether each call has its images in another order. No loss depends on it, but
            the leading part of the batch is then a random one, as it is in training.
    """
    data, model, boundaries = run.data, run.model, run.boundaries
    chosen = torch.randperm(len(data.train), generator=stream(seed, "benchmark_batch"))[:BATCH]
    images, labels = data.train.take(chosen)
    images = normalize(images, data.mean, data.std)
    with torch.no_grad():
        teacher = model(images, boundaries.max.mode)
    orders = stream(seed, "benchmark_order")

    def order() -> Any:
        return torch.randperm(BATCH, generator=orders) if shuffled else slice(None)

    def min_loss(arch: Architecture) -> Tensor:
        at = order()
        return kl_divergence(model(images[at], arch), teacher[at])

    def max_loss(arch: Architecture) -> Tensor:
        at = order()
        return F.cross_entropy(model(images[at], arch), labels[at])

    return {"min": (boundaries.min, min_loss), "max": (boundaries.max, max_loss)}


# The three estimators


@torch.no_grad()
def score_function(policy: Policy, loss: Loss, samples: int, seed: int) -> tuple[Estimate, int]:
    """Brute force: ``E[loss * d log p / d logits]``, from values of the loss alone.

    An additive model of the loss, one term per option of every dimension, is subtracted, and its
    own gradient, known exactly, is added. Each sample's model is fitted to other samples of the
    same half, so the estimate is unbiased and its two halves are independent.

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
    policy: Policy, loss: Loss, model: Supernet, temperatures: Sequence[float],
    samples: int, seed: int, label: str, ghost_fraction: float = 1.0,
) -> list[Estimate]:  # fmt: skip
    """The library's gradient: a relaxed sample and a backward pass, in float32.

    The first temperature's gradient is that of ``loss.backward()``. The others' come from the same
    pass: the temperature changes neither the draw nor the gradient that reaches the gates, only
    how the gates hand it to the logits.

    Returns:
        An estimate for each temperature.
    """
    start = time.perf_counter()
    gradients: list[list[Tensor]] = [[] for _ in temperatures]
    generator = stream(seed, "straight_through")
    with Progress(samples, label, unit="sample") as progress:
        for _ in range(samples):
            state = generator.get_state()
            arch = policy.sample(generator, temperatures[0])
            arch = arch.carrying(ghost_fraction=ghost_fraction)
            assert arch.gates is not None
            for gate in arch.gates:
                gate.retain_grad()
            loss(arch).backward()
            gradients[0].append(_take_gradient(policy))
            at_gates = [_gradient_or_zero(gate) for gate in arch.gates]
            for temperature, kept in zip(temperatures[1:], gradients[1:], strict=True):
                other = policy.sample(generator.set_state(state), temperature)
                assert other.gates is not None
                torch.autograd.backward(other.gates, at_gates)
                kept.append(_take_gradient(policy))
            model.zero_grad()
            progress.advance()
    seconds = time.perf_counter() - start
    return [Estimate(torch.stack(kept), seconds) for kept in gradients]


def _take_gradient(policy: Policy) -> Tensor:
    gradient = policy.logits.grad
    assert gradient is not None
    policy.logits.grad = None
    return gradient.double()


def _gradient_or_zero(gate: Tensor) -> Tensor:
    """The gates of layers beyond the chosen depth have no part in the loss."""
    return torch.zeros_like(gate) if gate.grad is None else gate.grad


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
            stack.enter_context(mock.patch.object(module, "ghosts_of", return_value=False))
        stack.enter_context(mock.patch.object(convolution, "crops", active_crops))
        # The library refuses a pass without the ghosts, whose gradient would be this wrong one.
        stack.enter_context(mock.patch.object(ElasticLayer, "check_ghost"))
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


def kinds_table(policy: Policy, true: Estimate, exact: Estimate, sliced: Estimate) -> list[str]:
    dimensions = policy.space.dimensions
    rows = {"all": list(range(len(dimensions)))}
    for kind in KINDS:
        rows[kind] = [i for i, d in enumerate(dimensions) if d.kind == kind]
    lines = [
        "| dimensions | share | halves of (1) | **(2) to (1)** | ceiling | (3) to (1) "
        "| norm (2)/(1) | norm (3)/(1) | SNR (1) | SNR (2) | SNR (3) |",
        "|---" * 11 + "|",
    ]
    for name, of in rows.items():
        truth, ours, theirs = (e.mean[of] for e in (true, exact, sliced))
        numbers = [
            float(truth.square().sum() / true.mean.square().sum()),
            true.between_halves(of),
            cosine(ours, truth),
            true.reliability(of) * exact.reliability(of),
            cosine(theirs, truth),
            float(ours.norm() / truth.norm()),
            float(theirs.norm() / truth.norm()),
            *(signal_to_noise(e.samples[:, of]) for e in (true, exact, sliced)),
        ]
        lines.append(row(f"{name} ({len(of)})", numbers))
    return lines


def temperatures_table(
    policy: Policy, true: Estimate, temperatures: Sequence[float], estimates: Sequence[Estimate]
) -> list[str]:
    every = list(range(len(policy.space)))
    lines = [
        "| Gumbel temperature | **(2) to (1)** | ceiling | norm (2)/(1) | SNR (2) |",
        "|---" * 5 + "|",
    ]
    for temperature, estimate in sorted(
        zip(temperatures, estimates, strict=True), reverse=True, key=lambda pair: pair[0]
    ):
        numbers = [
            cosine(estimate.mean, true.mean),
            true.reliability(every) * estimate.reliability(every),
            float(estimate.mean.norm() / true.mean.norm()),
            signal_to_noise(estimate.samples),
        ]
        lines.append(row(f"{temperature:g}", numbers))
    return lines


def row(name: str, numbers: Sequence[float]) -> str:
    return "| " + " | ".join([name, *(f"{n:.3f}" for n in numbers)]) + " |"


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


def common_parser(description: str, samples: str) -> argparse.ArgumentParser:
    """What every benchmark of gradients is asked; ``samples`` says what these are of."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=800, help="training steps (default: 800)")
    parser.add_argument("--samples", type=int, default=4000, help=f"{samples} (default: 4000)")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="fixes every draw (default: 0)")
    parser.add_argument("--data", choices=("digits", "fashion_mnist"), default="digits")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    args = parser.parse_args()
    if args.samples < 4 * FOLDS:
        parser.error(f"--samples must be at least {4 * FOLDS}, found {args.samples}")
    return args


def publish(report: str, output: Path | None) -> None:
    print(report)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(report + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = common_parser(
        "Straight-through against brute-force gradients.", "brute-force samples per policy"
    )
    parser.add_argument(
        "--gumbel-temperature",
        type=float,
        default=TrainSettings(steps=1).gumbel_temperature,
        help="of the training and of the gradient (default: the library's)",
    )
    parser.add_argument(
        "--ghost-fraction",
        type=float,
        default=1.0,
        help="part of the batch that serves the options not chosen, in (2) (default: 1)",
    )
    return parsed(parser)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    data = load(args.data, seed=args.seed)
    run = train(data, args.steps, args.gumbel_temperature, args.seed)
    trained = time.perf_counter() - start
    sections = [
        line
        for name, (policy, loss) in losses(run, args.seed, args.ghost_fraction < 1).items()
        for line in section(name, policy, loss, run.model, args)
    ]
    report = "\n".join([*preamble(args, run, trained, time.perf_counter() - start), *sections])
    publish(report, args.output)


def section(
    name: str, policy: Policy, loss: Loss, model: Supernet, args: argparse.Namespace
) -> list[str]:
    """The report's part about one policy."""
    temperature = args.gumbel_temperature
    temperatures = [temperature, *(t for t in TEMPERATURES if t != temperature)]
    true, different = score_function(policy, loss, args.samples, args.seed)
    estimates = straight_through(
        policy, loss, model, temperatures, args.samples // EXACT, args.seed, f"{name}, exact",
        args.ghost_fraction,
    )  # fmt: skip
    with slice_only():
        (sliced,) = straight_through(
            policy,
            loss,
            model,
            [temperature],
            args.samples // SLICED,
            args.seed,
            f"{name}, slice only",
        )
    p = policy.probabilities
    effective = (p * p.clamp_min(1e-30).log()).sum(-1).neg().exp().mean()
    options = sum(map(len, policy.space.dimensions)) / len(policy.space)
    return [
        "",
        f"## The {name} policy",
        "",
        f"{different} different architectures among the {args.samples} samples of (1); on average "
        f"{effective:.2f} of {options:.2f} options of a dimension are in effect (exponential of "
        "the entropy). "
        f"Seconds: (1) {true.seconds:.0f}, (2) {estimates[0].seconds:.0f}, "
        f"(3) {sliced.seconds:.0f}.",
        "",
        *kinds_table(policy, true, estimates[0], sliced),
        "",
        "The same passes of (2), handed to the logits at other temperatures:",
        "",
        *temperatures_table(policy, true, temperatures, estimates),
    ]


def preamble(args: argparse.Namespace, run: Run, trained: float, seconds: float) -> list[str]:
    space, last = run.model.space, run.metrics[-1]
    return [
        "# Straight-through against brute-force policy gradients",
        "",
        f"    {shlex.join(['python', 'benchmarks/policy_gradient.py', *sys.argv[1:]])}",
        "",
        f"{machine(args.threads)}, BoundNAS {version('boundnas')}; {seconds:.0f} s in all, "
        f"{trained:.0f} s of them training. {args.data}, seed {args.seed}: {args.steps} sandwich "
        f"steps, loss of the last max network {last['loss_max']:.3f}, of the last min network "
        f"{last['loss_min']:.3f}. A MobileNetV3-like space of {len(space)} dimensions.",
        "",
        f"Gradients of the expected loss with respect to the logits, on one fixed batch of {BATCH} "
        "training images, BatchNorm by the batch, no dropout, policies as training left them. Min "
        "policy: KL to the logits of the max policy's mode; max policy: cross-entropy. The penalty "
        "on costs is not part of it.",
        "",
        f"1. **Brute force**: score function over {args.samples} samples, values of the loss only, "
        "no autograd. Control variate: an additive model of the loss, one term per option, its "
        f"expectation exact, cross-fitted over {FOLDS} folds within each half, so without bias.",
        f"2. **The library**: `policy.sample` and `loss.backward()` in float32, "
        f"{args.samples // EXACT} samples, Gumbel temperature {args.gumbel_temperature:g}, "
        f"options not chosen on {args.ghost_fraction:g} of the batch"
        f"{', a random part for each sample' * (args.ghost_fraction < 1)}.",
        f"3. **Slice only**: as (2), but through nothing that the chosen slice does not compute; "
        f"{args.samples // SLICED} samples.",
        "",
        "Columns: `share` of the squared norm of (1); cosine between two independent `halves of "
        "(1)`; cosine of `(2) to (1)`; `ceiling`, the cosine that noise alone would leave if (2) "
        "had no bias, from the halves of both; `SNR`, of one sample: length of the mean over the "
        "root-mean-square deviation from it.",
    ]


if __name__ == "__main__":
    main()
