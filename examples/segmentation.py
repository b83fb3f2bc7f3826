"""Digits cut out of textured canvases: a family of networks by mean IoU and MACs."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

import boundnas as bn
from boundnas import elastic

IMAGES = load_digits().images / 16


class Canvases(Dataset):
    """A digit on a texture of 24x24; a pixel is background, 0, or digit, 1."""

    def __init__(self, first, last, noise=0.0):
        self.images, self.noise = IMAGES[first:last], noise

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        draw = np.random.RandomState(i)  # the same texture and place for one sample
        canvas = np.kron(draw.rand(6, 6), np.ones((4, 4))) * 0.7
        row, column = draw.randint(0, 9, 2)
        place = (slice(row, row + 16), slice(column, column + 16))
        large, target = np.kron(self.images[i], np.ones((2, 2))), np.zeros((24, 24), np.int64)
        canvas[place] = np.where(large > 0.4, 0.4 + large, canvas[place])
        target[place] = large > 0.4
        return canvas[None] + self.noise * np.random.randn(1, 24, 24), target


class Net(bn.Supernet):
    def __init__(self, example):
        super().__init__(example)
        w1, w2 = (self.dimension(name, [4, 8, 12, 16]) for name in ("first", "second"))
        self.first, self.norm = elastic.Conv2d(1, w1, 5), elastic.BatchNorm2d(w1)
        self.second, self.last = elastic.Conv2d(w1, w2, 3), elastic.BatchNorm2d(w2)
        self.head = elastic.Conv2d(w2, 2, 3)

    def forward(self, x, arch):
        x = self.norm(self.first(x, arch), arch).relu()
        return self.head(self.last(self.second(x, arch), arch).relu(), arch)


def main(steps=300, rounds=1):
    train, plain = Canvases(0, 1300, noise=0.05), Canvases(0, 1300)
    data = bn.Data(train, plain=plain, test=Canvases(1300, 1797), name="canvases")
    torch.manual_seed(0)
    settings = bn.TrainSettings(steps=steps, batch_size=32)
    model, task = Net(data.example), bn.tasks.Segmentation()
    run = bn.fit(model, data, task=task, cost_range=(0.2e6, 1.6e6), settings=settings)
    for n in bn.search(run, bn.SearchSettings(initial=6, rounds=rounds, mutations=2)).networks:
        print(f"{n.macs:7} MACs  {n.metric.name} {n.metric.shown(n.test)} on test data")


if __name__ == "__main__":
    main()
