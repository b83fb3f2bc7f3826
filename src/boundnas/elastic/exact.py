"""What gates learn from is summed in float32 at least, also where layers compute in less."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """In float32, or as it is in more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def summing(x: Tensor) -> AbstractContextManager[Any]:
    """Within it products on the device of ``x`` are in the precision of their factors."""
    if not torch.amp.is_autocast_available(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
