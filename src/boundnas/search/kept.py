"""The front of a run: what its last search found, or what lies in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import permutations

from boundnas.cost import Budget
from boundnas.errors import RunError, SpaceError
from boundnas.fit import identity
from boundnas.fit.run import Run, knows_fronts
from boundnas.search.evaluator import Evaluator
from boundnas.search.networks import Front, FrontNetwork
from boundnas.search.origin import of_front
from boundnas.search.wanted import named
from boundnas.settings import SearchSettings
from boundnas.store.folder import RunFolder
from boundnas.store.records import FrontRecord, NetworkRecord, Ranges, read_record
from boundnas.supernet.weights import Weights

AGAIN = "remove it and run the search again: what the search measured is kept in its journal"
"""What to do about a front that is not to be believed."""


@knows_fronts
def front_of(run: Run) -> Front:
    """The front of a run.

    Raises:
        RunError: It was not searched yet, the model has other weights since, or the front in
            its folder is damaged, or was found with other weights, data or settings than the run
            has.
    """
    if not run.fronts:
        held = None if run.folder is None else kept(run.folder)
        if held is None:
            raise RunError("this run was not searched yet; call boundnas.search(run)")
        assert run.folder is not None
        settings = recorded_settings(held)
        asked = searched_for(run, held, settings)
        different = identity.difference(held.identity, of_front(asked, settings))
        if different is not None:
            raise RunError(f"{run.folder.front}: was found with {different}; search the run again")
        hold(run, read_front(asked, settings))
    front: Front
    front, weights = run.fronts[-1]
    if not weights.are_surely_of(run.model):
        raise RunError(
            "the model has other weights than when this run was searched, so that its front is of "
            "other networks; search the run again"
        )
    return front


def hold(run: Run, front: Front) -> None:
    """Keep a front as that of the run, with the weights that it is of."""
    run.fronts[:] = [(front, Weights(run.model))]


def kept(folder: RunFolder) -> FrontRecord | None:
    """The record of the front that lies in a folder, if one does.

    Raises:
        RunError: It is damaged or was edited.
    """
    try:
        return read_record(folder.front, FrontRecord, folder.held)
    except RunError as error:
        raise RunError(f"{error}; or {AGAIN}") from error


def recorded_settings(held: FrontRecord) -> SearchSettings:
    """How a front was searched."""
    found = held.identity.items()
    start = "search."
    given = {k.removeprefix(start): json.loads(v) for k, v in found if k.startswith(start)}
    return SearchSettings(**given)


def searched_for(run: Run, held: FrontRecord, settings: SearchSettings) -> Run:
    """A run with the costs and ranges that a front of it was searched for, in their order.

    Raises:
        RunError: One is no cost of the run, nor one that comes with BoundNAS.
    """
    first = [name for name in run.ranges if name in held.ranges]
    rest = [name for name in held.ranges if name not in first]
    orders = [_with(run, held.ranges, order) for order in permutations([*first, *rest])]
    # A record has its costs in the order of the alphabet.
    fits = (asked for asked in orders if held.identity == of_front(asked, settings))
    return next(fits, orders[0])


def _with(run: Run, ranges: Ranges, order: Iterable[str]) -> Run:
    return replace(run, budgets=tuple(Budget(named(run, n), ranges[n]) for n in order))


def read_front(run: Run, settings: SearchSettings) -> Front:
    """The front in a run's folder, with the statistics of its networks computed anew.

    Args:
        run: With the costs and ranges that it was searched for.
        settings: How it was searched.

    Raises:
        RunError: It names networks or costs that this model does not have.
    """
    assert run.folder is not None
    path, held = run.folder.front, kept(run.folder)
    assert held is not None
    evaluator = Evaluator(run.model, run.data, settings, run.seed, run.costs, run.task)

    def network(row: NetworkRecord) -> FrontNetwork:
        arch = run.model.space.architecture(row.architecture)
        costs: Mapping[str, int] = {name: cost(arch) for name, cost in evaluator.costs.items()}
        if costs != row.costs:
            raise RunError(f"{path}: says {row.costs} of a network that has {costs}; {AGAIN}")
        arch = evaluator.calibrated(arch)
        return FrontNetwork(arch, costs, row.validation, row.test, held.metric)

    try:
        inside, outside = (
            tuple(evaluator.each(network, rows)) for rows in (held.networks, held.outside)
        )
    except SpaceError as error:
        raise RunError(f"{path}: is of another search space ({error}); {AGAIN}") from error
    return Front(run.ranges, inside, outside, tuple(held.classes), run.task)
