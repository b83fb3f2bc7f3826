"""What a trained supernet is searched for and by, where that is not what it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from boundnas.cost import COSTS, Budget, Cost, MACs, check_budgets, paired
from boundnas.cost.budget import CostRange
from boundnas.errors import CostError, TaskError
from boundnas.fit.match import check_match, fitted
from boundnas.fit.run import Run
from boundnas.fit.start import check_costs
from boundnas.settings import SearchSettings
from boundnas.task import Classification, Task
from boundnas.tasks import MultiLabel, NextToken, Regression, Segmentation

_COME_ALONG = (Classification, MultiLabel, Regression, Segmentation, NextToken)


def wanted(
    run: Run,
    settings: SearchSettings,
    cost: Cost | Sequence[Cost] | None,
    cost_range: CostRange | Sequence[CostRange] | None,
) -> Run:
    """The run with the costs and ranges that it is to be searched for; weights are as they are.

    Args:
        run: The trained run.
        settings: How it is searched.
        cost: Other costs; by default those of the run.
        cost_range: Their ranges; by default those of the run.

    Raises:
        CostError: A cost has no range or is of another model, or no network that the search can
            draw lies in a range.
    """
    if cost is None and cost_range is None:
        return run
    if cost_range is None:
        raise CostError("search: found cost without cost_range; say by it which costs are wanted")
    if cost is None:
        cost = run.costs if len(run.costs) > 1 else run.costs[0]
    pairs = paired(cost, cost_range)
    budgets = tuple(Budget(each or MACs(run.model), limits) for each, limits in pairs)
    check_costs(run.model, [budget.cost for budget in budgets])
    check_budgets(budgets)
    if settings.bounds == "learned":
        _check_between(run, budgets)
    return replace(run, budgets=budgets)


def named(run: Run, name: str) -> Cost:
    """The cost of a name: one of the run, or one that comes with BoundNAS.

    Raises:
        CostError: There is none; names those that there are.
    """
    known = {cost.name: cost for cost in run.costs}
    if name not in known and name not in COSTS:
        raise CostError(
            f"there is no cost {name}; there are {', '.join({**known, **COSTS})}, and others are "
            "handed to boundnas.search as cost="
        )
    return known[name] if name in known else COSTS[name](run.model)


def measured_by(run: Run, task: Task | None) -> Run:
    """The run with the task that its networks are to be measured by.

    Args:
        run: The trained run.
        task: By default that of the run.

    Raises:
        TaskError: It reads outputs in another way than those of the training are meant.
        DataError: Its targets are others than those of the data.
    """
    if task is None:
        return run
    read = _reading(task, run.task)
    check_match(run.model, run.data, read)
    return replace(run, task=fitted(read, run.data, run.model))


def _reading(task: Task, trained: Task) -> Task:
    """A task as it reads the outputs that another one has trained."""
    kind, before = (
        next((k for k in _COME_ALONG if isinstance(each, k)), None) for each in (task, trained)
    )
    if isinstance(task, Regression) and isinstance(trained, Regression):
        return replace(task, mean=trained.mean, std=trained.std)  # what outputs are in units of
    if kind is not before and ((kind and before) or Regression in (kind, before)):
        raise TaskError(
            f"search: networks of this run answer as {type(trained).__name__} trained them, "
            f"{trained.output}; {type(task).__name__} would take the same outputs for something "
            f"else; give a task of that kind, as a subclass of {type(trained).__name__} with "
            "another score or meter"
        )
    return task


def _check_between(run: Run, budgets: Sequence[Budget]) -> None:
    """Refuse ranges that the learned boundaries leave no network of."""
    ends = run.boundaries.max.mode.indices, run.boundaries.min.mode.indices
    options = tuple(
        tuple(sorted({*allowed, *both})) for allowed, *both in zip(run.allowed, *ends, strict=True)
    )
    for cost, (lower, upper) in budgets:
        smallest, largest = cost.reach_of(options)
        if lower > largest or upper < smallest:
            raise CostError(
                f"no network between the learned boundaries has {lower:,.10g} to {upper:,.10g} "
                f"{cost.name}: they reach from {smallest:,} to {largest:,}; search the whole space "
                'with SearchSettings(bounds="whole"), or train for this range'
            )
