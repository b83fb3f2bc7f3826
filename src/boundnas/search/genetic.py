"""The genetic search of App. A.3."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import islice

import torch

from boundnas.randomness import stream
from boundnas.search.bench import Bench, Name
from boundnas.search.journal import Evaluation
from boundnas.search.pareto import non_dominated
from boundnas.space import Allowed, Architecture, SearchSpace

REDRAWS = 20
"""How often a child that was measured before is drawn, until its place stays empty."""

IDLE_DRAWS = 100
"""The first population ends after so many draws for each of its places that gave nothing new."""


def genetic_search(
    bench: Bench,
    *,
    largest: Architecture,
    smallest: Architecture,
    allowed: Allowed,
    initial: int = 256,
    rounds: int = 20,
    crossovers: int = 128,
    mutations: int = 128,
    mutation_probability: float = 0.1,
    seed: int,
    costs: Sequence[str] = ("macs",),
) -> list[Evaluation]:
    """The Pareto front of score against costs (App. A.3).

    A random population, then rounds of children of the front of all architectures measured so
    far. What is drawn depends on the seed and on what was measured, never on time: a killed
    search that is started again with its journal finds the same front. Parents keep the values
    they were drawn with, also those that only their children's layers read.

    Args:
        bench: Measures the networks of architectures. A child of a network that is known is
            drawn again.
        largest: Always in the first population: the mode of the max policy.
        smallest: Always in the first population: the mode of the min policy.
        allowed: The options that new values are drawn from.
        initial: Size of the first population, the two extremes included.
        rounds: Rounds of crossover and mutation. A round in which every child was measured
            before ends the search, as in a space that is exhausted.
        crossovers: Children of two different architectures of the front, in a round. While the
            front has one member only, mutations of it.
        mutations: Children of one architecture of the front, in a round.
        mutation_probability: Chance of each dimension to change in a mutation.
        seed: The run's seed.
        costs: Names of what score is traded for.

    Returns:
        The evaluations that no other dominates, in ascending cost.

    Examples:
        >>> from boundnas.space import Dimension
        >>> space = SearchSpace([Dimension("a", (1, 2, 4)), Dimension("b", (1, 2, 4))])
        >>> def measure(batch):
        ...     for arch in batch:
        ...         a, b = arch.values.values()
        ...         costs = {"macs": a * b, "parameters": a + b}
        ...         yield Evaluation(arch, costs, score=(a + 2 * b) / 12, images=100)
        >>> front = genetic_search(
        ...     Bench(measure), seed=0, initial=4,
        ...     largest=space.largest, smallest=space.smallest, allowed=space.whole,
        ... )
        >>> for e in front:
        ...     print(e.costs["macs"], e.architecture)
        1 a=1 b=1
        2 a=1 b=2
        4 a=1 b=4
        8 a=2 b=4
        16 a=4 b=4
    """
    space = largest.space
    drawn = population(space, (largest, smallest), allowed, initial, seed, bench.name)
    bench(drawn.values())
    for number in range(1, rounds + 1):
        front = [drawn[e.architecture] for e in pareto_front(bench.known.values(), costs)]
        mutate = partial(_mutate, front, mutation_probability, allowed)
        cross = partial(_cross, front) if len(front) > 1 else mutate
        children: dict[Architecture, Architecture] = {}
        for count, draw in (
            (crossovers, partial(cross, stream(seed, "search/crossover", number))),
            (mutations, partial(mutate, stream(seed, "search/mutation", number))),
        ):
            children |= _new(count, draw, bench.name, {*drawn, *children})
        if not children:
            break
        bench(children.values())
        drawn |= children
    return pareto_front(bench.known.values(), costs)


def pareto_front(
    evaluations: Iterable[Evaluation], costs: Sequence[str] = ("macs",)
) -> list[Evaluation]:
    """The evaluations that no other dominates in the named costs and score, in ascending cost."""
    found = list(evaluations)
    rows = [[e.costs[name] for name in costs] for e in found]
    return [found[i] for i in non_dominated(rows, [e.score for e in found])]


def population(
    space: SearchSpace,
    extremes: Sequence[Architecture],
    allowed: Allowed,
    size: int,
    seed: int,
    name: Name = lambda architecture: architecture,
) -> dict[Architecture, Architecture]:
    """The extremes and a uniform sample of different networks: ``size``, or all that are found.

    A smaller one is the beginning of a larger one.

    Returns:
        What was drawn, by the name of its network. Less than ``size`` where all architectures
        were drawn, or nothing new in `IDLE_DRAWS` times as many draws as are wanted.
    """
    generator = stream(seed, "search/initial")
    drawn = dict.fromkeys(extremes)
    outside = sum(not _within(architecture, allowed) for architecture in drawn)
    there_are = math.prod(map(len, allowed)) + outside
    found: dict[Architecture, Architecture] = {}
    for architecture in drawn:
        found.setdefault(name(architecture), architecture)
    idle = 0
    while len(found) < size and len(drawn) < there_are and idle < IDLE_DRAWS * size:
        architecture = space.sample(generator, allowed)
        idle += 1
        if architecture not in drawn:
            drawn[architecture] = None
            if found.setdefault(name(architecture), architecture) is architecture:
                idle = 0
    return found


def _within(architecture: Architecture, allowed: Allowed) -> bool:
    return all(i in options for i, options in zip(architecture.indices, allowed, strict=True))


def _mutate(
    front: Sequence[Architecture],
    probability: float,
    allowed: Allowed,
    generator: torch.Generator,
) -> Architecture:
    parent = front[int(torch.randint(len(front), (), generator=generator))]
    return parent.space.mutate(parent, generator, probability, allowed)


def _cross(front: Sequence[Architecture], generator: torch.Generator) -> Architecture:
    i, j = torch.randperm(len(front), generator=generator)[:2].tolist()
    return front[i].space.crossover(front[i], front[j], generator)


def _new(
    count: int, draw: Callable[[], Architecture], name: Name, taken: Collection[Architecture]
) -> dict[Architecture, Architecture]:
    """Up to ``count`` drawn architectures of different networks that are not taken, by name."""
    found: dict[Architecture, Architecture] = {}
    for _ in range(count):
        for child in islice(iter(draw, None), REDRAWS):
            named = name(child)
            if named not in taken and named not in found:
                found[named] = child
                break
    return found
