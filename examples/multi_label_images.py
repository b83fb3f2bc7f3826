"""Which digits are on a canvas of two: a family of networks by mean average precision and MACs."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

import boundnas as bn
from boundnas import elastic

IMAGES, LABELS = load_digits(return_X_y=True)


class Pairs(Dataset):
    """Canvases of 16x16 with two digits; where they lie is drawn anew in training."""

    def __init__(self, first, last, number, fixed):
        self.first, self.last, self.number, self.fixed = first, last, number, fixed

    def __len__(self):
        return self.number

    def __getitem__(self, i):
        draw = np.random.RandomState(i)  # the same two digits for one sample
        canvas, labels = np.zeros((1, 16, 16)), np.zeros(10)
        places = draw if self.fixed else np.random
        for column, chosen in zip((0, 8), draw.randint(self.first, self.last, 2), strict=True):
            row = places.randint(0, 9)
            canvas[0, row : row + 8, column : column + 8] = IMAGES[chosen].reshape(8, 8) / 16
            labels[LABELS[chosen]] = 1
        return canvas, labels


class Net(bn.Supernet):
    def __init__(self, example):
        super().__init__(example)
        w1, w2 = (self.dimension(name, [8, 12, 16, 24]) for name in ("first", "second"))
        self.first, self.norm = elastic.Conv2d(1, w1, 3, stride=2), elastic.BatchNorm2d(w1)
        self.second, self.last = elastic.Conv2d(w1, w2, 3, stride=2), elastic.BatchNorm2d(w2)
        self.head = elastic.Linear(w2, 10)

    def forward(self, x, arch):
        x = self.norm(self.first(x, arch), arch).relu()
        return self.head(self.last(self.second(x, arch), arch).relu().amax((2, 3)), arch)


def main(steps=600, rounds=1):
    train, plain = (Pairs(0, 1300, 2000, fixed) for fixed in (False, True))
    data = bn.Data(train, plain=plain, test=Pairs(1300, 1797, 500, True), name="pairs")
    torch.manual_seed(0)
    settings = bn.TrainSettings(steps=steps, batch_size=64)
    model, task = Net(data.example), bn.tasks.MultiLabel()
    run = bn.fit(model, data, task=task, cost_range=(15e3, 80e3), settings=settings)
    for n in bn.search(run, bn.SearchSettings(initial=8, rounds=rounds)).networks:
        print(f"{n.macs:6} MACs  {n.metric.name} {n.metric.shown(n.test)} on test data")


if __name__ == "__main__":
    main()
