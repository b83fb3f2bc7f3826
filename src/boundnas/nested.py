"""Inputs that are a tensor, or tuples, lists and dicts of such: what is done to every tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Inputs = Any
"""A tensor, or a tuple, list or dict of inputs."""


def leaves(inputs: Inputs, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor with the name of its place, as ``['ids']`` or ``[0]``; one alone has none.

    Examples:
        >>> import torch
        >>> [name for name, _ in leaves({"ids": torch.zeros(2), "pair": (torch.ones(1),)})]
        ["['ids']", "['pair'][0]"]
    """
    for key, part in _parts(inputs):
        if key is None:
            yield name, part
        else:
            yield from leaves(part, f"{name}[{key!r}]")


def mapped(function: Callable[..., Any], inputs: Inputs, *others: Inputs) -> Inputs:
    """The same structure, with ``function`` of each tensor, and of what others have there."""
    if isinstance(inputs, Mapping):
        return {k: mapped(function, v, *(o[k] for o in others)) for k, v in inputs.items()}
    if isinstance(inputs, tuple | list):
        found = [mapped(function, v, *(o[i] for o in others)) for i, v in enumerate(inputs)]
        return tuple(found) if isinstance(inputs, tuple) else found
    return function(inputs, *others)


def sent(inputs: Inputs, device: torch.device) -> Inputs:
    """The same on a device; from the CPU to a GPU the host goes on at once.

    Other memory than pinned one makes it wait for all work that the GPU has before the copy.
    """

    def copied(x: Tensor) -> Tensor:
        if device.type == "cuda" and x.is_cpu:
            return x.pin_memory().to(device, non_blocking=True)
        return x.to(device)

    return mapped(copied, inputs)


def structure(inputs: Inputs) -> Any:
    """What two inputs share that differ in their tensors only."""
    if isinstance(inputs, Mapping):
        return {k: structure(v) for k, v in inputs.items()}
    if isinstance(inputs, tuple | list):
        return [structure(v) for v in inputs]
    return type(inputs).__name__ if not isinstance(inputs, Tensor) else "Tensor"


def described(inputs: Inputs) -> str:
    """Types and shapes, for messages.

    Examples:
        >>> import torch
        >>> described((torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)))
        'float32 of shape (2, 3) at [0], int64 of shape (2,) at [1]'
    """
    return ", ".join(
        (
            f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"
            if isinstance(x, Tensor)
            else f"a {type(x).__name__}"
        )
        + (f" at {name}" if name else "")
        for name, x in leaves(inputs)
    )


def count(inputs: Inputs) -> int:
    """Number of samples of a batch."""
    return len(next(leaves(inputs))[1])


def _parts(inputs: Inputs) -> Iterator[tuple[Any, Any]]:
    if isinstance(inputs, Mapping):
        yield from inputs.items()
    elif isinstance(inputs, tuple | list):
        yield from enumerate(inputs)
    else:
        yield None, inputs
