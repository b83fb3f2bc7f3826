"""Choices between alternatives as wholes: ``y = sum_j z_j y_j``, every ``y_j`` computed by itself.

Where options differ in more than which channels or taps they use, there is no weight that a gate
could sit at. The chosen one is computed as ever; the others in the backward pass, when ``dL/dy`` is
known, without a graph (`boundnas.elastic.ghost.mix`). That costs a forward pass of each, so these
are for a few options, or for what is small.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic.ghost import alone, mix, part
from boundnas.elastic.layer import ElasticModule
from boundnas.elastic.varied import combined
from boundnas.errors import SpaceError
from boundnas.space import (
    Architecture,
    Derived,
    Dimension,
    Setting,
    Value,
    check_sizes,
    choices,
    followed,
)


class Wholes(ElasticModule):
    """What `Choice` and `Resized` share."""

    setting: Setting

    @abstractmethod
    def alternative(self, value: Value, x: Tensor, arch: Architecture) -> Tensor:
        """What the option of this value gives."""

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Compute the chosen alternative."""
        value, gate = arch.value(self.setting), arch.gate(self.setting)
        if gate is None:
            return self.alternative(value, x, arch)
        if arch.masked:
            return combined(gate, [
                self.alternative(value, x, arch.settled(self.setting, j))
                for j, value in enumerate(choices(self.setting))
            ])  # fmt: skip
        shared = part(alone(x), arch.ghost_fraction)
        others = {
            j: partial(self.alternative, other.value(self.setting), arch=other)
            for j, other in arch.others(self.setting).items()
        }
        settled = arch.carrying(settled=arch.carried.settled.union(followed(self.setting)))
        y = self.alternative(value, x, settled)
        chosen: dict[int, Callable[..., Tensor] | None] = {arch.option(self.setting): None}
        return mix(y, gate, {**others, **chosen}, arch.ghost_fraction, [shared])


class Choice(Wholes):
    """One of several modules, by the value of a setting.

    A block whose expand ratio of one has no expansion, beside larger ones that do; a shortcut that
    some options have; a kind of operation. What an alternative is built with may follow the same
    dimension: ``expand.map(lambda e: 16 * e)``. Alternatives may share layers.

    Args:
        setting: A dimension, or what follows one.
        alternatives: Of each of its values a module that is called as ``module(x, arch)``, or none
            for what gives its input. All give maps of one shape.

    Raises:
        SpaceError: A value has no alternative, or an alternative no value.
    """

    def __init__(self, setting: Setting, alternatives: Mapping[Value, nn.Module | None]) -> None:
        super().__init__()
        values = choices(setting)
        if not isinstance(setting, Dimension | Derived) or {*values} != {*alternatives}:
            raise SpaceError(
                f"Choice: there is one alternative for each value of a dimension, found values "
                f"{', '.join(map(repr, values))} and alternatives for "
                f"{', '.join(map(repr, alternatives))}"
            )
        self.setting = setting
        modules = list(dict.fromkeys(m for m in alternatives.values() if m is not None))
        for i, module in enumerate(modules):
            self.add_module(str(i), module)
        self.names = tuple(
            (value, None if module is None else str(modules.index(module)))
            for value, module in alternatives.items()
        )
        """Of every value the alternative, by its name here; none gives its input."""

    def passes(self, arch: Architecture) -> bool:
        """Whether an architecture chooses what gives its input."""
        return dict(self.names)[arch.value(self.setting)] is None

    def alternative(self, value: Value, x: Tensor, arch: Architecture) -> Tensor:
        """See `Wholes`."""
        name = dict(self.names)[value]
        y: Tensor = x if name is None else self.get_submodule(name)(x, arch)
        return y


Mode = Literal["nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact"]


class Resized(Wholes):
    """A module on maps of a searched size, such as a network on images of a searched resolution.

    Args:
        body: Called as ``body(x, arch)``; what it gives has one shape, whatever the size.
        size: Pixels along every spatial axis: a number or a dimension.
        mode: How maps are resized, as of ``F.interpolate``: ``"bilinear"`` of images.

    Shape:
        ``(N, C, …)`` to what the body gives of ``(N, C, size, …)``.
    """

    def __init__(self, body: nn.Module, size: Setting, mode: Mode = "bilinear") -> None:
        super().__init__()
        check_sizes("Resized", size=size)
        self.body, self.setting, self.mode = body, size, mode

    def alternative(self, value: Value, x: Tensor, arch: Architecture) -> Tensor:
        """See `Wholes`."""
        y: Tensor = self.body(F.interpolate(x, int(value), mode=self.mode), arch)
        return y
