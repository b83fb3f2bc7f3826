"""In-place distillation: the max network teaches every other network of the step (Sec. 2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """``KL(teacher || student)`` of the class probabilities, averaged over the batch.

    Args:
        student: Logits, shape ``(N, classes)``.
        teacher: Logits of the max network, same shape; no gradient flows into them.

    Returns:
        A scalar, zero where both agree.
    """
    return F.kl_div(
        F.log_softmax(student, -1),
        F.log_softmax(teacher.detach(), -1),
        reduction="batchmean",
        log_target=True,
    )


def adaptive_alpha_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """AlphaNet's adaptive alpha-divergence (Wang et al., ICML 2021), averaged over the batch.

    ``D_alpha(p || q) = sum_k q_k ((p_k / q_k)**alpha - 1) / (alpha (alpha - 1))``, its limit
    ``KL(p || q)`` at ``alpha = 1``, with ``p`` the teacher and ``q`` the student. Of
    ``alpha = -1``, which punishes a student that is sure where its teacher is not, and
    ``alpha = 1``, which punishes the opposite, each sample takes the larger.
    ``(p_k / q_k)**alpha`` is cut off at 5, in the value and in the gradient
    ``-sum_k q_k (p_k / q_k)**alpha / alpha grad log q_k``.

    Args:
        student: Logits, shape ``(N, classes)``.
        teacher: Logits of the max network, same shape; no gradient flows into them.

    Returns:
        A scalar, zero where both agree.
    """
    log_q, log_p = F.log_softmax(student, -1), F.log_softmax(teacher.detach(), -1)
    q, log_ratio = log_q.detach().exp(), log_p - log_q.detach()
    values, surrogates = [], []
    for alpha in ALPHAS:
        power = (alpha * log_ratio).exp().clamp(max=ALPHA_CLIP)
        kernel = power * log_ratio if alpha == 1 else (power - 1) / (alpha * (alpha - 1))
        values.append((q * kernel).sum(-1))
        surrogates.append(-(q * power / alpha * log_q).sum(-1))  # has the gradient, not the value
    chosen = torch.stack(values).argmax(0, keepdim=True)
    value, surrogate = (torch.stack(each).gather(0, chosen).mean() for each in (values, surrogates))
    return value + (surrogate - surrogate.detach())


ALPHAS = (-1.0, 1.0)
ALPHA_CLIP = 5.0

DISTILLATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": kl_divergence,
    "adaptive_alpha": adaptive_alpha_divergence,
}
"""How far a student is from its teacher, by the name in a configuration."""
