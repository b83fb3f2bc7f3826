"""What is known of a network once it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from boundnas.convert.axes import Axis, Group, Reason
from boundnas.convert.graph import Traced
from boundnas.convert.weights import Weight


@dataclass
class Binding:
    """A module with weights, or that drops, and the channels that it is built with.

    Args:
        name: Of the module.
        module: It.
        inputs: The axis that it takes.
        outputs: The axis that it gives; the same where it follows.
        source: File and line of its first call.
        nodes: Its calls.
    """

    name: str
    module: nn.Module
    inputs: Axis | None
    outputs: Axis | None
    source: str
    nodes: list[fx.Node] = field(default_factory=list)

    @property
    def is_searched(self) -> bool:
        """Whether any of its channels may be searched."""
        axes = (self.inputs, self.outputs)
        return any(axis is not None and not axis.is_fixed for axis in axes)


@dataclass(frozen=True)
class Boundary:
    """An operator that keeps channels fixed.

    Args:
        name: As a user knows it: a module's name, or a function's.
        reason: Why, and where.
    """

    name: str
    reason: Reason


@dataclass(frozen=True)
class Cut:
    """A function that takes a map apart.

    Args:
        axis: The channels that it cuts.
        at: On which axis of the map: 1 or -1.
        pieces: Those of its parts.
    """

    axis: Axis
    at: int
    pieces: list[Axis]


@dataclass(frozen=True)
class Pad:
    """A function that puts zeros before and after channels.

    Args:
        axis: The channels.
        at: On which axis of the map.
        before: So many zeros.
        after: Likewise.
        others: What is padded on the other axes, as the function is told.
    """

    axis: Axis
    at: int
    before: int
    after: int
    others: tuple[int, ...]


@dataclass(frozen=True)
class Repeat:
    """A function that puts channels several times one after another.

    Args:
        axis: The channels.
        at: On which axis of the result.
        times: How often.
        others: How often it repeats along each axis of the result, but for this one.
    """

    axis: Axis
    at: int
    times: int
    others: tuple[int, ...]


@dataclass(frozen=True)
class Told:
    """A function that is told the sizes of its result.

    Args:
        axes: Of the result.
        given: The sizes, as they stand in the graph; none for one that stays as it was.
        of: Axes that the sizes depend on.
        stacked: The axis of the result along which parts of the channels lie one after the other,
            as queries, keys and values do; none if there is none.
        cut: How the channels are cut into these parts.
    """

    axes: tuple[Axis | None, ...]
    given: tuple[Any, ...]
    of: tuple[Axis, ...]
    stacked: int | None = None
    cut: Cut | None = None


@dataclass
class Read:
    """All that is known of a network.

    Args:
        traced: Its graph.
        values: What every node gives.
        bindings: By module.
        boundaries: Operators without a rule that met channels, in order.
        shared: Modules whose weights another has too, and its name.
        tied: Linear layers whose weight is that of a table of vectors, and its name.
        splits: Functions that take maps apart.
        pads: Functions that put zeros beside channels.
        repeats: Functions that put channels several times one after another.
        weights: Those that functions of maps take, by the node that they take.
        sizes: Functions that are told sizes of maps with channels.
        numbers: Functions that compute with numbers of channels, and those numbers: they stay what
            they are in the largest network.
    """

    traced: Traced
    values: dict[fx.Node, Any] = field(default_factory=dict)
    bindings: dict[str, Binding] = field(default_factory=dict)
    boundaries: list[Boundary] = field(default_factory=list)
    sizes: dict[fx.Node, Told] = field(default_factory=dict)
    numbers: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    splits: dict[fx.Node, Cut] = field(default_factory=dict)
    pads: dict[fx.Node, Pad] = field(default_factory=dict)
    repeats: dict[fx.Node, Repeat] = field(default_factory=dict)
    weights: dict[fx.Node, Weight] = field(default_factory=dict)

    def groups(self) -> list[Group]:
        """All groups that a module gives, in the order of their first calls."""
        made = (b.outputs for b in self.bindings.values() if b.outputs is not None)
        return list(dict.fromkeys(group for axis in made for group in axis.groups))
