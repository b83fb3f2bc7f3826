"""Weights that are computed of others before a layer takes its slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Computed:
    """A weight that is computed whole at every call, as one that is standardized.

    Layers take their slices of what it gives. So narrow architectures see the numbers that wide
    ones do, and every gradient goes back through the whole.

    Args:
        function: Called with tensors that a layer holds; gives the weight.
        parts: Their names there.
        orders: Of each axis the name of the order in which its entries come; none as they are.
    """

    function: Callable[..., Tensor]
    parts: tuple[str, ...]
    orders: tuple[str | None, ...]

    def of(self, layer: nn.Module) -> Tensor:
        """What it is now."""
        weight = self.function(*(getattr(layer, name) for name in self.parts))
        for axis, name in enumerate(self.orders):
            if name is not None:
                weight = weight.index_select(axis, getattr(layer, name))
        return weight


def compute(
    layer: nn.Module,
    name: str,
    function: Callable[..., Tensor],
    parts: Mapping[str, Tensor],
    orders: Sequence[Tensor | None],
) -> None:
    """Have an elastic layer compute a weight, which is no parameter of it any more.

    Args:
        layer: The layer.
        name: Of the weight.
        function: As of `Computed`.
        parts: What it is called with, by names; parameters are trained.
        orders: As of `Computed`, tensors in place of their names.
    """
    delattr(layer, name)
    held = {f"{name}_{part}": tensor for part, tensor in parts.items()}
    places = {f"{name}_order{axis}": o for axis, o in enumerate(orders) if o is not None}
    for key, tensor in {**held, **places}.items():
        if isinstance(tensor, nn.Parameter):
            layer.register_parameter(key, tensor)
        else:
            layer.register_buffer(key, tensor)
    at = tuple(f"{name}_order{axis}" if o is not None else None for axis, o in enumerate(orders))
    layer.__dict__.setdefault("computed", {})[name] = Computed(function, tuple(held), at)
