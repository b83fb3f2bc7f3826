"""Weights that become maps by themselves: rows of a table, and learned maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import join, part
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.width import active, ghosts_of, others
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Dimension, Setting, check_sizes, followed, largest
from boundnas.space.polynomial import Polynomial, amount


class Embedding(ElasticLayer):
    """A table of vectors with a searchable width, of which whole numbers take rows.

    Args:
        number: Rows of the table.
        features: Width of a row.
        padding_idx: A row that is not trained, if any; it starts at zero.

    Shape:
        Whole numbers ``(N, ...)`` to ``(N, ..., active features)``.
    """

    takes = "(N, ...)"
    axis = -1

    def __init__(self, number: int, features: Setting, padding_idx: int | None = None) -> None:
        super().__init__()
        check_sizes("Embedding", number=number, features=features)
        if padding_idx is not None and not 0 <= padding_idx < number:
            raise SpaceError(f"Embedding: padding_idx is a row of {number}, found {padding_idx}")
        self.number, self.features, self.padding_idx = number, features, padding_idx
        self.weight = nn.Parameter(torch.randn(number, largest(features)))
        if padding_idx is not None:
            self.weight.data[padding_idx] = 0

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Look the rows up; see the class for shapes."""
        y = F.embedding(x, active(self.weight, self.features, arch, 1), self.padding_idx)
        if not ghosts_of(self.features, arch):
            return y
        with torch.no_grad():
            rows = part(x, arch.ghost_fraction)
            return join(y, F.embedding(rows, others(self.weight, self.features, arch, 1)))

    def macs(self, positions: int) -> Polynomial:
        """None: rows are read, not multiplied."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """``number * features``."""
        return self.number * amount(self.features)

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.Embedding`` of the active slice."""
        with torch.device("meta"):
            plain = nn.Embedding(self.number, arch.size(self.features), self.padding_idx)
        plain.weight = frozen(active(self.weight, self.features, arch, 1))
        return plain


class Parameter(ElasticLayer):
    """A learned map with a searchable width, the same for every sample.

    Positions to be added to tokens, a class token to be put before them, a scale of each channel::

        x = x + self.positions(x, arch)                    # Parameter((16, width))
        x = torch.cat([self.token(x, arch), x], 1)         # Parameter((1, width))
        x = x * self.scale(x, arch)                        # Parameter((width, 1, 1), mean=1, std=0)

    Args:
        shape: Of one sample; one of the sizes at most is searched.
        mean: Of the values at the start.
        std: Their standard deviation.

    Shape:
        Anything of ``N`` samples, whose values do not matter, to ``(N, *shape)``.
    """

    takes = "(N, ...)"

    def __init__(self, shape: Sequence[Setting], mean: float = 0.0, std: float = 0.02) -> None:
        super().__init__()
        sizes = tuple(shape)
        for size in sizes:
            check_sizes("Parameter", size=size)
        searched = [i for i, size in enumerate(sizes) if followed(size)]
        if len(searched) > 1 or not sizes:
            found = ", ".join(s.name if isinstance(s, Dimension) else str(s) for s in sizes)
            raise SpaceError(
                f"Parameter: one of its sizes at most is searched, found ({found}); build one "
                "that is largest in the others, or a sum of several"
            )
        if not (math.isfinite(mean) and 0 <= std < math.inf):
            raise SpaceError(
                "Parameter: it starts around a mean with a standard deviation of at least 0, "
                f"found {mean} and {std}"
            )
        self.place = searched[0] if searched else 0
        self.axis, self.features = self.place + 1, sizes[self.place]
        self.weight = nn.Parameter(mean + std * torch.randn([largest(s) for s in sizes]))

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """The active slice for every sample of ``x``; see the class for shapes."""
        held = active(self.weight, self.features, arch, self.place)
        y = held.expand(len(x), *held.shape)
        if not ghosts_of(self.features, arch):
            return y
        ghost = others(self.weight.detach(), self.features, arch, self.place)
        return join(y, ghost.expand(len(part(x, arch.ghost_fraction)), *ghost.shape))

    def macs(self, positions: int) -> Polynomial:
        """None."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """The product of its sizes."""
        rest = self.weight.numel() // largest(self.features)
        return rest * amount(self.features)

    def plain(self, arch: Architecture) -> nn.Module:
        """A module that holds the active slice."""
        weight = frozen(active(self.weight, self.features, arch, self.place))
        graph = fx.Graph()
        samples = graph.call_method("size", (graph.placeholder("x"), 0))
        held = graph.get_attr("weight")
        graph.output(graph.call_method("expand", (held, samples, *weight.shape)))
        return fx.GraphModule({"weight": weight}, graph, class_name="Parameter")
