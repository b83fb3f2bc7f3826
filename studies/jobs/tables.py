"""Tables of scikit-learn, with perceptrons beside gradient boosting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.model_selection import train_test_split
from torch import Tensor

import boundnas as bn
from boundnas import elastic
from studies.jobs.problem import Job, Options, Samples

DEPTHS, RATES, TREES = (3, 1, 2), (0.1, 0.03, 0.3), (100, 30, 300)
"""The grid of gradient boosting, its defaults first: of equal ones the first is taken."""


class Perceptron(bn.Supernet):
    """Two hidden layers."""

    def __init__(self, data: bn.Data, options: Options, outputs: int) -> None:
        super().__init__(data.example)
        first, second = (self.dimension(name, options[name]) for name in ("first", "second"))
        self.first = elastic.Linear(len(data.example), first)
        self.second, self.head = elastic.Linear(first, second), elastic.Linear(second, outputs)

    def forward(self, x: Tensor, arch: bn.Architecture) -> Tensor:
        """Logits, or one number."""
        return self.head(self.second(self.first(x, arch).relu(), arch).relu(), arch)


def table(load: Callable[..., Any], seed: int, classes: bool) -> Samples:
    """A quarter for the test, a fifth of the rest for validation, from each class alike.

    Columns are standardized by the training rows.
    """
    x, y = load(return_X_y=True)
    rest, test = train_test_split(
        np.arange(len(y)), test_size=0.25, random_state=seed, stratify=y if classes else None
    )
    train, validation = train_test_split(
        rest, test_size=0.2, random_state=seed, stratify=y[rest] if classes else None
    )
    x = (x - x[train].mean(0)) / x[train].std(0)
    rows = {"train": train, "validation": validation, "test": test}
    return Samples({s: x[r] for s, r in rows.items()}, {s: y[r] for s, r in rows.items()})


def boosting(samples: Samples, seed: int, classes: bool) -> dict[str, float]:
    """Gradient boosting by its defaults, and by the grid with the best validation score."""
    kind = GradientBoostingClassifier if classes else GradientBoostingRegressor
    found = []
    for depth in DEPTHS:
        for rate in RATES:
            for trees in TREES:
                model = kind(
                    max_depth=depth, learning_rate=rate, n_estimators=trees, random_state=seed
                ).fit(samples.inputs["train"], samples.targets["train"])
                score = [
                    float(model.score(samples.inputs[s], samples.targets[s]))
                    for s in ("validation", "test")
                ]
                found.append(score)
    chosen = max(found, key=lambda score: score[0])
    return {"gradient boosting": found[0][1], "gradient boosting, grid": chosen[1]}


def job(load: Callable[..., Any], outputs: int, cost_range: tuple[float, float]) -> Job:
    """The job of a table: its classes, or with one output a regression."""
    classes = outputs > 1
    return Job(
        samples=lambda seed: table(load, seed, classes),
        net=lambda data, options: Perceptron(data, options, outputs),
        options=dict.fromkeys(("first", "second"), (4, 8, 16, 32)),
        task=bn.tasks.Classification() if classes else bn.tasks.Regression(),
        train=bn.TrainSettings(
            steps=400, batch_size=32, learning_rate=0.05 if classes else 0.02, ghost_fraction=1
        ),
        cost_range=cost_range,
        baselines=lambda samples, seed: boosting(samples, seed, classes),
    )


JOBS = {
    "breast_cancer": job(load_breast_cancer, 2, (160, 1600)),
    "wine": job(load_wine, 3, (90, 1100)),
    "diabetes": job(load_diabetes, 1, (70, 1000)),
}
