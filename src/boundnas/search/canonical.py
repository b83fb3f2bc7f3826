"""One name for every network: two architectures may differ in nothing that the network has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

import torch

from boundnas.cost import Cost
from boundnas.space import Allowed, Architecture, Derived, Setting, followed
from boundnas.supernet.inputs import zeros
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.trail import Watched

COMBINATIONS = 4096
"""Of options whose values may be equal so many are compared; of more every name is kept apart."""


@dataclass(frozen=True)
class Read:
    """What a pass looks up.

    Args:
        positions: Of dimensions whose option makes a difference.
        values: Further settings that have the same value for several options.
    """

    positions: tuple[int, ...]
    values: tuple[Derived, ...] = ()

    def found(self, arch: Architecture) -> tuple[object, ...]:
        """What it finds in an architecture; equal where the same is found."""
        same = (s.choices.index(arch.value(s)) for s in self.values)
        return (*(arch.indices[i] for i in self.positions), *same)


@torch.no_grad()
def read_by(model: Supernet, arch: Architecture) -> Read:
    """What a pass of ``arch`` looks up, on two empty images."""
    told: set[Setting] = set()
    images = zeros(model, 2)
    with evaluating(model):
        model(images, Watched.of(arch, told.update))
    values = sorted(filter(_repeats, told), key=lambda s: _positions(arch, s))
    direct = {i for s in told.difference(values) for i in _positions(arch, s)}
    values = [s for s in values if not direct.issuperset(_positions(arch, s))]
    free = {i for s in values for i in _positions(arch, s)} - direct
    if math.prod(len(arch.space.dimensions[i]) for i in free) > COMBINATIONS:
        return Read(tuple(sorted(direct | free)))
    return Read(tuple(sorted(direct)), tuple(values))


def _repeats(setting: Setting) -> TypeGuard[Derived]:
    """Whether several options have one value."""
    return isinstance(setting, Derived) and len({*setting.choices}) < len(setting.choices)


def _positions(arch: Architecture, setting: Setting) -> tuple[int, ...]:
    return tuple(map(arch.space.position, followed(setting)))


class Canonical:
    """Names the network of an architecture: what no layer of it reads stands at a fixed option.

    Widths and kernels of layers that depth cuts off, or of a switch that is off, make no
    difference, and neither do options of which all that follows them has the same values. What
    ``forward`` looks up is seen in a pass on two empty images. What a pass does depends on nothing
    but the values it looks up, so an architecture that agrees in all of them is the same network,
    whatever the forward is; one pass answers for all of its names. A forward that looks at all
    dimensions at once keeps every name apart.

    Args:
        model: The supernet.
        allowed: Of each dimension the options that may be drawn; the first of them that makes no
            difference stands for the others.
        costs: Names that one of these tells apart stay different.
    """

    def __init__(self, model: Supernet, allowed: Allowed, costs: Iterable[Cost] = ()) -> None:
        self.model, self.costs = model, tuple(costs)
        self.options = tuple(
            tuple(dict.fromkeys((*some, *every)))
            for some, every in zip(allowed, model.space.whole, strict=True)
        )
        self._told: dict[Architecture, Architecture] = {}
        self._names: dict[Read, dict[tuple[object, ...], Architecture]] = {}

    def __call__(self, arch: Architecture) -> Architecture:
        """The one name of the network that ``arch`` names."""
        if arch not in self._told:
            found = self._known(arch) or self._followed(arch)
            same_costs = all(cost(found) == cost(arch) for cost in self.costs)
            self._told[arch.plain] = found if same_costs else arch.plain
        return self._told[arch]

    def _known(self, arch: Architecture) -> Architecture | None:
        """By what earlier passes looked up, and the values they found."""
        for read, names in self._names.items():
            found = names.get(read.found(arch))
            if found is not None:
                return found
        return None

    def _followed(self, arch: Architecture) -> Architecture:
        read = read_by(self.model, arch)
        found = self._first(arch, read)
        self._names.setdefault(read, {})[read.found(arch)] = found
        return found

    def _first(self, arch: Architecture, read: Read) -> Architecture:
        """The first architecture in which a pass finds the same."""
        free = sorted(
            {i for s in read.values for i in _positions(arch, s)}.difference(read.positions)
        )
        indices = [options[0] for options in self.options]
        for i in read.positions:
            indices[i] = arch.indices[i]
        wanted = read.found(arch)
        for some in itertools.product(*(self.options[i] for i in free)):
            for i, option in zip(free, some, strict=True):
                indices[i] = option
            found = Architecture(self.model.space, tuple(indices))
            if read.found(found) == wanted:
                break
        return found
