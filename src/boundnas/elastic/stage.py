"""A stage of layers with elastic depth."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from boundnas.elastic.ghost import alone, mix, part
from boundnas.elastic.layer import ElasticModule
from boundnas.elastic.recomputed import recomputed
from boundnas.elastic.varied import combined
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Setting, choices, largest
from boundnas.space.polynomial import Polynomial, amount
from boundnas.typed import check_argument


class Stage(ElasticModule):
    """The first ``depth`` of a sequence of layers.

    Args:
        layers: Modules called as ``layer(x, arch)``. Those that depth can cut off must keep the
            shape of their input.
        depth: How many are used, at least one.
    """

    def __init__(self, layers: Iterable[nn.Module], depth: Setting) -> None:
        super().__init__()
        self.depth = depth
        for i, layer in enumerate(layers):
            check_argument("Stage", f"layers[{i}]", layer, nn.Module)
            self.add_module(str(i), layer)
        whole = all(type(choice) is int for choice in choices(depth))
        if not whole or int(min(choices(depth))) < 1 or largest(depth) != len(self):
            raise SpaceError(
                f"a stage of {len(self)} layers takes depths from 1 to {len(self)}, "
                f"the largest included; found {', '.join(map(str, choices(depth)))}"
            )

    def __len__(self) -> int:
        return len(self._modules)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Run the first ``depth`` layers."""
        depth, gate = arch.size(self.depth), arch.gate(self.depth)
        layers, outputs = [self.get_submodule(name) for name in self._modules], []
        again = arch.carried.recomputes and torch.is_grad_enabled()
        for number, layer in enumerate(layers[:depth]):
            name = f"{self.name}.{number}"
            x = recomputed(name, layer, x, arch) if again else layer(x, arch)
            outputs.append(x)
        if gate is None:
            return x
        if arch.masked:
            return combined(gate, [outputs[int(option) - 1] for option in choices(self.depth)])
        deeper = _Deeper(layers[depth:], depth, arch)
        ascending = sorted(enumerate(choices(self.depth)), key=lambda each: int(each[1]))
        alternatives = {j: partial(deeper.at, int(option)) for j, option in ascending}
        kept = [alone(y).detach() for y in outputs]
        return mix(x, gate, alternatives, arch.ghost_fraction, kept)

    def presence(self, child: str) -> Polynomial:
        """Layer ``i`` is in use where the depth is above ``i``."""
        return amount(self.depth, lambda depth: int(int(depth) > int(child)))


class _Deeper:
    """Outputs of the layers beyond the chosen depth, each computed once, in ascending order."""

    def __init__(self, layers: list[nn.Module], depth: int, arch: Architecture) -> None:
        self.layers, self.depth, self.arch = iter(layers), depth, arch
        self.x: Tensor | None = None

    def at(self, depth: int, *outputs: Tensor) -> Tensor:
        """The output of so many layers.

        Args:
            depth: How many.
            outputs: Those of the layers up to the chosen depth.
        """
        if depth <= len(outputs):
            return part(outputs[depth - 1], self.arch.ghost_fraction)
        x = part(outputs[-1], self.arch.ghost_fraction) if self.x is None else self.x
        while self.depth < depth:
            x = next(self.layers)(x, self.arch.plain)
            self.depth += 1
        self.x = x
        return x
