"""A finished run from its folder: its record, and the state that its training ended with."""

from __future__ import annotations

import json
from collections.abc import Sequence

from boundnas.cost import Budget, Cost
from boundnas.errors import CostError, RunError
from boundnas.fit import identity
from boundnas.fit.identity import Identity
from boundnas.fit.resume import AVERAGE, State, newest_checkpoint, of_training
from boundnas.fit.run import Run
from boundnas.settings import TrainSettings
from boundnas.store.folder import RunFolder
from boundnas.store.lines import END, check_rows, read_jsonl
from boundnas.store.records import BoundsRecord, read_record
from boundnas.supernet import modes, weights

_RECIPE = ("optimizer", "schedule", "step sizes", "start")
"""What names begin with of how weights changed; it is not asked for, as nothing is trained."""


def finished(folder: RunFolder, how: str) -> BoundsRecord:
    """What a training ended with.

    Args:
        folder: The run folder.
        how: How a training that has not ended is finished.

    Raises:
        RunError: It has not ended, or its record is damaged.
    """
    bounds = read_record(folder.bounds, BoundsRecord, folder.held)
    if bounds is None:
        raise RunError(
            f"{folder.path}: its training has not ended, so there is no trained supernet to open; "
            f"finish it first: {how}"
        )
    return bounds


def recorded_settings(bounds: BoundsRecord) -> TrainSettings:
    """The settings of a training, but how often it saved, which decides nothing."""
    held = bounds.identity.items()
    found = {k.removeprefix("train."): json.loads(v) for k, v in held if k.startswith("train.")}
    return TrainSettings(**found)


def recorded_budgets(bounds: BoundsRecord, costs: Sequence[Cost]) -> tuple[Budget, ...]:
    """Costs that are handed in, each with the range that it was trained for.

    Raises:
        CostError: They are more or fewer than the run was trained for.
    """
    ranges = recorded_ranges(bounds)
    if len(ranges) != len(costs):
        raise CostError(
            f"the run was trained for {', '.join(ranges)}; hand in these by cost=, in this order, "
            f"found {', '.join(cost.name for cost in costs)}"
        )
    return tuple(map(Budget, costs, ranges.values()))


def recorded_ranges(bounds: BoundsRecord) -> dict[str, tuple[float, float]]:
    """The ranges that a run was trained for, by the costs' names."""
    held, found = bounds.identity, {}
    for key in held:
        if key.split()[0] == "cost_range":  # of the n-th cost "cost_range n"
            lower, upper = map(float, held[key].strip("()").split(","))
            name = held[key.replace("cost_range", "cost")].split(" ", 1)[1]
            found[name] = lower, upper
    return found


def reopened(run: Run, bounds: BoundsRecord) -> Run:
    """Give a run that is as before its training the state and the logs that it ended with.

    Args:
        run: The run, kept in a folder; its model and boundaries are written to.
        bounds: What its training ended with.

    Raises:
        RunError: The folder is of another run, which is named by what differs; or the checkpoint
            of the last step or a log is missing or damaged.
    """
    folder = run.folder
    assert folder is not None
    different = identity.difference(_asked(bounds.identity), _asked(of_training(run)))
    if different is not None:
        raise RunError(
            f"{folder.path}: holds a run with {different}; hand in the model, data, task and cost "
            "that it was trained with"
        )
    for name, written in bounds.logs.items():
        check_rows(getattr(folder, name), END, written, folder.held)
    _load(run, folder, bounds)
    run.metrics[:] = read_jsonl(folder.metrics, folder.held)
    run.trajectory[:] = read_jsonl(folder.boundaries, folder.held)
    modes.evaluate(run.model)
    return run


def _asked(found: Identity) -> Identity:
    """What decides a run, but what changed its weights."""
    return {key: value for key, value in found.items() if not key.startswith(_RECIPE)}


def _load(run: Run, folder: RunFolder, bounds: BoundsRecord) -> None:
    """Load the weights and policies that a training ended with."""
    lost = f"{folder.checkpoints}: does not hold the weights that the training ended with by "
    lost += f"{folder.bounds.name}; put back a copy of the folder"
    saved = newest_checkpoint(folder)
    policies = {f"{name}_policy": policy for name, policy in run.boundaries.items()}
    state = State({"model": run.model, **policies}, {})
    if saved is None or saved.step != bounds.logs["metrics"]["rows"]:  # one of every step
        raise RunError(lost)
    kept = {k: v for k, v in saved.tensors.items() if k.partition("/")[0] in state.modules}
    if run.settings.ema is not None:  # the weights are then those of the average
        prefix = f"{AVERAGE}/module."
        found = {k.replace(prefix, "model/", 1): k for k in saved.tensors if k.startswith(prefix)}
        kept |= {name: saved.tensors[key] for name, key in found.items()}
    try:
        state.load(kept)
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunError(f"{lost} ({str(error).splitlines()[0]})") from error
    if weights.digest(run.model) != bounds.weights:
        raise RunError(lost)
