"""What makes tensors from sizes, which takes no recorded values by itself.

``torch.arange(x.shape[1])`` and ``positions.expand(len(x), -1)``, of a tensor that was made while
reading, would fail: PyTorch asks for numbers before it asks what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

NEW = ("new_zeros", "new_ones", "new_full", "new_empty")
"""Methods that make tensors."""
_METHODS = ("expand", *NEW)
_FUNCTIONS = (
    "arange", "zeros", "ones", "full", "empty", "eye", "linspace", "tensor", "as_tensor",
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


def _bound(call: Callable[..., Any]) -> Callable[..., Any]:
    """As a method, which is given its tensor first."""

    def called(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        return call(tensor, *args, **kwargs)

    return called
