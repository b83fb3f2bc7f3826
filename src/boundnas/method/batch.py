"""The batch of a step as its networks see it: in parts, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from boundnas.nested import mapped
from boundnas.space import Architecture


class Part(NamedTuple):
    """Samples that pass through a network together."""

    inputs: Any
    targets: Tensor


def parts_of(inputs: Any, targets: Tensor, number: int) -> list[Part]:
    """A batch in so many equal parts.

    Args:
        inputs: As the model takes them, the batch axis first.
        targets: As many.
        number: Divides the batch.
    """
    size = len(targets) // number
    cuts = [slice(i * size, (i + 1) * size) for i in range(number)]
    return [Part(mapped(lambda x, cut=cut: x[cut], inputs), targets[cut]) for cut in cuts]


@contextmanager
def gathering(arch: Architecture, parts: int) -> Iterator[Architecture]:
    """An architecture whose gates take the gradients of several parts, and hand on their sum.

    The policy's sample is one of the step, not of the part, and so is the graph behind it, which
    one backward pass uses up.

    Args:
        arch: As it was drawn.
        parts: Number of parts; of a single one the architecture is left as it is.
    """
    if arch.gates is None or parts == 1 or not torch.is_grad_enabled():
        yield arch
        return
    held = tuple(gate.detach().requires_grad_() for gate in arch.gates)
    yield arch.carrying(gates=held)
    pairs = list(zip(arch.gates, held, strict=True))
    reached = [(gate, own.grad) for gate, own in pairs if own.grad is not None]
    if reached:
        gates, gradients = zip(*reached, strict=True)
        torch.autograd.backward(gates, gradients)
