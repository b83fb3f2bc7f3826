"""What a job consists of, whatever its data are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import boundnas as bn

Array = NDArray[np.generic]
Options = Mapping[str, Sequence[Any]]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Samples:
    """Inputs and targets by split; every method of a job sees the same."""

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]

    def data(self, name: str) -> bn.Data:
        """The same for BoundNAS."""
        train, validation, test = (
            list(zip(self.inputs[split], self.targets[split], strict=True)) for split in SPLITS
        )
        return bn.Data(train, validation=validation, test=test, name=name)


@dataclass(frozen=True)
class Job:
    """A job: data of a seed, a space of networks, a task, and how long all of it is trained.

    Args:
        samples: The splits of a seed.
        net: A supernet of these options; with one option each, a plain network.
        options: The space.
        task: What the networks are to do.
        train: Steps, batch and step size, of the supernet and of the plain network.
        cost_range: Least and most MACs.
        search: How it is searched.
        baselines: Test scores of other methods, by name.
    """

    samples: Callable[[int], Samples]
    net: Callable[[bn.Data, Options], bn.Supernet]
    options: Options
    task: bn.tasks.Task
    train: bn.TrainSettings
    cost_range: tuple[float, float]
    search: bn.SearchSettings = field(
        default=bn.SearchSettings(initial=16, rounds=2, crossovers=8, mutations=8)
    )
    baselines: Callable[[Samples, int], dict[str, float]] = lambda samples, seed: {}
