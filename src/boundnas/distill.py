"""In-place distillation: the max network teaches every other network of the step (Sec. 2)."""

from __future__ import annotations

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
