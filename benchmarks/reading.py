"""Steps of training a second, where a Dataset decodes JPEG in Python: worker processes or none.

First prediction, for JPEG files of 256x256 pixels: 2 ms to decode, crop and resize one, as long as
a step of the supernet for a batch of 32, so 1.6 to 1.9 times the steps. Wrong: it is 0.75 ms, a
fifth of the step, where there is nothing to win (1.07 times). Second, for files of the average size
in ImageNet, 500x375: 3.5 ms and 1.7 to 1.9 times. It is 1.5 ms, half of the step, and 1.55 times.
Third, for 1000x750: 5 ms, one and a half times the step, and 1.9 times, as two processors are busy
with it then.

Beside the clock, which means something on an idle machine only, the processor's time is measured of
the process that trains and of its workers: ``1 / max(training, workers / 2, all / 2)`` steps a
second is what two idle processors come to.

Run:
    python benchmarks/reading.py [PAIRS [WIDTH]]
"""

from __future__ import annotations

import io
import os
import resource
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

import boundnas as bn
from boundnas.models import MobileNet, StageTable, StemTable

SIZE, BATCH, STEPS = 32, 32, 16


class Photos(Dataset[Any]):
    """JPEG files in memory; a random part of each is resized."""

    def __init__(self, number: int, width: int, whole: bool = False) -> None:
        draw = np.random.RandomState(0)
        self.side, self.whole, self.files = width // 2, whole, []
        for _ in range(number):
            coarse = draw.randint(0, 255, (3 * width // 16, width // 4, 3), np.uint8)
            photo, file = Image.fromarray(coarse).resize((width, 3 * width // 4)), io.BytesIO()
            photo.save(file, "JPEG", quality=90)
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        photo = Image.open(io.BytesIO(self.files[i])).convert("RGB")
        x, y = (0, 0) if self.whole else np.random.randint(0, self.side // 2, 2).tolist()
        small = photo.resize((SIZE, SIZE), box=(x, y, x + self.side, y + self.side))
        pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)
        return pixels.float() / 255, i % 10


def spent(data: bn.Data, steps: int) -> np.ndarray:
    """Of a training, its checks included: seconds of the clock, of this process, of its workers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stages = (StageTable((16, 24), (8, 12)), StageTable((32, 48), (16,), stride=2))
        model = MobileNet(StemTable((8,)), stages, 32, image_size=SIZE, in_channels=3)
    settings = bn.TrainSettings(steps=steps, batch_size=BATCH)
    before = times()
    bn.fit(model, data, cost_range=(1e5, 1e8), settings=settings)
    return times() - before


def times() -> np.ndarray:
    """Of the clock, of this process, and of those that have ended."""
    mine, theirs = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    spent = [sum(used[:2]) for used in (mine, theirs)]
    return np.array([time.perf_counter(), *spent])


def main() -> None:
    """Print the steps a second of each pair, and the medians."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    width = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    photos, plain = Photos(BATCH * 4, width), Photos(BATCH * 4, width, whole=True)
    made = {w: bn.Data(photos, plain=plain, test=plain, workers=w) for w in (0, 2)}
    ratios = []
    for pair in range(pairs):
        found = {}
        for workers in (0, 2) if pair % 2 else (2, 0):
            data = made[workers]
            clock, mine, theirs = (spent(data, STEPS + 1) - spent(data, 1)) / STEPS
            idle = max(mine, theirs / 2, (mine + theirs) / 2) if workers else mine
            found[workers] = (1 / clock, 1 / idle)
            print(
                f"{workers} workers: {1 / clock:.2f} steps/s by the clock; training {mine:.3f} s a "
                f"step, workers {theirs:.3f} s: {1 / idle:.2f} steps/s on idle processors",
                flush=True,
            )
        ratios.append([b / a for a, b in zip(found[0], found[2], strict=True)])
    clock, idle = zip(*ratios, strict=True)
    for name, ratio in (("by the clock", clock), ("on idle processors", idle)):
        print(f"{name}: {median(ratio):.2f} times ({min(ratio):.2f} to {max(ratio):.2f})")
    print(
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {pairs} pairs, {width} pixels"
    )


if __name__ == "__main__":
    main()
