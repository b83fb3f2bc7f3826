"""Students' gradients without what opposes the max network's (NASViT, Gong et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def projected(
    parameters: Sequence[nn.Parameter], reference: Mapping[nn.Parameter, Tensor]
) -> Iterator[None]:
    """Add the gradients computed within to those before, projected where they conflict.

    For each parameter, a gradient ``g`` with ``<g, m> < 0``, where ``m`` is the reference, becomes
    ``g - <g, m> / <m, m> m``, which is orthogonal to ``m``.

    Args:
        parameters: Weights.
        reference: The max network's gradients, by weight; of the shapes of the weights.
    """
    held = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    yield
    for p, total in zip(parameters, held, strict=True):
        own, other = p.grad, reference.get(p)
        if own is not None and other is not None:
            overlap = (own * other).sum() / other.square().sum().clamp_min(1e-30)
            own = own - overlap.clamp(max=0) * other
        p.grad = total if own is None else own if total is None else total + own
