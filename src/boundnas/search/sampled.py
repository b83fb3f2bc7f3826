"""Searches by Optuna's samplers: NSGA-II, and a tree-structured Parzen estimator as the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from boundnas.extras import require
from boundnas.search.bench import Bench
from boundnas.search.genetic import pareto_front
from boundnas.search.journal import Evaluation
from boundnas.space import Allowed, Architecture

if TYPE_CHECKING:
    import optuna

METHODS = ("nsga2", "tpe")

BATCH = 32
"""Architectures that are asked for before the sampler is told what any of them is worth."""

IDLE_BATCHES = 4
"""After so many batches in a row with nothing new the search ends, as in an exhausted space."""


def sampled_search(
    bench: Bench,
    *,
    method: str,
    largest: Architecture,
    smallest: Architecture,
    allowed: Allowed,
    total: int,
    population: int,
    seed: int,
    costs: Sequence[str] = ("macs",),
) -> list[Evaluation]:
    """Pareto front of costs against score, by a sampler that is told what it asked for.

    With the same arguments it asks for the same architectures, so a journal resumes it.

    Args:
        bench: Measures the networks of architectures.
        method: ``"nsga2"`` (Deb et al. 2002) or ``"tpe"`` (multi-objective, Ozaki et al. 2022).
        largest: Measured first; the mode of the max policy.
        smallest: Likewise, of the min policy.
        allowed: The options of each dimension, searched as ordinal ones.
        total: Architectures to measure.
        population: Of a generation of NSGA-II; random architectures before the model of TPE.
        seed: The run's seed.
        costs: Names of what score is traded for.

    Returns:
        The evaluations that no other dominates, in ascending cost.
    """
    require(f"search.method: {method}", "optuna")
    import optuna  # slow to import
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = _sampler(method, population, seed % 2**32)
    directions = [StudyDirection.MINIMIZE] * len(costs) + [StudyDirection.MAXIMIZE]
    study = optuna.create_study(directions=directions, sampler=sampler)
    space = largest.space
    options = {
        d.name: optuna.distributions.IntDistribution(0, len(indices) - 1)
        for d, indices in zip(space.dimensions, allowed, strict=True)
    }

    def architecture(params: Mapping[str, int]) -> Architecture:
        rows = zip(space.dimensions, allowed, strict=True)
        return Architecture(space, tuple(indices[params[d.name]] for d, indices in rows))

    bench([largest, smallest])
    idle = 0
    while len(bench.known) < total and idle < IDLE_BATCHES:
        known = len(bench.known)
        trials = [study.ask(dict(options)) for _ in range(min(BATCH, total - known))]
        found = bench(architecture(trial.params) for trial in trials)
        idle = idle + 1 if len(bench.known) == known else 0
        for trial, evaluation in zip(trials, found, strict=True):
            study.tell(trial, [*(evaluation.costs[name] for name in costs), evaluation.score])
    return pareto_front(bench.known.values(), costs)


def _sampler(method: str, population: int, seed: int) -> optuna.samplers.BaseSampler:
    from optuna import samplers

    if method == "nsga2":
        return samplers.NSGAIISampler(population_size=population, seed=seed)
    return samplers.TPESampler(n_startup_trials=population, seed=seed)
