"""The batch of a step as its networks see it: in parts, and mixed where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from boundnas.method.mixing import Mixture, neighbours
from boundnas.nested import mapped
from boundnas.space import Architecture


class Part(NamedTuple):
    """Samples that pass through a network together.

    Args:
        inputs: As the model takes them.
        targets: As many.
        others: The targets of those that the samples are mixed with, if they are.
        share: How much of each sample is its own.
    """

    inputs: Any
    targets: Tensor
    others: Tensor | None = None
    share: float = 1.0

    def over_targets(self, function: Callable[[Tensor, Tensor], Tensor], outputs: Tensor) -> Tensor:
        """A function of outputs and targets, of mixed samples its mean by their shares.

        Of a loss that is linear in the targets this is the loss of targets mixed likewise.
        """
        own = function(outputs, self.targets)
        if self.others is None:
            return own
        return self.share * own + (1 - self.share) * function(outputs, self.others)


def parts_of(
    inputs: Any, targets: Tensor, number: int, mixture: Mixture | None = None
) -> list[Part]:
    """A batch in so many equal parts.

    Args:
        inputs: As the model takes them, the batch axis first.
        targets: As many.
        number: Divides the batch.
        mixture: How samples are mixed, if they are.
    """
    size = len(targets) // number
    cuts = [slice(i * size, (i + 1) * size) for i in range(number)]
    parts = [Part(mapped(lambda x, cut=cut: x[cut], inputs), targets[cut]) for cut in cuts]
    return parts if mixture is None else [_mixed(part, mixture) for part in parts]


def _mixed(part: Part, mixture: Mixture) -> Part:
    inputs, share = mixture.of(part.inputs)
    return Part(inputs, part.targets, neighbours(part.targets), share)


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
