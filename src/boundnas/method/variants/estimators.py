"""Gradients of a policy that do not flow through a network: values of the loss are compared.

The straight-through gradient comes with the backward pass of the network that was drawn (see
`boundnas.method.policy`). The estimators here need no gates: they compare that network's loss with
that of one more network, on the same batch and without a graph, and hand the difference on.
Both are unbiased, and both cost one forward pass for each policy.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from boundnas.method.policy import Policy
from boundnas.method.variants.parts import Objective
from boundnas.space import Architecture


def score_function(
    policy: Policy,
    arch: Architecture,
    value: Tensor,
    objective: Objective,
    generator: torch.Generator,
) -> Tensor:
    """``(f(a) - f(b)) (log p(a) - log p(b)) / 2``: each network is the other's baseline.

    Args:
        policy: The policy.
        arch: ``a``, drawn from it.
        value: ``f(a)``.
        objective: ``f``.
        generator: Draws ``b``, from the policy too and independent of ``a``.

    Returns:
        A scalar. The expectation of its gradient is that of ``E[f grad log p]``, as
        ``E[grad log p] = 0``.
    """
    other = policy.sample(generator, learns=False)
    lead = value - objective(other)
    return lead * (policy.log_probability(arch) - policy.log_probability(other)) / 2


def measure_valued(
    policy: Policy,
    arch: Architecture,
    value: Tensor,
    objective: Objective,
    generator: torch.Generator,
) -> Tensor:
    """The weak derivative of one dimension, drawn at random and weighted by their number.

    With ``F(k)`` the objective's expectation where the dimension takes option ``k``, ``p`` its
    probabilities and ``s`` its scores, ``dE/ds_k = p_k (1 - p_k) (F(k) - E[F(j) | j != k])``. The
    architecture drawn has option ``k`` with probability ``p_k``; the one it is compared with
    differs from it in this dimension alone.

    Args:
        policy: The policy.
        arch: An architecture drawn from it.
        value: Its objective.
        objective: The objective.
        generator: Draws the dimension and the other option.

    Returns:
        A scalar whose gradient is the estimate, zero but for one score.
    """
    searched = [i for i, d in enumerate(policy.space.dimensions) if len(d) > 1]
    position = searched[int(torch.randint(len(searched), (), generator=generator))]
    chosen = arch.indices[position]
    scores = policy.scores[position]
    option = torch.arange(len(scores), device=scores.device)
    rest = scores.detach().masked_fill(option == chosen, -torch.inf).softmax(-1)
    other = int(torch.multinomial(rest.cpu(), 1, generator=generator))
    indices = (*arch.indices[:position], other, *arch.indices[position + 1 :])
    lead = value - objective(replace(arch, indices=indices))
    probability = scores.detach().softmax(-1)[chosen]
    return len(searched) * (1 - probability) * lead * scores[chosen]
