"""Forward plus backward of 5x5 depthwise convolutions: the library beside PyTorch, in turn.

python benchmarks/depthwise.py [--threads 2] [--batch-size 64] [--repeats 7]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.elastic.depthwise import depthwise
from boundnas.elastic.native import available

SHAPES = [(96, 32, 1), (144, 32, 1), (144, 32, 2), (144, 16, 1), (384, 8, 1), (576, 8, 1),
          (960, 8, 2), (960, 4, 1), (1920, 4, 1)]  # fmt: skip
"""Channels, resolution and stride of the layers of Table 1 at 32x32."""


def plain(x: Tensor, weight: Tensor, bias: None, stride: int) -> Tensor:
    return F.conv2d(x, weight, bias, stride, 2, groups=len(weight))


def seconds(convolve: Callable[..., Tensor], x: Tensor, weight: Tensor, stride: int) -> float:
    x.grad = weight.grad = None
    start = time.perf_counter()
    y = convolve(x, weight, None, stride)
    y.backward(torch.ones_like(y))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"Batch {args.batch_size}, {args.threads} threads, {platform.machine()}, PyTorch "
        f"{torch.__version__}, compiled kernel {'in use' if available() else 'missing'}.\n\n"
        "| channels | pixels | stride | PyTorch, ms | ours, ms | ours / PyTorch | "
        "ours, GFLOP/s |\n|---|---|---|---|---|---|---|"
    )
    for channels, size, stride in SHAPES:
        x = torch.randn(args.batch_size, channels, size, size)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(channels, 1, 5, 5, requires_grad=True)
        for convolve in (plain, depthwise):
            seconds(convolve, x, weight, stride)
        pairs = [
            (seconds(depthwise, x, weight, stride), seconds(plain, x, weight, stride))
            for _ in range(args.repeats)
        ]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        flops = 3 * 2 * 25 * channels * args.batch_size * (size // stride) ** 2
        print(
            f"| {channels} | {size} | {stride} | {theirs * 1e3:.1f} | {ours * 1e3:.1f} | "
            f"{ratio:.2f} | {flops / ours / 1e9:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
