"""Steps a second on a folder of JPEG files beside the same images in memory.

A folder's images are decoded, cropped and mirrored by a thread of its own while the steps before
run, so that given a core more than training takes, it should cost nothing. Prediction, one thread
of training on a machine of two cores, photos of 500x375 pixels to 224x224: 0.97 of the steps a
second of images in memory where a batch is decoded in less time than a step takes.

    python benchmarks/input.py [--pairs 5] [--steps 12] [--batch-size 16] [--width 0.25]
                               [--photos 500] [--read-here]

``--read-here`` reads without the thread, as it was before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import boundnas as bn
from boundnas.data import image_data

SIZE, CLASSES, EACH = 224, 4, 20


def photos(root: Path, width: int) -> None:
    """JPEG files of noise that was smoothed."""
    draw = np.random.RandomState(0)
    for kind in range(CLASSES):
        (root / f"kind{kind}").mkdir(parents=True)
        for i in range(EACH):
            coarse = draw.randint(0, 255, (3 * width // 16, width // 4, 3), np.uint8)
            photo = Image.fromarray(coarse).resize((width, 3 * width // 4))
            photo.save(root / f"kind{kind}" / f"{i}.jpg", quality=90)


@dataclass
class Clock(bn.Observer):
    """When each step ended."""

    times: list[float]

    def step(self, row: object) -> None:
        self.times.append(time.perf_counter())


def seconds_a_step(data: bn.data.ImageData, steps: int, batch: int, width: float) -> float:
    """The median of a training, its first steps left out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = bn.models.mobilenet_v2(width=width, image_size=SIZE, classes=CLASSES)
    times: list[float] = []
    bn.fit(
        model, data, cost_range=bn.cost.MACs(model).reach, observers=[Clock(times)],
        settings=bn.TrainSettings(steps=steps, batch_size=batch, learn="none"),
    )  # fmt: skip
    return statistics.median(b - a for a, b in list(pairwise(times))[2:])


def here(batches: Iterator[object]) -> Iterator[object]:
    """Batches as they are, read where they are used."""
    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--photos", type=int, default=500, help="their width in pixels")
    parser.add_argument("--read-here", action="store_true")
    args = parser.parse_args()
    if args.read_here:
        image_data.ahead = here
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder), args.photos)
        files = bn.data.image_folder(folder, image_size=SIZE, seed=0)
        images, labels = files.train.take(torch.arange(len(files.train)))
        held = replace(files, train=bn.data.InMemory(images, labels))
        ratios, decoded = [], []
        for _ in range(args.pairs):
            start = time.perf_counter()
            files.train.take(torch.arange(args.batch_size))
            decoded.append(time.perf_counter() - start)
            sizes = args.steps, args.batch_size, args.width
            ours, synthetic = (seconds_a_step(data, *sizes) for data in (files, held))
            ratios.append(synthetic / ours)
            print(f"{ours:.3f} s a step, {synthetic:.3f} s from memory, {ratios[-1]:.3f}")
    print(
        f"steps a second from files / from memory: {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), a batch decoded in "
        f"{statistics.median(decoded):.3f} s, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
