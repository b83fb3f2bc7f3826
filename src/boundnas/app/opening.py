"""A run from its folder, in another process, another day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from boundnas.app.pipeline import Job
from boundnas.config import RunConfig, read_config
from boundnas.cost import Budget, Cost, MACs
from boundnas.data import Samples
from boundnas.engine.tuning import tune
from boundnas.errors import ArgumentError
from boundnas.fit.match import check_match, fitted
from boundnas.fit.place import TEXT
from boundnas.fit.reopen import finished, recorded_budgets, recorded_settings, reopened
from boundnas.fit.run import Run
from boundnas.fit.start import check_costs, start_boundaries
from boundnas.settings import TrainSettings
from boundnas.store.files import find_bytes
from boundnas.store.folder import RunFolder
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task
from boundnas.typed import checked


@checked
def open(
    folder: Path | str,
    *,
    model: Supernet | None = None,
    data: Samples | None = None,
    task: Task | None = None,
    cost: Cost | Sequence[Cost] | None = None,
) -> Run:
    """A finished run from its folder, as `boundnas.fit` returned it; nothing is written.

    A run of a configuration needs its folder alone. For one made from Python, code is not kept:
    hand in the model and the data, and a task or costs that are not the usual ones. Settings,
    seed, ranges, boundaries and weights come from the folder.

    Args:
        folder: The run folder.
        model: The supernet as it was built; its weights are replaced by those of the run.
        data: What it was trained on.
        task: What it was trained to do; by default to tell the classes apart.
        cost: What was penalized, in the same order; by default MACs.

    Returns:
        The run, to be searched, and its networks extracted and exported, with the same bytes as
        in the process that trained.

    Raises:
        ArgumentError: Only one of model and data is handed in, or none of a run that needs both.
        RunError: There is no such run, its training has not ended, it is damaged, or it is of
            another model, data, task or cost; says what differs.
        CostError: Other costs are handed in than it was trained for.
        DataError: The data do not fit the model, or those of a configuration cannot be read.
        ConfigError: The folder's configuration has faults.
    """
    tune()
    there = RunFolder.open(Path(folder))
    if model is None or data is None:
        _check_alone(model=model, data=data, task=task, cost=cost)
        config = configuration(there, "hand in its model and data, and a task and cost of your own")
        return _of_configuration(there, config)
    costs = list(cost) if isinstance(cost, Sequence) else [cost or MACs(model)]
    bounds = finished(there, f"call boundnas.fit as before, with folder={str(folder)!r}")
    check_costs(model, costs)
    budgets, settings = recorded_budgets(bounds, costs), recorded_settings(bounds)
    seed = int(bounds.identity["seed"])
    return reopened(
        _untrained(model, data, task or Classification(), budgets, settings, seed, there), bounds
    )


def configuration(folder: RunFolder, instead: str) -> RunConfig:
    """The configuration of a run.

    Args:
        folder: The run folder.
        instead: What to do where there is none.

    Raises:
        ArgumentError: The run was made from Python.
        ConfigError: The configuration has faults.
    """
    if find_bytes(folder.config, held=folder.held) == TEXT.encode():
        raise ArgumentError(
            f"{folder.path} was made from Python, whose code is not kept; {instead}"
        )
    return read_config(folder.config)


def _of_configuration(folder: RunFolder, config: RunConfig) -> Run:
    """A run whose folder says all of it."""
    bounds = finished(folder, f"boundnas search {folder.path}")
    job = Job.prepare(config)
    run = _untrained(job.model, job.data, job.task, job.budgets, job.settings, config.seed, folder)
    return reopened(replace(run, searching=config.search), bounds)


def _untrained(
    model: Supernet,
    data: Samples,
    task: Task,
    budgets: tuple[Budget, ...],
    settings: TrainSettings,
    seed: int,
    folder: RunFolder,
) -> Run:
    """A run as it was before its training."""
    check_match(model, data, task)
    boundaries = start_boundaries(model, settings, seed, budgets)
    fits = fitted(task, data, model)
    return Run(model, data, fits, boundaries, budgets, settings, seed, folder)


def _check_alone(**given: object) -> None:
    """Refuse parts of what must come together."""
    said = [name for name, value in given.items() if value is not None]
    if said:
        raise ArgumentError(
            f"open: found {' and '.join(said)}; hand in model and data both, or nothing of a run "
            "that was made from a configuration"
        )
