"""One name for every network: two architectures may differ in nothing that the network has."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from boundnas.cost import Cost
from boundnas.space import Allowed, Architecture, Dimension
from boundnas.supernet.inputs import zeros
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.trail import Watched


@torch.no_grad()
def read_by(model: Supernet, arch: Architecture) -> tuple[int, ...]:
    """Positions of the dimensions that a pass of ``arch`` looks up, on two empty images."""
    read: set[Dimension] = set()
    images = zeros(model, 2)
    with evaluating(model):
        model(images, Watched.of(arch, read.update))
    return tuple(sorted(map(arch.space.position, read)))


class Canonical:
    """Names the network of an architecture: what no layer of it reads stands at a fixed option.

    Widths and kernels of layers that depth cuts off, or of a switch that is off, make no
    difference. Which dimensions ``forward`` looks up is seen in a pass on two empty images. What a
    pass does depends on nothing but the values it looks up, so an architecture that agrees in all
    of them is the same network, whatever the forward is; one pass answers for all of its names.
    A forward that looks at all dimensions at once keeps every name apart.

    Args:
        model: The supernet.
        allowed: Of each dimension the options that may be drawn; the first stands for unread ones.
        costs: Names that one of these tells apart stay different.
    """

    def __init__(self, model: Supernet, allowed: Allowed, costs: Iterable[Cost] = ()) -> None:
        self.model, self.costs = model, tuple(costs)
        self.first = tuple(options[0] for options in allowed)
        self._told: dict[Architecture, Architecture] = {}
        self._names: dict[tuple[int, ...], dict[tuple[int, ...], Architecture]] = {}

    def __call__(self, arch: Architecture) -> Architecture:
        """The one name of the network that ``arch`` names."""
        if arch not in self._told:
            found = self._known(arch) or self._followed(arch)
            same_costs = all(cost(found) == cost(arch) for cost in self.costs)
            self._told[arch.plain] = found if same_costs else arch.plain
        return self._told[arch]

    def _known(self, arch: Architecture) -> Architecture | None:
        """By the dimensions that earlier passes looked up, each with the values they found."""
        for positions, names in self._names.items():
            found = names.get(tuple(arch.indices[i] for i in positions))
            if found is not None:
                return found
        return None

    def _followed(self, arch: Architecture) -> Architecture:
        positions, indices = read_by(self.model, arch), list(self.first)
        for i in positions:
            indices[i] = arch.indices[i]
        found = Architecture(self.model.space, tuple(indices))
        values = tuple(arch.indices[i] for i in positions)
        self._names.setdefault(positions, {})[values] = found
        return found
