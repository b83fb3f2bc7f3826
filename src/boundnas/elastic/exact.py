"""What gates learn from is summed in float32 at least, also where layers compute in less."""

from __future__ import annotations

import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """In float32, or as it is in more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def summing(x: Tensor) -> torch.autocast:
    """Within it products on the device of ``x`` are in the precision of their factors."""
    return torch.autocast(x.device.type, enabled=False)
