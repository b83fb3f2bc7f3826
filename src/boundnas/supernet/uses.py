"""What of a network depends on which dimensions, found out by trying architectures.

Where architectures differ in a part, dimensions are changed until it is known which ones the part
depends on, and all combinations of these are tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from boundnas.errors import CostError
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.space.polynomial import Polynomial, amount, chosen

TOGETHER = 256
"""Most combinations of options that are run, of what ``forward`` looks up or a use depends on."""


@dataclass(frozen=True)
class Use:
    """How a layer is used, beyond what the elastic module around it says.

    Args:
        dimensions: What its use depends on; none for a layer that is always used alike.
        table: Output positions for each combination of their options; of functions, by the name
            of the module that calls them and ``()``, their multiply-accumulates.
    """

    dimensions: tuple[Dimension, ...]
    table: Mapping[tuple[int, ...], int]

    def cases(self) -> Iterator[tuple[int, Polynomial]]:
        """Numbers of positions above zero, and a polynomial that is one where each holds."""
        for positions in sorted({v for v in self.table.values() if v}):
            combinations = [c for c, v in self.table.items() if v == positions]
            if not self.dimensions:
                yield positions, amount(1)
                continue
            *outer, last = self.dimensions
            total = amount(0)
            for first in dict.fromkeys(c[:-1] for c in combinations):
                ends = {c[-1] for c in combinations if c[:-1] == first}
                term = chosen(last, ends)
                for dimension, index in zip(outer, first, strict=True):
                    term = chosen(dimension, {index}) * term
                total = total + term
            yield positions, total


class Uses:
    """Finds how parts of a network are used over a whole space.

    Args:
        space: The space.
        presence: For every part the conditions under which it is there; of parts that are there
            against them, they are dropped.
        number: Of a part in an architecture: zero where it is not there, else what tells how it
            is used.
    """

    def __init__(
        self,
        space: SearchSpace,
        presence: dict[str, tuple[Polynomial, ...]],
        number: Callable[[str, Architecture], int],
    ) -> None:
        self.space, self.presence, self.number = space, presence, number
        self.moving: list[Dimension] = []
        """What the use of any part was found to depend on."""

    def find(self, names: Collection[str], probes: Sequence[Architecture]) -> dict[str, Use]:
        """Of every part; of those that the largest architecture lacks, with probes of their own.

        Few of the others may have such a part, and all of these in one resolution. So it is tried
        with all that any other part's use depends on.

        Args:
            names: The parts, each of which one of the architectures has.
            probes: Architectures, in which every option of every dimension occurs.

        Raises:
            CostError: A use depends on too much.
        """
        largest = self.space.largest
        found = {n: self._use(n, largest, probes) for n in names if self.number(n, largest)}
        known = tuple(sorted(self.moving, key=self.space.position))
        for name in names:
            if name in found:
                continue
            base = next((a for a in probes if self.number(name, a)), largest)
            few = math.prod(map(len, known)) <= TOGETHER
            options = itertools.product(*(range(len(d)) for d in known)) if few else ()
            further = [with_options(base, known, indices) for indices in options]
            found[name] = self._use(name, base, [*probes, *further])
        return {name: found[name] for name in names}

    def _use(self, name: str, base: Architecture, probes: Sequence[Architecture]) -> Use:
        """What the use depends on, starting from an architecture that has the layer."""
        if any(self.number(name, a) and not self._present(name, a) for a in probes):
            self.presence[name] = ()  # the elastic modules around it do not tell when it is used
        dimensions: tuple[Dimension, ...] = ()
        while True:
            use = self._table(name, base, dimensions)
            wrong = next((a for a in probes if not self._agrees(name, use, a)), None)
            if wrong is None:
                return use
            found = self._matters(name, base, dimensions, wrong)
            dimensions = tuple(sorted({*dimensions, found}, key=self.space.position))

    def _present(self, name: str, arch: Architecture) -> bool:
        return all(condition.value(arch) for condition in self.presence[name])

    def _table(self, name: str, base: Architecture, dimensions: tuple[Dimension, ...]) -> Use:
        if math.prod(map(len, dimensions)) > TOGETHER:
            raise CostError(
                f"{name}: whether and where forward uses it depends on "
                f"{', '.join(d.name for d in dimensions)} together, in more than {TOGETHER} "
                "combinations, so its cost is not known; use elastic.Stage for depth, and let "
                "forward look fewer dimensions up"
            )
        options = itertools.product(*(range(len(d)) for d in dimensions))
        return Use(
            dimensions,
            {c: self.number(name, with_options(base, dimensions, c)) for c in options},
        )

    def _agrees(self, name: str, use: Use, arch: Architecture) -> bool:
        if not self._present(name, arch):
            return True  # not called there, as `_use` has seen to
        key = tuple(arch.indices[self.space.position(d)] for d in use.dimensions)
        return self.number(name, arch) == use.table[key]

    def _matters(
        self, name: str, base: Architecture, known: Sequence[Dimension], arch: Architecture
    ) -> Dimension:
        """A further dimension that the part's use depends on, on the way to ``arch``.

        Those that others depend on are tried first; else the way is halved again and again.
        """
        at = arch.space.position
        here = with_options(base, known, [arch.indices[at(d)] for d in known])
        number = self.number(name, here)
        for dimension in self.moving:
            if (
                self.number(name, here.with_option(dimension, arch.indices[at(dimension)]))
                != number
            ):
                return dimension
        alike, other = 0, len(arch.indices)
        while other - alike > 1:
            half = (alike + other) // 2
            there = Architecture(self.space, arch.indices[:half] + here.indices[half:])
            alike, other = (half, other) if self.number(name, there) == number else (alike, half)
        if self.number(name, arch) != number:
            self.moving.append(self.space.dimensions[alike])
            return self.space.dimensions[alike]
        raise CostError(
            f"{name}: forward does not use it alike in two runs of one architecture, so its cost "
            "is not known; forward may depend on weights, input and arch only"
        )


def with_options(
    arch: Architecture, dimensions: Sequence[Dimension], indices: Sequence[int]
) -> Architecture:
    """An architecture with these options of these dimensions."""
    for dimension, index in zip(dimensions, indices, strict=True):
        arch = arch.with_option(dimension, index)
    return arch
