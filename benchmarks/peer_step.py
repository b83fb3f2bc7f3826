"""A sandwich step of BoundNAS beside one of AttentiveNAS' public code, on the same networks.

    python benchmarks/peer_step.py CHECKOUT [--batch-size 64] [--threads 2] [--steps 5]
                                   [--device cpu|cuda] [--autocast] [--output file.md]

CHECKOUT is a copy of the AttentiveNAS repository (only its ``models`` package is used).
On a GPU ours is measured as it trains, replayed from recordings, and by slices, too.
Both build a MobileNetV2-like space with Table 1 widths at 32x32, ReLU; in each step both train the
largest, the smallest and the same two random networks, in turn, without an optimizer. The peer's
extra shortcut layers where ours has no residual are taken out, and both count the same MACs.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import sys
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from boundnas import Architecture
from boundnas.cost import MACs
from boundnas.fit.replay import replays
from boundnas.models import MobileNet, StageTable, StemTable
from boundnas.task import kl_divergence
from step import timed

# Name, widths' maximum, depths, expansions, stride.
STAGES = (
    ("mb1", 16, (1,), (1, 2, 3), 1),
    ("mb2", 24, (1, 2, 3, 4), (1, 2, 3, 4, 5, 6), 1),
    ("mb3", 24, (1, 2, 3, 4), (1, 2, 3, 4, 5, 6), 2),
    ("mb4", 64, (1, 2, 3, 4), (1, 2, 3, 4, 5, 6), 2),
    ("mb5", 96, (1, 2, 3, 4), (1, 2, 3, 4, 5, 6), 1),
    ("mb6", 160, (1, 2, 3, 4), (1, 2, 3, 4, 5, 6), 2),
    ("mb7", 320, (1,), (1, 2, 3, 4, 5, 6), 1),
)
STEM, LAST, CLASSES, IMAGE = 32, 1280, 10, 32


def eighths(largest: int) -> list[int]:
    return [largest * k // 8 for k in range(1, 9)]


class Peer:
    """AttentiveNAS' dynamic model and the settings of one of its networks."""

    def __init__(self, checkout: Path, device: str) -> None:
        sys.path.insert(0, str(checkout))
        from models.attentive_nas_dynamic_model import AttentiveNasDynamicModel
        from models.modules.nn_utils import make_divisible

        self.divisible = make_divisible
        supernet = SimpleNamespace(
            use_v3_head=False,
            resolutions=[IMAGE],
            first_conv=SimpleNamespace(c=eighths(STEM), act_func="relu", s=1),
            last_conv=SimpleNamespace(c=[LAST], act_func="relu"),
        )
        for name, width, depths, expansions, stride in STAGES:
            stage = SimpleNamespace(
                c=eighths(width), d=list(depths), k=[3, 5], t=list(expansions), s=stride,
                act_func="relu", se=False,
            )  # fmt: skip
            setattr(supernet, name, stage)
        self.model = AttentiveNasDynamicModel(supernet, n_classes=CLASSES).train()
        for group in self.model.block_group_info:
            self.model.blocks[group[0]].shortcut = None
        self.model.set_dropout_rate(0, 0)
        self.model.to(device)

    def settings(self, kind: str, generator: random.Random) -> dict[str, Any]:
        pick = {"max": max, "min": min, "random": generator.choice}[kind]
        return {
            "resolution": IMAGE,
            "width": [pick(eighths(STEM)), *(pick(eighths(s[1])) for s in STAGES), LAST],
            "depth": [pick(s[2]) for s in STAGES],
            "kernel_size": [pick((3, 5)) for _ in STAGES],
            "expand_ratio": [pick(s[3]) for s in STAGES],
        }

    def __call__(self, x: Tensor, settings: dict[str, Any]) -> Tensor:
        self.model.set_active_subnet(**settings)
        return self.model(x)


def same_space(peer: Peer) -> MobileNet:
    """Our supernet over all layer widths that the peer's expansions give."""
    stages, inputs = [], eighths(STEM)
    for _, width, depths, expansions, stride in STAGES:
        outputs = eighths(width)
        middles = {
            peer.divisible(round(c * e), 8) for c, e in product({*inputs, *outputs}, expansions)
        }
        stages.append(
            StageTable(tuple(sorted(middles)), tuple(outputs), depths, (3, 5), stride=stride)
        )
        inputs = outputs
    return MobileNet(
        StemTable(tuple(eighths(STEM))), stages, LAST, IMAGE, 3, CLASSES, 0.0, 0.0
    ).train()


def same_architecture(model: MobileNet, peer: Peer, settings: dict[str, Any]) -> Architecture:
    values: dict[str, Any] = dict(model.space.smallest.values)
    width = settings["width"]
    values["stem.width"] = inputs = width[0]
    for i, (_, _, depths, _, _) in enumerate(STAGES):
        output, expansion, depth = width[i + 1], settings["expand_ratio"][i], settings["depth"][i]
        values[f"stage{i + 1}.output"] = output
        values[f"stage{i + 1}.kernel"] = settings["kernel_size"][i]
        if len(depths) > 1:
            values[f"stage{i + 1}.depth"] = depth
        for layer in range(depth):
            middle = peer.divisible(round((output if layer else inputs) * expansion), 8)
            values[f"stage{i + 1}.layer{layer + 1}.width"] = middle
        inputs = output
    return model.space.architecture(values)


def step(network: Any, weights: nn.Module, networks: list[Any], x: Tensor, y: Tensor) -> None:
    """Algorithm 1 without boundaries: the first network on labels, the others on its logits."""
    teacher = network(x, networks[0])
    F.cross_entropy(teacher, y).backward()
    for each in networks[1:]:
        kl_divergence(network(x, each), teacher).backward()
    weights.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--autocast", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    peer = Peer(args.checkout, args.device)
    model = same_space(peer).to(args.device)
    macs, generator = MACs(model), random.Random(args.seed)
    x = torch.randn(args.batch_size, 3, IMAGE, IMAGE).to(args.device)
    y = torch.randint(CLASSES, (args.batch_size,)).to(args.device)
    last = x.contiguous(memory_format=torch.channels_last)
    runs = {
        "ours": (model, model, last),
        "peer": (peer, peer.model, x),
        "peer, channels_last input": (peer, peer.model, last),
    }
    by_slices = model.forward
    opened = replays(model)  # on a GPU; else passes stay as they are
    opened.__enter__()
    as_it_trains = model.forward
    if args.device == "cuda":
        runs["ours, by slices"] = runs["ours"]
    times: dict[str, list[float]] = {name: [] for name in runs}
    firsts: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.steps):
        theirs = [peer.settings(kind, generator) for kind in ("max", "min", "random", "random")]
        ours = [same_architecture(model, peer, settings) for settings in theirs]
        for settings, arch in zip(theirs, ours, strict=True):
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                peer(x[:2], settings)
            assert counter.get_total_flops() == 4 * macs(arch), "the networks differ"
        for name, (network, weights, images) in runs.items():
            networks = ours if network is model else theirs
            work = partial(step, network, weights, networks, images, y)
            model.forward = by_slices if name == "ours, by slices" else as_it_trains
            with torch.autocast(args.device, torch.bfloat16, enabled=args.autocast):
                firsts[name].append(timed(work))  # compiles kernels, or plans
                times[name].append(timed(work))
    largest, smallest = (macs(a) / 1e6 for a in (model.space.largest, model.space.smallest))
    medians = {name: statistics.median(values) for name, values in times.items()}
    machine = f"{args.threads} threads, {platform.machine()}"
    if args.device == "cuda":
        machine = torch.cuda.get_device_name()
    lines = [
        f"Batch {args.batch_size}{', bfloat16 autocast' * args.autocast}, {machine}, PyTorch "
        f"{torch.__version__}, BoundNAS {version('boundnas')}, seed {args.seed}, {args.steps} "
        f"steps; space from {smallest:.2f} to {largest:.2f} MMACs.",
        "",
        "| | median s a step | ours / this, median of pairs | of networks for the first time, s |",
        "|---|---|---|---|",
    ]
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(times["ours"], values, strict=True))
        first = statistics.median(firsts[name])
        lines.append(f"| {name} | {medians[name]:.4f} | {ratio:.3f} | {first:.4f} |")
    print("\n".join(lines))
    if args.output:
        args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
