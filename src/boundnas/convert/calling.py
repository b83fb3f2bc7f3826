"""How a network is called with inputs of several parts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from boundnas.nested import Inputs


class Root(nn.Module):
    """A network with one input: its arguments are the parts of a tuple or dict."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.model, self.parts = model, _parts(model, example)

    def forward(self, x: Any) -> Any:
        """What the network gives."""
        return _called(self.model, x, self.parts)


def called_with(model: nn.Module, inputs: Inputs) -> Any:
    """What a network gives: of a dict by name, of a tuple one by one if it takes several."""
    return _called(model, inputs, _parts(model, inputs))


def _called(model: nn.Module, x: Any, parts: Sequence[Any]) -> Any:
    if not parts:
        return model(x)
    if isinstance(parts[0], str):
        return model(**{name: x[name] for name in parts})
    return model(*(x[i] for i in parts))


def _parts(model: nn.Module, example: Inputs) -> Sequence[Any]:
    """The keys of what is given as arguments of their own; none for one argument."""
    if isinstance(example, Mapping):
        return list(example)
    taken = inspect.signature(model.forward).parameters.values()
    required = [p for p in taken if p.default is inspect.Parameter.empty]
    several = isinstance(example, tuple | list) and len(required) != 1
    return range(len(example)) if several else ()
