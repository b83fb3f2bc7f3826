"""The adaptive divergence of AlphaNet, by which the max network may teach class logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def adaptive_alpha_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """AlphaNet's adaptive alpha-divergence (Wang et al., ICML 2021), averaged over the batch.

    ``D_alpha(p || q) = sum_k q_k ((p_k / q_k)**alpha - 1) / (alpha (alpha - 1))``, its limit
    ``KL(p || q)`` at ``alpha = 1``, with ``p`` the teacher and ``q`` the student. Of
    ``alpha = -1``, which punishes a student that is sure where its teacher is not, and
    ``alpha = 1``, which punishes the opposite, each sample takes the larger. As in AlphaNet's
    published code, ``(p_k / q_k)**alpha`` is cut off at 5 for ``alpha = -1``, in the value and in
    the gradient ``-sum_k q_k (p_k / q_k)**alpha / alpha grad log q_k``; at ``alpha = 1`` nothing
    is cut off, and temperatures are 1.

    Args:
        student: Logits, shape ``(N, classes)``.
        teacher: Logits of the max network, same shape; no gradient flows into them.

    Returns:
        A scalar, zero where both agree.
    """
    log_q, log_p = F.log_softmax(student, -1), F.log_softmax(teacher.detach(), -1)
    at_one = (log_p.exp() * (log_p - log_q)).sum(-1)
    q, inverse = log_q.detach().exp(), (log_q.detach() - log_p).exp().clamp(max=ALPHA_CLIP)
    at_minus_one = (q * (inverse - 1)).sum(-1) / 2
    surrogate = (q * inverse * log_q).sum(-1)  # has the gradient at -1, not the value
    cut = at_minus_one + (surrogate - surrogate.detach())
    return torch.where(at_minus_one > at_one, cut, at_one).mean()


ALPHA_CLIP = 5.0
