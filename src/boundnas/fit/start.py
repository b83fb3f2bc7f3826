"""The start of a run: what is checked before the first step, and the policies it begins with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from boundnas.cost import Budget, Cost, check_budgets, with_usual
from boundnas.data import Samples
from boundnas.errors import CostError, SpaceError, TaskError
from boundnas.fit.clip import of_settings
from boundnas.fit.match import check_match
from boundnas.guard.learnable import check_learnable, check_used
from boundnas.method.mixing import check_mixing
from boundnas.method.policy import (
    BOUNDARIES,
    Boundaries,
    Boundary,
    Policy,
    extreme,
    initial_policy,
    point_mass,
)
from boundnas.method.precision import check_precision
from boundnas.method.recomputing import check_recomputing
from boundnas.method.variants import ESTIMATORS
from boundnas.nested import Inputs
from boundnas.randomness import stream
from boundnas.settings import PriorSettings, TrainSettings
from boundnas.space import Architecture, SearchSpace
from boundnas.supernet.alone import FOLLOWS, is_judged_alone
from boundnas.supernet.calibrate import calibrate
from boundnas.supernet.extract import extract, random_inputs
from boundnas.supernet.place import first_line
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task


def check_start(
    model: Supernet,
    data: Samples,
    budgets: Sequence[Budget],
    settings: TrainSettings,
    task: Task,
) -> None:
    """Refuse, before anything is trained, what could only go wrong later.

    Args:
        model: The supernet.
        data: The images.
        budgets: The costs that are penalized, each with its range.
        settings: Those of the training.
        task: What the networks are to do.

    Raises:
        SpaceError: A dimension changes nothing, or is to be learned and has no exact gradient; or
            nothing, or what has hooks, would be computed again.
        CostError: A cost is not known, or the cost range cannot be met.
        DataError: The images are not what the model was built for.
        TaskError: Students are to be compared, or samples mixed, otherwise than the task allows.
        TrainingError: The device does not compute in the precision that is asked for.
        ExportError: A network of the space cannot be extracted.
    """
    check_match(model, data, task)
    check_precision(settings, next(model.parameters()).device)
    check_mixing(settings, task, model.example)
    check_recomputing(settings, model)
    if settings.distillation != "task" and not isinstance(task, Classification):
        raise TaskError(
            f"train.distillation = {settings.distillation} compares class logits, and the task is "
            f"{type(task).__name__}; leave it out, for the task's own distance"
        )
    check_costs(model, [budget.cost for budget in budgets])
    with_usual(model)
    check_used(model, set().union(*(cost.dimensions for cost, _ in budgets)))
    if settings.learn != "none" and ESTIMATORS[settings.estimator] is None:
        check_learnable(model)
    check_budgets(budgets)
    check_forward(model)


def check_costs(model: Supernet, costs: Sequence[Cost]) -> None:
    """Refuse a cost that counts another model's networks.

    Raises:
        CostError: Names it.
    """
    for cost in costs:
        if cost.space != model.space:
            raise CostError(
                f"the cost {cost.name} is of another model, with {cost.space}, than the one that "
                f"trains, with {model.space}; make it from this model"
            )


def check_forward(model: Supernet) -> None:
    """Extract networks of the untrained model that have, together, every option of the space.

    Raises:
        ExportError: ``forward`` cannot be followed at one of them; names the line.
        SpaceError: What it gives for a sample follows from those beside it.
    """
    space, images = model.space, random_inputs(model)
    stairs = (
        Architecture(space, tuple(min(j, len(d) - 1) for d in space.dimensions))
        for j in range(max(map(len, space.dimensions)))
    )
    drawn = (space.sample(stream(0, "check_forward", i)) for i in range(2))
    for arch in (*stairs, *drawn):
        net = extract(model, calibrate(model, arch, [images]))
        _check_alone(f"{type(model).__name__}.forward", net, images, arch)


def _check_alone(name: str, net: nn.Module, images: Inputs, arch: Architecture) -> None:
    """Refuse a network that is another one in batches of another size, as on a device."""
    try:
        same = is_judged_alone(net, images)
    except MemoryError:
        raise
    except Exception as error:  # whatever a user's forward may raise
        raise SpaceError(
            f"{name} fails for a single sample, {first_line(error)}; "
            f"networks are called with any number of them; architecture {arch}"
        ) from error
    if not same:
        raise SpaceError(
            f"{name} gives something else for a sample alone than beside another one, where "
            f"normalizations keep their statistics; {FOLLOWS}; architecture {arch}"
        )


def start_boundaries(
    model: Supernet, settings: TrainSettings, seed: int, budgets: Sequence[Budget]
) -> Boundaries:
    """Both boundaries as a training begins with them, on the model's device."""
    device = next(model.parameters()).device
    largest, smallest = (
        start_policy(model, boundary, settings, seed, budgets).to(device) for boundary in BOUNDARIES
    )
    return Boundaries(largest, smallest, settings.tau, settings.eq6)


def start_policy(
    model: Supernet,
    boundary: Boundary,
    settings: TrainSettings,
    seed: int,
    budgets: Sequence[Budget],
) -> Policy:
    """The policy a boundary starts from: Eq. 7 where it is learned, else a point mass.

    Raises:
        SpaceError: The prior names no dimension, or leaves none of a dimension's options; or the
            space has no width that the cost range could cut.
    """
    start = preferred(model.space, boundary, settings, budgets)
    if settings.learn not in ("both", boundary):
        return point_mass(model.space, boundary, start)
    return initial_policy(
        model.space,
        boundary,
        stream(seed, f"{boundary}_policy_start"),
        settings.start_std,
        settings.start_temperature,
        start,
    )


def preferred(
    space: SearchSpace, boundary: Boundary, settings: TrainSettings, budgets: Sequence[Budget]
) -> Architecture:
    """Where a boundary starts: at the end of the space, or of what the cost range leaves of it, or
    where a prior says; of two parts of it that fit the later one counts.
    """
    clip = of_settings(space, settings, budgets)
    first = extreme(space, boundary) if clip is None else clip.end(boundary)
    if settings.learn not in ("both", boundary):
        return first
    return _within(first, boundary, settings.prior or ())


def _within(
    first: Architecture, boundary: Boundary, prior: Sequence[PriorSettings]
) -> Architecture:
    """An architecture with the largest or smallest options within a prior."""
    space, indices = first.space, list(first.indices)
    for number, part in enumerate(prior):
        named = [d for d in space.dimensions if fnmatchcase(d.name, part.dimensions)]
        if not named:
            raise SpaceError(
                f"train.prior[{number}].dimensions: {part.dimensions!r} names no dimension of "
                f"this space; there are {', '.join(d.name for d in space.dimensions)}"
            )
        for dimension in named:
            lower = -math.inf if part.smallest is None else part.smallest
            upper = math.inf if part.largest is None else part.largest
            inside = [j for j, n in enumerate(dimension.numbers) if lower <= n <= upper]
            if not inside:
                raise SpaceError(
                    f"train.prior[{number}]: no option of {dimension.name} lies between "
                    f"{lower:g} and {upper:g}; there are {', '.join(map(str, dimension.choices))}"
                )
            indices[space.position(dimension)] = inside[-1 if boundary == "max" else 0]
    return Architecture(space, tuple(indices))
