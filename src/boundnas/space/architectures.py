"""Search spaces and the architectures they span (Sec. 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from boundnas.errors import SpaceError
from boundnas.space.dimensions import (
    Allowed,
    Derived,
    Dimension,
    Joined,
    Setting,
    Value,
    Width,
    difference,
    followed,
    place,
    searched,
    whole_numbers,
)
from boundnas.space.passes import NOTHING, Pass
from boundnas.typed import check_argument


class SearchSpace:
    """The Cartesian product of its dimensions, in a fixed order.

    Raises:
        SpaceError: No dimension, or two of the same name.
    """

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.dimensions = tuple(dimensions)
        self._position = {d.name: i for i, d in enumerate(self.dimensions)}
        if not self.dimensions:
            raise SpaceError("a search space needs at least one dimension, found none")
        if len(self._position) != len(self.dimensions):
            names = [d.name for d in self.dimensions]
            twice = sorted({n for n in names if names.count(n) > 1})
            raise SpaceError(f"dimension names must differ, found twice: {', '.join(twice)}")

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, SearchSpace) and self.dimensions == other.dimensions
        )

    def __hash__(self) -> int:
        return hash(self.dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    def __repr__(self) -> str:
        return f"SearchSpace({len(self)} dimensions, {self.size:.3g} architectures)"

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(d) for d in self.dimensions)

    @property
    def largest(self) -> Architecture:
        """The last option everywhere: the supernet itself."""
        return Architecture(self, tuple(len(d) - 1 for d in self.dimensions))

    @property
    def smallest(self) -> Architecture:
        """The first option everywhere."""
        return Architecture(self, (0,) * len(self))

    def position(self, dimension: Dimension) -> int:
        """Where ``dimension`` stands in the order of the space.

        Raises:
            SpaceError: The dimension is not of this space.
        """
        if not isinstance(dimension, Dimension):
            raise SpaceError(
                f"an architecture is asked for a dimension itself, as arch[self.width], found "
                f"{dimension!r}; by their names values are in arch.values"
            )
        i = self._position.get(dimension.name, -1)
        if i < 0 or (self.dimensions[i] is not dimension and self.dimensions[i] != dimension):
            raise SpaceError(
                f"{dimension.name}: not a dimension of this space, "
                f"which has {', '.join(self._position)}"
            )
        return i

    def architecture(self, values: Mapping[str, Value]) -> Architecture:
        """The architecture with these values, as ``Architecture.values`` gives them.

        Raises:
            SpaceError: A dimension is missing or unknown, or a value is not a choice.
        """
        check_argument("SearchSpace.architecture", "values", values, Mapping)
        unknown = sorted(set(values) - set(self._position), key=str)
        missing = [name for name in self._position if name not in values]
        if unknown or missing:
            raise SpaceError(
                "an architecture names every dimension once; "
                f"missing: {', '.join(missing) or 'none'}; "
                f"unknown: {', '.join(map(str, unknown)) or 'none'}"
            )
        return Architecture(self, tuple(d.index(values[d.name]) for d in self.dimensions))

    @cached_property
    def whole(self) -> Allowed:
        """Every option of every dimension, as ``sample`` and ``mutate`` take it."""
        return tuple(tuple(range(len(d))) for d in self.dimensions)

    def sample(self, generator: torch.Generator, allowed: Allowed | None = None) -> Architecture:
        """An architecture drawn uniformly from ``allowed`` (the whole space by default)."""
        check_argument("SearchSpace.sample", "generator", generator, torch.Generator)
        draws = torch.rand(len(self), generator=generator, dtype=torch.float64).tolist()
        return Architecture(
            self,
            tuple(a[int(u * len(a))] for u, a in zip(draws, allowed or self.whole, strict=True)),
        )

    def mutate(
        self,
        arch: Architecture,
        generator: torch.Generator,
        probability: float = 0.1,
        allowed: Allowed | None = None,
    ) -> Architecture:
        """Change each dimension to another allowed option with ``probability`` (App. A.3).

        Raises:
            SpaceError: The architecture is of another space.
        """
        self.check(arch, "mutate")
        draws = torch.rand(len(self), 2, generator=generator, dtype=torch.float64).tolist()
        indices = []
        for old, options, (change, u) in zip(
            arch.indices, allowed or self.whole, draws, strict=True
        ):
            others = [i for i in options if i != old]
            indices.append(others[int(u * len(others))] if others and change < probability else old)
        return Architecture(self, tuple(indices))

    def crossover(
        self, a: Architecture, b: Architecture, generator: torch.Generator
    ) -> Architecture:
        """Take each dimension from either parent with equal probability (App. A.3).

        Raises:
            SpaceError: A parent is of another space.
        """
        self.check(a, "crossover")
        self.check(b, "crossover")
        coins = (torch.rand(len(self), generator=generator, dtype=torch.float32) < 0.5).tolist()
        return Architecture(
            self,
            tuple(i if coin else j for coin, i, j in zip(coins, a.indices, b.indices, strict=True)),
        )

    def check(self, arch: object, caller: str) -> Architecture:
        """The architecture, refused by ``caller`` where it is none of this space.

        Raises:
            ArgumentError: It is no architecture.
            SpaceError: It is of another space.
        """
        check_argument(caller, "arch", arch, Architecture)
        assert isinstance(arch, Architecture)
        if arch.space is not self and arch.space != self:
            raise SpaceError(
                f"{caller}: this architecture is of another space ({arch.space}) than the one it "
                f"is asked for ({self}): {difference(arch.space.dimensions, self.dimensions)}; "
                "take it from model.space"
            )
        return arch

    def to_json(self) -> list[dict[str, object]]:
        """The dimensions as JSON-able objects."""
        return [
            {"name": d.name, "kind": d.kind, "choices": list(d.choices)} for d in self.dimensions
        ]


@dataclass(frozen=True, eq=False, repr=False)
class Architecture:
    """One point of a space: an index per dimension. Frozen, hashable, a dict key.

    Layers look their settings up in it: ``arch[dimension]`` is the chosen value. What travels with
    it through a model, as gates and BatchNorm statistics, is no part of what it is: architectures
    are equal when space and indices agree.

    Args:
        space: The search space.
        indices: Of each dimension the option chosen, from 0.
        carried: What travels with it.

    Raises:
        SpaceError: An index out of range, or not one index per dimension.
    """

    space: SearchSpace
    indices: tuple[int, ...]

    carried: Pass = field(default=NOTHING, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", whole_numbers(self.indices))
        if len(self.indices) != len(self.space):
            raise SpaceError(
                f"an architecture of this space has {len(self.space)} indices, "
                f"found {len(self.indices)}"
            )
        for d, i in zip(self.space.dimensions, self.indices, strict=True):
            if not 0 <= i < len(d):
                raise SpaceError(f"{d.name}: index {i} is outside 0 to {len(d) - 1}")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Architecture)
            and self.indices == other.indices
            and self.space == other.space
        )

    def __hash__(self) -> int:
        return hash(self.indices)

    def __getitem__(self, dimension: Dimension) -> Value:
        i = self.space.position(dimension)  # which refuses what is no dimension
        return dimension.choices[self.indices[i]]

    def value(self, setting: Setting) -> Value:
        """The value a layer's setting takes in this architecture."""
        if isinstance(setting, Dimension):
            return self[setting]
        if isinstance(setting, Derived):
            return setting.choices[self.option(setting)]
        return setting

    def option(self, setting: Setting) -> int:
        """Which of its `choices` a setting takes: of several dimensions, their combination."""
        dimensions = followed(setting)
        return place(dimensions, (self.indices[self.space.position(d)] for d in dimensions))

    def size(self, width: Width) -> int:
        """``value`` of a setting that counts something: channels, features, layers, pixels."""
        if isinstance(width, Joined):
            return sum(map(self.size, width.parts))
        return int(self.value(width))

    def carrying(self, **parts: Any) -> Self:
        """The same architecture with these parts of a `Pass`, beside those that it carries.

        Examples:
            >>> space = SearchSpace([Dimension("width", (4, 8))])
            >>> noise = torch.Generator()
            >>> arch = space.largest.carrying(noise=noise).carrying(ghost_fraction=0.5)
            >>> arch.noise is noise, arch.ghost_fraction, arch == space.largest
            (True, 0.5, True)
        """
        return replace(self, carried=replace(self.carried, **parts))

    def with_option(self, setting: Setting, option: int) -> Architecture:
        """The architecture, by itself, with another option of a setting; see `option`."""
        indices = list(self.indices)
        for dimension in reversed(followed(setting)):
            option, indices[self.space.position(dimension)] = divmod(option, len(dimension))
        return Architecture(self.space, tuple(indices))

    def settled(self, setting: Setting, option: int) -> Architecture:
        """The same with another option of a setting, which has no gates then."""
        dimensions = self.carried.settled.union(followed(setting))
        carried = replace(self.carried, settled=dimensions)
        return replace(self.with_option(setting, option), carried=carried)

    def others(self, setting: Setting) -> dict[int, Architecture]:
        """By their options of a setting, those that differ in one dimension that has a gate.

        No gate but theirs has a gradient of the option: ``z_j`` is that with the others as chosen.
        """
        free = filter(self._has_gate, followed(setting))
        changed = (self.with_option(d, j) for d in free for j in range(len(d)))
        return {arch.option(setting): arch for arch in changed if arch != self}

    @property
    def plain(self) -> Architecture:
        """The architecture alone, without what travels with it."""
        alone = type(self) is Architecture and self.carried is NOTHING
        return self if alone else Architecture(self.space, self.indices)

    @property
    def gates(self) -> tuple[Tensor, ...] | None:
        """See `Pass`."""
        return self.carried.gates

    @property
    def noise(self) -> torch.Generator | None:
        """Source of dropout's and drop-connect's randomness; they act only where it is given."""
        return self.carried.noise

    @property
    def ghost_fraction(self) -> float:
        """Part of the batch on which the gradient of options not chosen is computed."""
        return self.carried.ghost_fraction

    @property
    def folds(self) -> bool:
        """Whether normalizations that follow a convolution may be folded into it."""
        return self.carried.folds

    @property
    def masked(self) -> bool:
        """See `Pass`. The architecture itself is the largest one; gates say which is computed."""
        return self.carried.masked

    @property
    def _gates(self) -> tuple[Tensor, ...]:
        assert self.carried.gates is not None
        return self.carried.gates

    def _has_gate(self, dimension: Dimension) -> bool:
        settled = dimension in self.carried.settled
        return self.carried.gates is not None and len(dimension) > 1 and not settled

    def gated(self, width: Width) -> tuple[tuple[Dimension, ...], ...]:
        """What the parts of a width follow that has gates here, each once, in order."""
        if self.carried.gates is None:
            return ()
        found, settled = searched(width), self.carried.settled
        if not settled:
            return found
        return tuple(dimensions for dimensions in found if any(map(self._has_gate, dimensions)))

    def gate(self, width: Width) -> Tensor | None:
        """Straight-through sample of the setting's dimension, shape ``(d,)``; none when fixed.

        Of several dimensions, that of their combinations. Of maps side by side, the samples of all
        `gated` dimensions, one after the other.
        """
        found = [self.joint(dimensions) for dimensions in self.gated(width)]
        return torch.cat(found) if len(found) > 1 else next(iter(found), None)

    def joint(self, dimensions: tuple[Dimension, ...]) -> Tensor:
        """Sample of all combinations of dimensions, of which one at least has a gate.

        The product ``z_j w_k`` of their samples, in the order of `Derived`: with
        ``y = sum_jk z_j w_k y_jk`` each option has the gradient of its combination with the others
        as chosen.
        """
        if len(dimensions) == 1:
            return self._gates[self.space.position(dimensions[0])]
        first, *rest = map(self._sample, dimensions)
        for sample in rest:
            first = (first[:, None] * sample).flatten()
        return first

    def _sample(self, dimension: Dimension) -> Tensor:
        i = self.space.position(dimension)
        gate = self._gates[i]
        if self._has_gate(dimension):
            return gate
        return torch.eye(len(gate), dtype=gate.dtype, device=gate.device)[self.indices[i]]

    def statistics(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and variance BatchNorm ``layer`` normalizes ``x`` with; none means its own batch's.

        Args:
            layer: Name of the layer within its supernet.
            x: What the layer is about to normalize, shape ``(n, c, h, w)``.

        Returns:
            Mean and biased variance, shape ``(c,)`` each, or none.
        """
        held = self.carried.statistics
        return None if held is None else held.of(layer, x)

    def check(self, model: torch.nn.Module) -> None:
        """Refuse a model that what travels with the architecture was not made for."""
        held = self.carried.statistics
        if held is not None:
            held.check(self, model, surely=not self.folds)

    @property
    def values(self) -> dict[str, Value]:
        """The chosen value of every dimension by name: the JSON form."""
        return {
            d.name: d.choices[i] for d, i in zip(self.space.dimensions, self.indices, strict=True)
        }

    def __repr__(self) -> str:
        return f"Architecture({self})"

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values.items())
