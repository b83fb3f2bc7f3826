"""A stage of layers with elastic depth."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from boundnas.elastic.ghost import alone, mix, part
from boundnas.elastic.layer import ElasticModule
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
        for layer in layers[:depth]:
            x = layer(x, arch)
            outputs.append(x)
        if gate is None:
            return x
        if arch.masked:
            return combined(gate, [outputs[int(option) - 1] for option in choices(self.depth)])
        last = _Deeper(layers[depth:], depth, arch, part(alone(x), arch.ghost_fraction))
        alternatives = {}
        ascending = sorted(enumerate(choices(self.depth)), key=lambda each: int(each[1]))
        for j, option in ascending:
            if int(option) <= depth:
                y = part(alone(outputs[int(option) - 1]), arch.ghost_fraction)
                alternatives[j] = lambda y=y: y
            else:
                alternatives[j] = lambda d=int(option): last.at(d)
        kept = [alone(y).detach() for y in outputs]
        return mix(x, gate, alternatives, arch.ghost_fraction, kept)

    def presence(self, child: str) -> Polynomial:
        """Layer ``i`` is in use where the depth is above ``i``."""
        return amount(self.depth, lambda depth: int(int(depth) > int(child)))


class _Deeper:
    """Outputs of the layers beyond the chosen depth, each computed once, in ascending order."""

    def __init__(self, layers: list[nn.Module], depth: int, arch: Architecture, x: Tensor) -> None:
        self.layers, self.depth, self.arch, self.x = iter(layers), depth, arch, x

    def at(self, depth: int) -> Tensor:
        plain = self.arch.plain
        while self.depth < depth:
            self.x = next(self.layers)(self.x, plain)
            self.depth += 1
        return self.x
