"""Searches by Optuna's samplers: NSGA-II, and a tree-structured Parzen estimator as the model."""

from __future__ import annotations

from importlib.util import find_spec

from boundnas.engine.progress import Progress
from boundnas.errors import ConfigError
from boundnas.search.genetic import Evaluate, Name, pareto_front
from boundnas.search.journal import Evaluation
from boundnas.space import Allowed, Architecture, SearchSpace

METHODS = ("nsga2", "tpe")

BATCH = 32
"""Architectures that are asked for before the sampler is told what any of them is worth."""

IDLE_BATCHES = 4
"""After so many batches in a row with nothing new the search ends, as in an exhausted space."""


def require(method: str) -> None:
    """Refuse a method whose library is missing.

    Raises:
        ConfigError: Says how to install it.
    """
    if method in METHODS and find_spec("optuna") is None:
        raise ConfigError(
            f"search.method {method} needs Optuna, which is not installed; "
            "run pip install 'boundnas[search]', or take search.method: genetic"
        )


def sampled_search(
    space: SearchSpace,
    evaluate: Evaluate,
    *,
    method: str,
    largest: Architecture,
    smallest: Architecture,
    allowed: Allowed,
    total: int,
    population: int,
    seed: int,
    cost: str = "macs",
    name: Name = lambda architecture: architecture,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Pareto front of cost against accuracy, by a sampler that is told what it asked for.

    With the same arguments it asks for the same architectures, so a journal resumes it.

    Args:
        space: Where to search.
        evaluate: Measures a batch of architectures, none of which it has been given before.
        method: ``"nsga2"`` (Deb et al. 2002) or ``"tpe"`` (multi-objective, Ozaki et al. 2022).
        largest: Measured first; the mode of the max policy.
        smallest: Likewise, of the min policy.
        allowed: The options of each dimension, searched as ordinal ones.
        total: Architectures to measure.
        population: Of a generation of NSGA-II; random architectures before the model of TPE.
        seed: The run's seed.
        cost: Name of what accuracy is traded for.
        name: Tells which architectures are one network, which is measured once, by this name.
        progress: Advanced by one for each evaluation.

    Returns:
        The evaluations that no other dominates, in ascending cost.
    """
    import optuna  # an extra, and slow to import

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler: optuna.samplers.BaseSampler
    if method == "nsga2":
        sampler = optuna.samplers.NSGAIISampler(population_size=population, seed=seed % 2**32)
    else:
        sampler = optuna.samplers.TPESampler(n_startup_trials=population, seed=seed % 2**32)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    options = {
        d.name: optuna.distributions.IntDistribution(0, len(indices) - 1)
        for d, indices in zip(space.dimensions, allowed, strict=True)
    }
    measured: dict[Architecture, Evaluation] = {}

    def measure(architectures: list[Architecture]) -> None:
        fresh = [a for a in dict.fromkeys(map(name, architectures)) if a not in measured]
        for evaluation in evaluate(fresh) if fresh else ():
            measured[evaluation.architecture] = evaluation
            if progress is not None:
                progress.advance(accuracy=evaluation.accuracy)

    measure([largest, smallest])
    idle = 0
    while len(measured) < total and idle < IDLE_BATCHES:
        known = len(measured)
        trials = [study.ask(dict(options)) for _ in range(min(BATCH, total - known))]
        asked = [
            Architecture(
                space,
                tuple(
                    indices[t.params[d.name]]
                    for d, indices in zip(space.dimensions, allowed, strict=True)
                ),
            )
            for t in trials
        ]
        measure(asked)
        idle = idle + 1 if len(measured) == known else 0
        for trial, architecture in zip(trials, asked, strict=True):
            found = measured[name(architecture)]
            study.tell(trial, [found.costs[cost], found.accuracy])
    return pareto_front(measured.values(), cost)
