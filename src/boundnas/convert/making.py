"""What makes tensors from sizes, or numbers from types, and takes no recorded values by itself.

``torch.arange(x.shape[1])`` and ``positions.expand(len(x), -1)``, of a tensor that was made while
reading, would fail: PyTorch asks for numbers before it asks what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

NEW = ("new_zeros", "new_ones", "new_full", "new_empty")
"""Methods that make tensors."""
_METHODS = ("expand", *NEW)
_FUNCTIONS = (
    "arange", "zeros", "ones", "full", "empty", "eye", "linspace", "tensor", "as_tensor", "finfo",
)  # fmt: skip


@contextmanager
def watched(function: Callable[..., Any], method: Callable[..., Any]) -> Iterator[None]:
    """Within it such functions and methods are handed over.

    Args:
        function: Called with a function of torch and its arguments.
        method: Called with the name of a method, and then likewise.
    """
    functions = {name: getattr(torch, name) for name in _FUNCTIONS}
    methods = {name: getattr(Tensor, name) for name in _METHODS}
    for name, own in functions.items():
        setattr(torch, name, partial(function, own))
    for name, own in methods.items():  # which Tensor has of its base
        setattr(Tensor, name, _bound(partial(method, name, own)))
    try:
        yield
    finally:
        for name, own in functions.items():
            setattr(torch, name, own)
        for name in methods:
            delattr(Tensor, name)


def on_own_device(arguments: Any, value: Callable[[Any], Any]) -> Any:
    """Arguments of a call, with the device of the first tensor where it is named.

    A device that was read off a tensor that was made while reading would stay what it is then.

    Args:
        arguments: Positional ones, and those by name.
        value: What stands behind a recorded value; anything else as it is.
    """
    recorded: list[Any] = []
    map_aggregate(arguments, lambda a: recorded.append(a) if isinstance(a, fx.Proxy) else None)
    x = next((a for a in recorded if isinstance(value(a), Tensor)), None)
    if x is None:
        return arguments
    own: Any = value(x).device
    same = lambda a: isinstance(a, torch.device) and a == own  # noqa: E731
    return map_aggregate(arguments, lambda a: x.device if same(a) else a)


def _bound(call: Callable[..., Any]) -> Callable[..., Any]:
    """As a method, which is given its tensor first."""

    def called(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        return call(tensor, *args, **kwargs)

    return called
