"""What evaluations and fronts depend on: each is believed only where all of it is the same."""

from __future__ import annotations

from boundnas.cost import Cost, with_usual
from boundnas.fit import identity
from boundnas.fit.identity import Identity
from boundnas.fit.run import Run
from boundnas.fit.told import digest
from boundnas.settings import SearchSettings
from boundnas.supernet import weights

_PLAN = (
    "method", "initial", "rounds", "crossovers", "mutations", "mutation_probability", "workers",
)  # fmt: skip
"""Settings that decide which networks are measured, but not what is measured of them."""


def of_evaluations(run: Run, settings: SearchSettings, estimated: bool) -> Identity:
    """What decides the evaluation of an architecture.

    Args:
        run: The trained run, with the weights that it has now.
        settings: How to search.
        estimated: Whether accuracies are estimates, from images that the first candidates choose.
    """
    data = run.data
    plan = _PLAN if estimated else (*_PLAN, "bounds", "screen")
    structure, policies = (
        digest(str(found))
        for found in (
            identity.of_structure(run.model),
            identity.of_policies(run.boundaries) if estimated else {},
        )
    )
    return {
        "weights": weights.digest(run.model),
        "model": structure,
        **({"policies": policies} if estimated else {}),
        "seed": str(run.seed),
        **identity.of_task(run.task),
        **identity.of_settings(settings, "search", tuple(f"search.{name}" for name in plan)),
        **data.facts(),
        **identity.of_split(data, "train"),
        **identity.of_split(data, "validation"),
        "costs": ", ".join(with_usual(run.model, run.costs)),
        "cost": ", ".join(map(_digest, run.costs)),
    }


def of_front(run: Run, settings: SearchSettings) -> Identity:
    """What decides the front: all of a search, the range of costs, and test data."""
    return {
        **of_evaluations(run, settings, estimated=True),
        **identity.of_settings(settings, "search", identity.WITHOUT_EFFECT),
        **identity.of_split(run.data, "test"),
        "cost_range": ", ".join(str(tuple(map(float, limits))) for limits in run.ranges.values()),
    }


def _digest(cost: Cost) -> str:
    return digest(str(identity.of_cost(cost, (0, 1), cost.space)))
