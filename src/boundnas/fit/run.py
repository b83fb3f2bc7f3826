"""A run: a supernet with its learned boundaries, and all that they came from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from boundnas.cost import Budget, Cost
from boundnas.data import Samples
from boundnas.fit.average import Average
from boundnas.fit.clip import Clip, of_settings
from boundnas.fit.recipe import Recipe
from boundnas.fit.start import start_boundaries
from boundnas.fit.trained import Trained
from boundnas.method.policy import Boundaries, Policy
from boundnas.settings import SearchSettings, TrainSettings
from boundnas.space import Allowed
from boundnas.store.folder import RunFolder
from boundnas.store.records import BoundsOfDimension, BoundsRecord, LargestRecord
from boundnas.supernet.supernet import Supernet
from boundnas.task import Task


@dataclass(frozen=True)
class Run:
    """A trained supernet with its learned boundaries, and what it was trained on.

    Args:
        model: The supernet.
        data: The images.
        task: What the model is trained to do.
        boundaries: The two policies, ``max`` and ``min``.
        budgets: The costs that are penalized, each with its range.
        settings: Those of the training.
        seed: Fixes every random draw.
        folder: Where the run is kept, if it is.
        recipe: What changed the weights, where it is not what the settings say.
        average: The average of the weights that a training is to end with, where it is not their
            last state.
        trained: What the largest network is worth, where weights were trained already.
        metrics: One row of numbers per step, of this process.
        trajectory: The policies' expected values and deviations over time, of this process.
        fronts: What the last search of it found, if it was searched here, and the weights then.
        searching: How it is searched where nothing else is said: as its configuration says, if it
            was opened from one, else as in the paper.
    """

    model: Supernet
    data: Samples
    task: Task
    boundaries: Boundaries
    budgets: tuple[Budget, ...]
    settings: TrainSettings
    seed: int
    folder: RunFolder | None = None
    recipe: Recipe = field(default_factory=Recipe)
    average: Average | None = None
    trained: Trained | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    trajectory: list[dict[str, Any]] = field(default_factory=list)
    fronts: list[Any] = field(default_factory=list, repr=False, compare=False)
    searching: SearchSettings = field(default_factory=SearchSettings)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """The costs that are penalized."""
        return tuple(budget.cost for budget in self.budgets)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Their ranges, by name."""
        return {budget.cost.name: budget.range for budget in self.budgets}

    @property
    def front(self) -> Any:
        """The `boundnas.Front` that its last search found, or that lies in its folder.

        Raises:
            RunError: It was not searched yet, or the front there is not to be believed.
        """
        return _readers[0](self)

    def averaged(self) -> AbstractContextManager[None]:
        """Within it, while training goes on, the model has the weights that it would end with."""
        return nullcontext() if self.average is None else self.average.shown()

    @property
    def clip(self) -> Clip | None:
        """What the cost range left of the space at the start, where it was asked."""
        return of_settings(self.model.space, self.settings, self.budgets)

    @property
    def allowed(self) -> Allowed:
        """The options between the learned boundaries, of each dimension."""
        return self.boundaries.allowed


_readers: list[Callable[[Run], Any]] = []


def knows_fronts(reader: Callable[[Run], Any]) -> Callable[[Run], Any]:
    """Marks what knows the front of a run: part of the search, which stands above the training."""
    _readers[:] = [reader]
    return reader


def bounds_record(
    run: Run,
    identity: dict[str, str],
    weights: str,
    logs: dict[str, dict[str, Any]],
    largest: LargestRecord | None = None,
) -> BoundsRecord:
    """The learned bounds per dimension, how peaked the policies' start was, and what came of it.

    Args:
        run: The run, at its end.
        identity: What decided it.
        weights: Digest of the weights.
        logs: What the logs hold, by name.
        largest: What became of the largest network, where its weights were trained already.
    """
    start = start_boundaries(run.model, run.settings, run.seed, run.budgets)
    rows = zip(
        run.model.space.dimensions,
        run.boundaries.max.probabilities.tolist(),
        run.boundaries.min.probabilities.tolist(),
        run.allowed,
        strict=True,
    )
    return BoundsRecord(
        identity=identity,
        weights=weights,
        logs=logs,
        largest=largest,
        clip=None if run.clip is None else run.clip.record,
        p_largest=_peak(start.max),
        p_smallest=_peak(start.min),
        dimensions=[
            BoundsOfDimension(
                name=d.name,
                kind=d.kind,
                choices=list(d.choices),
                max=phi[: len(d)],
                min=theta[: len(d)],
                allowed=[d.choices[j] for j in options],
            )
            for d, phi, theta, options in rows
        ],
    )


def _peak(policy: Policy) -> float:
    """Probability of the most likely option, averaged over the dimensions."""
    return float(policy.probabilities.amax(-1).mean())
