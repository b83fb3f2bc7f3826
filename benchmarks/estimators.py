"""Bias, variance and price of the three estimators of a policy's gradient, beside each other.

Trains the small supernet of ``policy_gradient.py``, then draws single-step gradients by every
estimator on one fixed batch and compares them with the brute-force gradient of the expected loss.

    python benchmarks/estimators.py [--steps 800] [--samples 4000] [--threads 1] [--seed 0]
                                    [--data digits|fashion_mnist] [--output file.md]
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch

from boundnas import Supernet, TrainSettings
from boundnas.data import load
from boundnas.engine.progress import Progress
from boundnas.method.policy import Policy
from boundnas.method.variants import ESTIMATORS
from boundnas.randomness import stream
from policy_gradient import (
    BATCH,
    Estimate,
    Loss,
    common_parser,
    cosine,
    losses,
    machine,
    parsed,
    publish,
    row,
    score_function,
    signal_to_noise,
    train,
)


def estimate(
    name: str, policy: Policy, loss: Loss, model: Supernet, samples: int, seed: int, label: str
) -> Estimate:
    """Gradients as a training step takes them, with the pass that trains the network drawn."""
    surrogate, generator = ESTIMATORS[name], stream(seed, "estimate")
    without_graph: Callable = torch.no_grad()(loss)
    gradients, seconds = [], 0.0
    with Progress(samples, label, unit="sample") as progress:
        for _ in range(samples):
            start = time.perf_counter()
            arch = policy.sample(generator, learns=surrogate is None)
            value = loss(arch)
            value.backward()
            if surrogate is not None:
                surrogate(policy, arch, value.detach(), without_graph, generator).backward()
            seconds += time.perf_counter() - start
            assert policy.logits.grad is not None
            gradients.append(policy.logits.grad.double())
            policy.logits.grad = None
            model.zero_grad()
            progress.advance()
    return Estimate(torch.stack(gradients), seconds)


def plain_seconds(policy: Policy, loss: Loss, model: Supernet, samples: int, seed: int) -> float:
    """Seconds of a pass that trains the network drawn and teaches the policy nothing."""
    generator, start = stream(seed, "estimate"), time.perf_counter()
    for _ in range(samples):
        loss(policy.sample(generator, learns=False)).backward()
        model.zero_grad()
    return (time.perf_counter() - start) / samples


def section(
    role: str, policy: Policy, loss: Loss, model: Supernet, args: argparse.Namespace
) -> list[str]:
    true, _ = score_function(policy, loss, args.samples, args.seed)
    every = list(range(len(policy.space)))
    length, reliability = float(true.mean.norm()), true.reliability(every)
    plain = plain_seconds(policy, loss, model, 100, args.seed)
    lines = [
        "",
        f"## The {role} policy",
        "",
        f"Length of the true gradient {length:.4f}; cosine between the halves of its samples "
        f"{true.between_halves(every):.3f}. A pass that teaches nothing takes {plain * 1e3:.1f} "
        "ms.",
        "",
        "| estimator | cosine of the mean to the true gradient | ceiling | bias | deviation | SNR "
        "| pass, ms | SNR per root second |",
        "|---" * 8 + "|",
    ]
    for name in ESTIMATORS:
        found = estimate(
            name, policy, loss, model, args.samples, args.seed, f"{role}, {name.replace('_', ' ')}"
        )
        noise = (found.samples - found.mean).square().sum() / (args.samples - 1)
        true_noise = (true.samples - true.mean).square().sum() / (args.samples - 1)
        error = (found.mean - true.mean).square().sum() - (noise + true_noise) / args.samples
        each = found.seconds / args.samples
        snr = signal_to_noise(found.samples)
        numbers = [
            cosine(found.mean, true.mean),
            reliability * found.reliability(every),
            math.sqrt(max(0.0, float(error))) / length,
            math.sqrt(float(noise)) / length,
            snr,
            each * 1e3,
            snr / math.sqrt(each),
        ]
        lines.append(row(name.replace("_", " "), numbers))
    return lines


def main() -> None:
    args = parsed(
        common_parser("Estimators of a policy's gradient, compared.", "per estimator and policy")
    )
    torch.set_num_threads(args.threads)
    run = train(
        load(args.data, seed=args.seed),
        args.steps,
        TrainSettings(steps=1).gumbel_temperature,
        args.seed,
    )
    lines = [
        "# Estimators of the policies' gradient",
        "",
        f"    {shlex.join(['python', 'benchmarks/estimators.py', *sys.argv[1:]])}",
        "",
        f"{machine(args.threads)}, BoundNAS {version('boundnas')}. {args.data}, seed {args.seed}: "
        f"{args.steps} sandwich steps, then gradients of the expected loss on one fixed batch of "
        f"{BATCH} images, weights and policies as training left them; {args.samples} samples of "
        "each, and as many of the brute-force gradient (see policy_gradient.md).",
        "",
        "`ceiling`: the cosine that noise alone would leave without any bias. `bias`: length of "
        "what the mean is off, less the share of noise, and `deviation`: root-mean-square "
        "distance of a sample from the mean, both in lengths of the true gradient. `SNR`: length "
        "of the mean over the deviation; per root second it says what a given time of training "
        "buys.",
    ]
    for role, (policy, loss) in losses(run, args.seed).items():
        lines += section(role, policy, loss, run.model, args)
    publish("\n".join(lines), args.output)


if __name__ == "__main__":
    main()
