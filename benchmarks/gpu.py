"""What must hold on a GPU, and how fast it is there: one report from one call.

    benchmarks/gpu.sh [--device cuda] [--minutes 6] [--data FOLDER] [--peer FOLDER]
                      [--parts NAME ...] [--output gpu.md]

Parts, in this order, each by itself, so that one that fails says so and the others go on:

- gradient: the fast policy gradient against the masked full-width pass, in double precision,
- extraction: the supernet's slice against the extracted network, bit for bit,
- resume: a run stopped half way against one that was not, byte for byte,
- peak: what a large matrix product reaches on this card, in float32 and bfloat16,
- launches: kernels of a step, how long the device computes in it, and the max network's pass as it
  is beside its replay from a CUDA graph: what launches cost,
- shapes: a step of networks whose shapes are new to the device beside the same step again, as it is
  and with what may help,
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
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from boundnas.elastic import convolution
from boundnas.elastic.strided import strided
from boundnas.elastic.window import Window
from boundnas.errors import BoundNASError
from boundnas.method.policy import BOUNDARIES, initial_policy
from boundnas.method.sandwich import Sandwich
from boundnas.randomness import stream
from boundnas.search import Evaluator
from boundnas.search.pareto import mean_over_log_cost
from boundnas.store.folder import RunFolder
from step import Setting, setting_of
from step import timed as once

ROOT = Path(__file__).parents[1]
SECONDS = 60
"""That another benchmark is given."""


def gradient(device: str) -> Iterator[str]:
    """Largest relative difference of any dimension's gradient, by space."""
    for name in SPACES:
        model = supernet(name).double().to(device)
        worst = 0.0
        for boundary in BOUNDARIES:
            start = initial_policy(model.space, boundary, stream(0, "start"), std=0.07)
            policy, x = start.double().to(device), images(model, 5)
            found = []
            for reference in (False, True):
                policy.zero_grad()
                arch = policy.sample(stream(0, "gumbel"))
                labels = torch.arange(len(x), device=device) % 2
                if reference:
                    with masked(model):
                        F.cross_entropy(model(x, arch), labels).backward()
                else:
                    F.cross_entropy(model(x, arch), labels).backward()
                found.append(policy.logits.grad.clone())
            worst = max(worst, float((found[0] - found[1]).norm() / found[1].norm()))
        yield f"| {name} | {worst:.1e} | {'holds' if worst < 1e-9 else '**FAILS**'} (1e-9) |"


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


def timed(work: Callable[[], object], device: str, repeats: int = 10) -> float:
    """Median seconds of a work that was done twice before."""
    return statistics.median([once(work) for _ in range(repeats + 2)][2:])


def peak(device: str) -> Iterator[str]:
    """TFLOP/s of a large product of random matrices."""
    side = 8192 if device == "cuda" else 512
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        seconds = timed(lambda a=a, b=b: a @ b, device)
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


def launches(device: str) -> Iterator[str]:
    """Kernels of a step and their time; a pass launched kernel by kernel, and replayed."""
    torch.manual_seed(0)
    batch = 256 if device == "cuda" else 4
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast(device, dtype, enabled=dtype == torch.bfloat16):
            model = bn.models.mobilenet_v2(width=1.0, image_size=32).to(device).train()
            settings = bn.TrainSettings(steps=1, start_std=0.1)
            s = setting_of(model, settings, batch, 0)
            for name, sandwich in (("learned", s.learning), ("plain", s.plain)):
                yield f"| {dtype}, a step, {name} | {kernels(sandwich, s, device)} | |"
            if device == "cuda":
                yield f"| {dtype}, pass of the max network | {replayed(s)} | |"


def products(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    """A convolution, of one pixel as a product of matrices, which needs no plan for its shape."""
    moves = weight[0, 0].numel() * max(window.stride) > 1 or any(window.padding)
    if moves or groups > 1:
        return strided(x, weight, bias, window, groups)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


WAYS = ("as it is", "1x1 as products", "without cuDNN", "backward in a thread", "as it is again")


def shapes(device: str) -> Iterator[str]:
    """Four passes of new networks, and of the same again, as it is and with what may help."""
    batch, number = (256, 4) if device == "cuda" else (4, 1)
    model = bn.models.mobilenet_v2(width=1.0, image_size=32).to(device).train()
    x = torch.randn(batch, 3, 32, 32).to(device).contiguous(memory_format=torch.channels_last)
    y = torch.arange(batch, device=device) % 10
    pool = ThreadPoolExecutor(1)

    def step(archs: list[bn.Architecture], way: str) -> None:
        under_way = []
        for arch in archs:
            loss = F.cross_entropy(model(x, arch), y)
            if way == "backward in a thread":
                under_way.append(pool.submit(loss.backward))
            else:
                loss.backward()
        for future in under_way:
            future.result()
        model.zero_grad()

    for i, way in enumerate(("as it is", *WAYS)):  # the first one loads the libraries, too
        convolution.strided = products if way == "1x1 as products" else strided
        generator = stream(i, "shapes")
        steps = [[model.space.sample(generator) for _ in range(4)] for _ in range(number)]
        with torch.backends.cudnn.flags(enabled=way != "without cuDNN"):
            new = [once(partial(step, archs, way)) for archs in steps]
            again = [once(partial(step, archs, way)) for _ in range(3) for archs in steps]
        yield (
            f"| {way}{' (first)' * (i == 0)} | new shapes {1e3 * statistics.median(new):.0f} ms, "
            f"again {1e3 * statistics.median(again):.1f} ms | |"
        )
    convolution.strided = strided


def kernels(sandwich: Sandwich, s: Setting, device: str) -> str:
    """What a profile of one step says, beside its time without a profile."""
    work = partial(sandwich.step, s.images, s.labels, 1)
    seconds = timed(work, device, 5)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=kinds) as found:
        work()
    ran = [e for e in found.events() if e.device_type == DeviceType.CUDA]
    busy = 1e-6 * sum(e.time_range.elapsed_us() for e in ran)
    return f"{len(ran)} kernels, {1e3 * busy:.1f} ms of the device in {1e3 * seconds:.1f} ms"


def replayed(s: Setting) -> str:
    """Milliseconds of a forward and backward pass as it is and as a graph of its launches."""
    arch, parameters = s.model.space.largest, [p for p in s.model.parameters() if p.requires_grad]

    def work() -> None:
        loss = F.cross_entropy(s.model(s.images, arch), s.labels)
        torch.autograd.grad(loss, parameters, allow_unused=True)

    plain = timed(work, "cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.autocast("cuda", torch.bfloat16, enabled=torch.is_autocast_enabled("cuda"),
                        cache_enabled=False), torch.cuda.graph(graph):  # fmt: skip
        work()
    return f"{1e3 * plain:.2f} ms, replayed {1e3 * timed(graph.replay, 'cuda'):.2f} ms"


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
    first, again = (once(lambda: list(evaluator.each(evaluator, archs))) for _ in range(2))
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


def training(device: str, folder: Path | None, seconds: float) -> Iterator[str]:
    """Equal time for fixed, clipped and learned boundaries in bfloat16: front by validation."""
    data = data_of(folder)
    width, batch = (1.0, 256) if device == "cuda" else (0.125, 16)
    ways = (("none", "whole"), ("none", "from_cost"), ("both", "whole"))
    for learn, start in ways:
        said = f"| {data.name}, width {width:g}, batch {batch}, learn {learn}, bounds {start} | "
        try:
            found = trained(data, width, batch, learn, start, device, seconds / len(ways))
        except BoundNASError as error:
            found = f"**STOPPED**: {error}"
        yield f"{said}{found} | |"


def trained(
    data: bn.data.ImageData,
    width: float,
    batch: int,
    learn: str,
    start: str,
    device: str,
    seconds: float,
) -> str:
    """Steps, their time, and the front of 16 networks drawn between the boundaries."""
    reach = bn.cost.MACs(supernet_for(data, width, "cpu")).reach
    limits = (2.0 * reach[0], 0.5 * reach[1])
    began, steps, times = time.monotonic(), 5, list[float]()
    for last in (False, True):
        if last:  # the first steps, which set up the device, tell nothing of the others
            a_step = statistics.median(b - a for a, b in pairwise(times))
            steps = max(5, int((seconds - (time.monotonic() - began) - 8) / a_step))
        settings = bn.TrainSettings(steps=steps, batch_size=batch, learn=learn, bounds=start)
        times = []
        with torch.autocast(device, torch.bfloat16):
            run = bn.fit(supernet_for(data, width, device), data, cost_range=limits,
                         settings=settings, observers=[Clock(times)])  # fmt: skip
    front = bn.search(run, bn.SearchSettings(initial=16, rounds=0, crossovers=0, mutations=0))
    shown = front.networks
    score = mean_over_log_cost(
        [n.macs for n in shown], [n.validation for n in shown], [n.test for n in shown], *limits
    )
    return (
        f"{steps} steps of {1e3 * statistics.median(b - a for a, b in pairwise(times)):.1f} ms, "
        f"{len(shown)} networks of 16 on the front from {shown[0].macs / 1e6:.2f} to "
        f"{shown[-1].macs / 1e6:.2f} MMACs, test accuracy {min(n.test for n in shown):.1%} to "
        f"{max(n.test for n in shown):.1%}, mean over log cost {score:.1%}"
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
        "launches": (20, lambda: launches(device)),
        "shapes": (40, lambda: shapes(device)),
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
