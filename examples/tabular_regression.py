"""Progress of diabetes from ten numbers: a family of perceptrons along the front of R² and MACs."""

import numpy as np
import torch
from sklearn.datasets import load_diabetes

import boundnas as bn
from boundnas import elastic


class Perceptron(bn.Supernet):
    """Two hidden layers of 4 to 64 units."""

    def __init__(self, example):
        super().__init__(example)
        first = self.dimension("first", [4, 8, 16, 32, 64])
        second = self.dimension("second", [4, 8, 16, 32, 64])
        self.first = elastic.Linear(len(example), first)
        self.second = elastic.Linear(first, second)
        self.head = elastic.Linear(second, 1)

    def forward(self, x, arch):
        x = self.second(self.first(x, arch).relu(), arch).relu()
        return self.head(x, arch)


def main(steps=600, rounds=2):
    numbers, progress = load_diabetes(return_X_y=True)
    numbers = numbers / numbers.std(0)
    order = np.random.RandomState(0).permutation(len(numbers))
    rows = [(numbers[i], progress[i]) for i in order]
    data = bn.Data(rows[:342], test=rows[342:], validation_fraction=0.2, name="diabetes")

    torch.manual_seed(0)
    model = Perceptron(data.example)
    settings = bn.TrainSettings(steps=steps, batch_size=32, learning_rate=0.02)
    task = bn.tasks.Regression()
    run = bn.fit(model, data, task=task, cost_range=(70, 4000), settings=settings)
    front = bn.search(run, bn.SearchSettings(initial=20, rounds=rounds, crossovers=5, mutations=5))
    for network in front.networks:
        shown = network.metric.shown
        print(f"{network.macs:6} MACs  R² {shown(network.validation)}, test {shown(network.test)}")
    best = front.best(macs=1000)
    print(bn.export(bn.extract(model, best.arch), "diabetes.onnx"))


if __name__ == "__main__":
    main()
