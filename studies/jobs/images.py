"""Several labels on one canvas, and segmentation."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from torch import Tensor

import boundnas as bn
from boundnas import elastic
from boundnas.data.fashion import DEBIAN_FOLDER
from boundnas.data.idx import read_idx
from studies.jobs.problem import Array, Job, Options, Samples

PAIRS = {"train": 6000, "validation": 1500, "test": 2000}
DIGITS = {"train": 1000, "validation": 300, "test": 497}


class Labels(bn.Supernet):
    """Three convolutions of stride 2, the largest answer of all places."""

    def __init__(self, data: bn.Data, options: Options) -> None:
        super().__init__(data.example)
        w1, w2, w3 = (self.dimension(n, options[n]) for n in ("first", "second", "third"))
        self.first, self.norm1 = elastic.Conv2d(1, w1, 3, stride=2), elastic.BatchNorm2d(w1)
        self.second, self.norm2 = elastic.Conv2d(w1, w2, 3, stride=2), elastic.BatchNorm2d(w2)
        self.third, self.norm3 = elastic.Conv2d(w2, w3, 3, stride=2), elastic.BatchNorm2d(w3)
        self.head = elastic.Linear(w3, 10)

    def forward(self, x: Tensor, arch: bn.Architecture) -> Tensor:
        """A logit for each kind of clothes."""
        x = self.norm1(self.first(x, arch), arch).relu()
        x = self.norm2(self.second(x, arch), arch).relu()
        x = self.norm3(self.third(x, arch), arch).relu()
        return self.head(x.amax((2, 3)), arch)


class Places(bn.Supernet):
    """Two convolutions and a last one that tells digit from texture at each pixel."""

    def __init__(self, data: bn.Data, options: Options) -> None:
        super().__init__(data.example)
        w1, w2 = (self.dimension(name, options[name]) for name in ("first", "second"))
        self.first, self.norm1 = elastic.Conv2d(1, w1, 5), elastic.BatchNorm2d(w1)
        self.second, self.norm2 = elastic.Conv2d(w1, w2, 3), elastic.BatchNorm2d(w2)
        self.head = elastic.Conv2d(w2, 2, 3)

    def forward(self, x: Tensor, arch: bn.Architecture) -> Tensor:
        """Two logits for each pixel."""
        x = self.norm1(self.first(x, arch), arch).relu()
        return self.head(self.norm2(self.second(x, arch), arch).relu(), arch)


def clothes(part: str) -> tuple[Array, Array]:
    """Images of Fashion-MNIST at half their size, in 0 to 1, and their classes."""
    images = read_idx(DEBIAN_FOLDER / f"{part}-images-idx3-ubyte.gz", (28, 28)).numpy()
    classes = read_idx(DEBIAN_FOLDER / f"{part}-labels-idx1-ubyte.gz", ()).numpy()
    return images.reshape(-1, 14, 2, 14, 2).mean((2, 4), dtype=np.float32) / 255, classes


def pairs(seed: int) -> Samples:
    """Two clothes on a canvas of 28x28, one on the left and one on the right, at any height.

    An image of clothes lies in one split only: those of the test are the published test images.
    """
    draw = np.random.default_rng(seed)
    images, classes = clothes("train")
    parts = np.split(draw.permutation(len(images)), [48_000])
    pools = {s: (images[p], classes[p]) for s, p in zip(PAIRS, parts, strict=False)}
    pools["test"] = clothes("t10k")
    inputs, targets = {}, {}
    for split, number in PAIRS.items():
        pool, kinds = pools[split]
        canvas = np.zeros((number, 1, 28, 28), np.float32)
        labels = np.zeros((number, 10), np.float32)
        for i, two in enumerate(draw.integers(len(pool), size=(number, 2))):
            for column, chosen in zip((0, 14), two, strict=True):
                row = draw.integers(15)
                canvas[i, 0, row : row + 14, column : column + 14] = pool[chosen]
                labels[i, kinds[chosen]] = 1
        inputs[split], targets[split] = canvas, labels
    return Samples(inputs, targets)


def canvases(seed: int) -> Samples:
    """A digit, twice its size, on a texture of 24x24; each digit lies in one split only."""
    draw = np.random.default_rng(seed)
    digits = draw.permutation(load_digits().images / 16)
    inputs, targets, first = {}, {}, 0
    for split, number in DIGITS.items():
        texture = np.kron(draw.random((number, 6, 6)), np.ones((4, 4))) * 0.7
        canvas = texture + 0.05 * draw.standard_normal((number, 24, 24))
        target = np.zeros((number, 24, 24), np.int64)
        for i, (row, column) in enumerate(draw.integers(9, size=(number, 2))):
            place = (i, slice(row, row + 16), slice(column, column + 16))
            large = np.kron(digits[first + i], np.ones((2, 2)))
            target[place] = large > 0.4
            canvas[place] = np.where(large > 0.4, 0.2 + 0.7 * large, canvas[place])
        inputs[split], targets[split] = canvas[:, None].astype(np.float32), target
        first += number
    return Samples(inputs, targets)


JOBS = {
    "clothes": Job(
        samples=pairs,
        net=Labels,
        options={
            "first": (4, 6, 8, 12),
            "second": (8, 12, 16, 24),
            "third": (16, 24, 32, 48),
        },
        task=bn.tasks.MultiLabel(),
        train=bn.TrainSettings(steps=1500, batch_size=64, ghost_fraction=1),
        cost_range=(3e4, 3e5),
        search=bn.SearchSettings(
            initial=10, rounds=1, crossovers=4, mutations=4, calibration_images=1024
        ),
    ),
    "segmentation": Job(
        samples=canvases,
        net=Places,
        options=dict.fromkeys(("first", "second"), (2, 4, 8, 12)),
        task=bn.tasks.Segmentation(),
        train=bn.TrainSettings(steps=300, batch_size=32, ghost_fraction=1),
        cost_range=(0.1e6, 1e6),
        search=bn.SearchSettings(
            initial=8, rounds=1, crossovers=2, mutations=4, calibration_images=512
        ),
    ),
}
