"""Which blocks are measured so that every architecture's time is known, from coarse to fine.

Every block depends on some dimensions, its axes. Where a dimension changes how large a block is,
options at its ends are measured and those between them interpolated; the next level measures the
middle, too, and so on until the last level has them all. Other options are all measured. Blocks
that compute the same on the same shapes are measured once, wherever they occur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, pairwise, product
from typing import NamedTuple

import numpy as np

from boundnas.cost.table import Axis, BlockTimes
from boundnas.errors import CostError
from boundnas.latency.axes import Axes, Key, Sketch, Sketches, check_few, culprit, met
from boundnas.latency.blocks import Block
from boundnas.randomness import stream
from boundnas.space import Architecture, Dimension
from boundnas.supernet.paths import paths
from boundnas.supernet.signature import digest
from boundnas.supernet.supernet import Supernet

CHECKED = 5
"""So many random architectures of a level, and of the whole space, are looked at whether their
blocks are those that were predicted; as many more whenever they are not."""


class _Seen(NamedTuple):
    """A block in an architecture; none where it has no such block."""

    arch: Architecture
    sketch: Sketch | None


class Plan:
    """What is measured of a supernet, level by level.

    Args:
        model: The supernet.
        batch: Number of samples in a pass.

    Raises:
        CostError: A block depends on too much, or cannot be timed by itself.
    """

    def __init__(self, model: Supernet, batch: int = 1) -> None:
        self.model, self.batch = model, batch
        self._sketches = Sketches(model, batch)
        self._axes: dict[str, Axes] = {}
        self._seen: dict[tuple[str, Key], _Seen] = {}
        self._kinds: dict[tuple[str, Key], _Seen] = {}
        self._changes = 0
        self._needed: list[tuple[str, ...]] = []
        for arch in _having_all(model):
            self._note(arch)

    @property
    def levels(self) -> int:
        """How many there are, from the coarsest on."""
        numbers = {d for axes in self._axes.values() for d in axes.numbers}
        return 1 + max((_finest(len(d)) for d in numbers), default=0)

    def signatures(self, level: int) -> tuple[str, ...]:
        """What blocks compute that a level measures and the coarser ones did not."""
        while len(self._needed) <= level:
            now = len(self._needed)
            self._complete(now)
            before = {s for signatures in self._needed for s in signatures}
            needed = dict.fromkeys(self._on_grid(now))
            self._needed.append(tuple(s for s in needed if s not in before))
        return self._needed[level]

    def blocks(self, signatures: Iterable[str]) -> Iterator[Block]:
        """A block of each signature; those of one network together, whatever their order here."""
        wanted: dict[Architecture, list[str]] = {}
        for signature in signatures:
            arch, name = self._sketches.places[signature]
            wanted.setdefault(arch, []).append(name)
        for arch, names in wanted.items():
            blocks = self._sketches.blocks(arch)
            yield from (blocks[name] for name in names)

    def times(self, measured: Mapping[str, int]) -> tuple[BlockTimes, ...]:
        """Times of all blocks, each on the finest grid that is measured whole.

        Args:
            measured: Nanoseconds by the digest of a signature, of the coarsest level and of finer
                ones as far as it went.

        Raises:
            CostError: Not even the coarsest grid of a block is; names the block.
        """
        known = self._known(measured)
        return tuple(self._of_block(axes, known) for axes in self._axes.values())

    def _known(self, measured: Mapping[str, int]) -> dict[str, int]:
        """Nanoseconds by signature; looked at are no levels beyond those that were measured."""
        known, level = dict[str, int](), 0
        while len(known) < len(measured) and level < self.levels:
            signatures = self.signatures(level)
            new = {s: measured[d] for s in signatures if (d := digest(s)) in measured}
            if signatures and not new:
                break
            known |= new
            level += 1
        return known

    def _of_block(self, axes: Axes, measured: Mapping[str, int]) -> BlockTimes:
        for level in reversed(range(self.levels)):
            found = [self._seen.get((axes.name, key)) for key in _keys(axes, level)]
            sketches = [seen.sketch for seen in found if seen is not None]
            if len(sketches) == len(found) and all(
                s is None or s.signature in measured for s in sketches
            ):
                times = tuple(0 if s is None else measured[s.signature] for s in sketches)
                return BlockTimes(name=axes.name, axes=tuple(_axes_at(axes, level)), times=times)
        raise CostError(
            f"{axes.name}: not all of its coarsest grid is measured, so that nothing is known of "
            "its time; measure the signatures of level 0"
        )

    def _on_grid(self, level: int) -> Iterator[str]:
        for axes in self._axes.values():
            for key in _keys(axes, level):
                sketch = self._seen[axes.name, key].sketch
                if sketch is not None:
                    yield sketch.signature

    def _complete(self, level: int) -> None:
        """Look at architectures until all of a level's grid is seen, and what is seen elsewhere is
        as predicted.
        """
        for turn in count():
            while missing := [
                (axes, key)
                for axes in self._axes.values()
                for key in _keys(axes, level)
                if (axes.name, key) not in self._seen
            ]:
                self._note(_serving(missing))
            before = self._changes
            for arch in self._drawn(level, turn):
                self._note(arch)
            if self._changes == before:
                return

    def _drawn(self, level: int, turn: int) -> Iterator[Architecture]:
        space = self.model.space
        numbers = {d for axes in self._axes.values() for d in axes.numbers}
        on_grid = tuple(
            _refined(len(d), level) if d in numbers else tuple(range(len(d)))
            for d in space.dimensions
        )
        for number in range(CHECKED):
            for name, allowed in (("grid", on_grid), ("space", space.whole)):
                generator = stream(0, f"latency {name} {level} {turn}", number)
                yield space.sample(generator, allowed)

    def _note(self, arch: Architecture) -> None:
        """Look at an architecture; where it contradicts what is known, more is made known."""
        for axes in met(self._sketches, arch, self._axes).values():
            self._axes[axes.name] = axes
            self._learn(axes)
        for axes in self._axes.values():
            self._record(axes, arch)

    def _learn(self, axes: Axes) -> None:
        """Take up again all that was seen of a block."""
        self._changes += 1
        for held in (self._seen, self._kinds):
            for name, key in [each for each in held if each[0] == axes.name]:
                del held[name, key]
        for arch in list(self._sketches.held):
            self._record(axes, arch)

    def _record(self, axes: Axes, arch: Architecture) -> None:
        seen = _Seen(arch, self._sketches(arch).get(axes.name))
        if axes.is_gone(arch):
            if seen.sketch is not None:
                for dimension in list(axes.gone):
                    axes.separate(dimension, is_number=False)
                self._learn(axes)
            return
        if seen.sketch is not None:
            kind = axes.name, axes.rest(arch)
            if self._contradicts(axes, self._kinds.setdefault(kind, seen), seen, _kind):
                return
        if (key := axes.key(arch)) is not None:
            known = self._seen.setdefault((axes.name, key), seen)
            self._contradicts(axes, known, seen, _signature)

    def _contradicts(
        self, axes: Axes, known: _Seen, seen: _Seen, what: Callable[[Sketch | None], str | None]
    ) -> bool:
        """Where two differ that should be alike, find out what else the block depends on."""
        if what(known.sketch) == what(seen.sketch):
            return False

        def of(arch: Architecture) -> Sketch | None:
            return self._sketches(arch).get(axes.name)

        dimension, a, b = culprit(known.arch, seen.arch, lambda a, b: what(of(a)) != what(of(b)))
        alike = None not in (of(a), of(b)) and _kind(of(a)) == _kind(of(b))
        axes.separate(dimension, is_number=alike)
        check_few(axes)
        self._learn(axes)
        return True


def _having_all(model: Supernet) -> Iterator[Architecture]:
    """Architectures that together use every layer, and the smallest."""
    found, largest = paths(model), model.space.largest
    yield from (largest, model.space.smallest)
    for name in found.uses:
        if not found.positions(name, largest):
            yield next(arch for arch in found.probes if found.positions(name, arch))


def _signature(sketch: Sketch | None) -> str | None:
    return None if sketch is None else sketch.signature


def _kind(sketch: Sketch | None) -> str | None:
    return None if sketch is None else sketch.kind


def _serving(missing: list[tuple[Axes, Key]]) -> Architecture:
    """An architecture with the first of these, and with as many others as go together."""
    first, key = missing[0]
    options = first.options(key)
    for axes, key in missing[1:]:
        asked = axes.options(key)
        if all(options.get(d, j) == j for d, j in asked.items()):
            options |= asked
    arch = first.base
    for dimension, option in options.items():
        arch = arch.with_option(dimension, option)
    return arch


def _refined(number: int, level: int) -> tuple[int, ...]:
    """Of so many options the ends; at every level also the middle of each two that are known.

    Examples:
        >>> [_refined(8, level) for level in range(3)]
        [(0, 7), (0, 3, 7), (0, 1, 3, 5, 7)]
    """
    found = {0, number - 1}
    for _ in range(level):
        ordered = sorted(found)
        found |= {(a + b) // 2 for a, b in pairwise(ordered)}
    return tuple(sorted(found))


def _finest(number: int) -> int:
    """The level that has all of so many options."""
    return next(level for level in count() if len(_refined(number, level)) == number)


def _points(axes: Axes, dimension: Dimension, level: int) -> tuple[int, ...]:
    """The options of a dimension that a level measures."""
    if dimension in axes.numbers:
        return _refined(len(dimension), level)
    there = {*axes.alike[dimension]} - axes.gone.get(dimension, frozenset())
    return tuple(sorted(there))


def _keys(axes: Axes, level: int) -> Iterator[Key]:
    """Everything that a level measures of a block, the last axis first."""
    ends = [(0, 1)] if axes.shares else []
    return product(*(_points(axes, d, level) for d in axes.single), *ends)


def _axes_at(axes: Axes, level: int) -> Iterator[Axis]:
    """The axes of a block as they stand in a table."""
    for dimension in axes.single:
        points = _points(axes, dimension, level)
        if dimension in axes.numbers:
            at: list[float | None] = [*_between(dimension.numbers, points)]
        else:
            like = (axes.alike[dimension][j] for j in range(len(dimension)))
            at = [float(points.index(j)) if j in points else None for j in like]
        yield Axis(dimensions=(dimension.name,), points=len(points), at=(tuple(at),))
    if axes.shares:
        parts = [
            tuple(share * x for x in _between(d.numbers, (0, len(d) - 1)))
            for d, share in axes.shares.items()
        ]
        yield Axis(dimensions=tuple(d.name for d in axes.shares), points=2, at=tuple(parts))


def _between(numbers: Sequence[float], points: Sequence[int]) -> list[float]:
    """Where numbers lie among some of them.

    Examples:
        >>> _between((4, 5, 8, 16), (0, 2, 3))
        [0.0, 0.25, 1.0, 2.0]
    """
    measured = [numbers[j] for j in points]
    return [float(x) for x in np.interp(numbers, measured, range(len(points)))]
