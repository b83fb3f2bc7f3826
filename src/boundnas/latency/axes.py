"""What the time of every block depends on: found by looking at what blocks compute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from boundnas.errors import CostError
from boundnas.latency.blocks import Block, blocks_of
from boundnas.space import Architecture, Derived, Dimension, Joined
from boundnas.space.dimensions import searched
from boundnas.supernet.extract import outlined
from boundnas.supernet.paths import paths
from boundnas.supernet.supernet import Supernet

TOGETHER = 4096
"""Most combinations of options that one block is measured in."""

PRODUCTS = 3
"""Of more numbers than these that a block follows, those of other layers count by their sum."""


class Sketch(NamedTuple):
    """What a block computes in an architecture: see `Block`; ``size`` numbers are its inputs."""

    signature: str
    kind: str
    size: int
    modules: frozenset[str]


class Sketches:
    """The blocks of architectures by their names; each architecture is extracted once.

    Args:
        model: The supernet.
        batch: Number of samples.
    """

    def __init__(self, model: Supernet, batch: int) -> None:
        self.model, self.batch = model, batch
        self.held: dict[Architecture, dict[str, Sketch]] = {}
        self.places: dict[str, tuple[Architecture, str]] = {}
        """Of every signature an architecture and the block in it."""
        self._texts: dict[str, str] = {}

    def __call__(self, arch: Architecture) -> Mapping[str, Sketch]:
        """The blocks of an architecture."""
        if arch not in self.held:
            blocks = self.blocks(arch)
            self.held[arch] = {name: self._sketch(block) for name, block in blocks.items()}
            for name, block in blocks.items():
                self.places.setdefault(block.signature, (arch, name))
        return self.held[arch]

    def blocks(self, arch: Architecture) -> dict[str, Block]:
        """Likewise, to be measured."""
        return {b.name: b for b in blocks_of(outlined(self.model, arch), self.batch)}

    def _sketch(self, block: Block) -> Sketch:
        signature, kind = (self._texts.setdefault(t, t) for t in (block.signature, block.kind))
        size = sum(x.numel() for x in block.inputs)
        return Sketch(signature, kind, size, block.modules)


Key = tuple[int, ...]
"""What decides how long a block takes: of each of its axes an option, or which end of a sum."""


@dataclass
class Axes:
    """What a block depends on.

    Args:
        name: The block.
        base: An architecture that has it.
        alike: Of every dimension that it follows, for each option one that is as good.
        gone: Options with which there is no such block.
        numbers: Dimensions that change how large it is and not what it does.
        shares: Of dimensions that count by their sum, how much of the sum is each one's.
    """

    name: str
    base: Architecture
    alike: dict[Dimension, tuple[int, ...]] = field(default_factory=dict)
    gone: dict[Dimension, frozenset[int]] = field(default_factory=dict)
    numbers: set[Dimension] = field(default_factory=set)
    shares: dict[Dimension, float] = field(default_factory=dict)

    @property
    def single(self) -> list[Dimension]:
        """Dimensions that are axes by themselves, in the order of the space."""
        found = self.alike.keys() - self.shares.keys()
        return sorted(found, key=self.base.space.position)

    def is_gone(self, arch: Architecture) -> bool:
        """Whether an architecture surely has no such block."""
        return any(arch.option(d) in options for d, options in self.gone.items())

    def key(self, arch: Architecture) -> Key | None:
        """What decides in an architecture; none where a sum is at neither end."""
        chosen = tuple(self.alike[d][arch.option(d)] for d in self.single)
        if not self.shares:
            return chosen
        ends = {arch.option(d) / (len(d) - 1) for d in self.shares}
        return (*chosen, int(ends.pop())) if len(ends) == 1 and ends <= {0, 1} else None

    def options(self, key: Key) -> dict[Dimension, int]:
        """What a key asks of an architecture."""
        found = dict(zip(self.single, key, strict=False))
        return found | {d: key[-1] * (len(d) - 1) for d in self.shares}

    def rest(self, arch: Architecture) -> Key:
        """What decides, in an architecture, what the block does, whatever its size."""
        single = [d for d in self.single if d not in self.numbers]
        return tuple(self.alike[d][arch.option(d)] for d in single)

    def separate(self, dimension: Dimension, is_number: bool) -> None:
        """Every option of a dimension counts by itself, as a size or as another thing to do."""
        self.alike[dimension] = tuple(range(len(dimension)))
        self.gone.pop(dimension, None)
        self.numbers.discard(dimension)
        if is_number and counts(dimension):
            self.numbers.add(dimension)
        elif share := self.shares.pop(dimension, 0.0):
            self.shares = {d: s / (1 - share) for d, s in self.shares.items()}


def counts(dimension: Dimension) -> bool:
    """Whether options between the ends may be interpolated."""
    return len(dimension) > 2 and not isinstance(dimension.choices[0], str | bool)


def met(sketches: Sketches, base: Architecture, known: Collection[str]) -> dict[str, Axes]:
    """Of the blocks of an architecture that are not known, what they depend on.

    As far as it shows when dimensions are changed there. Those that layers of one block look up are
    changed one at a time, and others together with them.
    """
    here = sketches(base)
    new = {name: Axes(name, base) for name in here if name not in known}
    if not new:
        return new
    asked = paths(sketches.model).trail(base).asked
    likely = {
        name: frozenset[Dimension]().union(*(asked.get(m, ()) for m in here[name].modules))
        for name in new
    }
    for group in _apart(base.space.dimensions, likely.values()):
        _look(sketches, new, likely, group)
    for axes in new.values():
        _sum_up(axes, sketches.model)
    return new


def _apart(
    dimensions: Sequence[Dimension], together: Collection[frozenset[Dimension]]
) -> list[list[Dimension]]:
    """Dimensions in groups, of which no two are in one of these sets."""
    groups: list[list[Dimension]] = []
    for dimension in dimensions:
        if len(dimension) > 1:
            near = frozenset[Dimension]().union(*(s for s in together if dimension in s))
            free = (group for group in groups if near.isdisjoint(group))
            group = next(free, None)
            if group is None:
                groups.append([dimension])
            else:
                group.append(dimension)
    return groups


def _look(
    sketches: Sketches,
    new: Mapping[str, Axes],
    likely: Mapping[str, frozenset[Dimension]],
    group: Sequence[Dimension],
) -> None:
    """Note what other options of dimensions do, each to the blocks that are likely to follow it."""
    base = next(iter(new.values())).base
    far = {d: 0 if base.option(d) == len(d) - 1 else len(d) - 1 for d in group}
    other = _with(base, far)
    here, there = sketches(base), sketches(other)
    steps = []
    for name, axes in new.items():
        if _text(here, name) == _text(there, name):
            continue
        alike = name in there and here[name].kind == there[name].kind
        dimension = next((d for d in group if d in likely[name]), None)
        if dimension is None:
            continue  # it is found where what was seen here is contradicted
        if alike and counts(dimension):
            axes.separate(dimension, is_number=True)
            axes.shares[dimension] = abs(here[name].size - there[name].size)
        else:
            steps.append((axes, dimension))
    _look_at_each(sketches, base, steps)


def _look_at_each(
    sketches: Sketches, base: Architecture, steps: Sequence[tuple[Axes, Dimension]]
) -> None:
    """Note which options of a dimension are as good as one another for a block."""
    dimensions = {d for _, d in steps}
    each = [
        sketches(_with(base, {d: min(j, len(d) - 1) for d in dimensions}))
        for j in range(max(map(len, dimensions), default=0))
    ]
    for axes, dimension in steps:
        texts = [_text(sketch, axes.name) for sketch in each[: len(dimension)]]
        own = base.option(dimension)
        alike = {text: j for j, text in enumerate(texts)} | {texts[own]: own}
        axes.alike[dimension] = tuple(alike[text] for text in texts)
        gone = frozenset(j for j, text in enumerate(texts) if text is None)
        if gone:
            axes.gone[dimension] = gone


def _with(arch: Architecture, options: Mapping[Dimension, int]) -> Architecture:
    for dimension, option in options.items():
        arch = arch.with_option(dimension, option)
    return arch


def _text(sketch: Mapping[str, Sketch], name: str) -> str | None:
    return sketch[name].signature if name in sketch else None


def _sum_up(axes: Axes, model: Supernet) -> None:
    """Of many numbers, as where many maps lie side by side, count those of other layers by their
    sum, each as far as it changes how much the block takes.
    """
    sizes = {d: size for d, size in axes.shares.items() if size and d not in _own(axes, model)}
    many = len(axes.numbers) > PRODUCTS and len(sizes) > 1
    axes.shares = {d: size / sum(sizes.values()) for d, size in sizes.items()} if many else {}
    check_few(axes)


def _own(axes: Axes, model: Supernet) -> set[Dimension]:
    """What the layer of a block follows, but for widths of several maps side by side."""
    layer = dict(model.named_modules()).get(axes.name)
    settings = [] if layer is None else list(vars(layer).values())
    groups = [searched(s) for s in settings if isinstance(s, Dimension | Derived | Joined)]
    return {d for group in groups if len(group) == 1 for d in group[0]}


def check_few(axes: Axes) -> None:
    """Refuse a block that depends on too much.

    Raises:
        CostError: Names what it depends on.
    """
    fixed = (len({*axes.alike[d]}) for d in axes.single if d not in axes.numbers)
    number = prod(fixed) * 2 ** (len(axes.numbers) + bool(axes.shares) - len(axes.shares))
    if number > TOGETHER:
        names = ", ".join(d.name for d in axes.single)
        raise CostError(
            f"{axes.name}: how long it takes depends on {names} together, so that it would be "
            f"measured in {number} ways; let fewer dimensions meet in one layer"
        )


def culprit(
    a: Architecture, b: Architecture, differ: Callable[[Architecture, Architecture], bool]
) -> tuple[Dimension, Architecture, Architecture]:
    """A dimension that makes a difference on the way from one architecture to another.

    Args:
        a: An architecture.
        b: One that differs from it.
        differ: Whether two do.

    Returns:
        The dimension, and two architectures that differ in it alone.
    """
    changed = [d for d in a.space.dimensions if a.option(d) != b.option(d)]
    while len(changed) > 1:
        middle = a
        for dimension in changed[: len(changed) // 2]:
            middle = middle.with_option(dimension, b.option(dimension))
        a, b = (a, middle) if differ(a, middle) else (middle, b)
        changed = [d for d in changed if a.option(d) != b.option(d)]
    return changed[0], a, b
