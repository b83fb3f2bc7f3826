"""In which precision networks compute while they train."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from boundnas.errors import TrainingError
from boundnas.settings import TrainSettings


def reduced(settings: TrainSettings, device: torch.device) -> AbstractContextManager[None]:
    """Within it torch's products of weights are in bfloat16, where that is asked for.

    Weights, statistics of batches, losses, the products that teach policies, and what optimizers
    see stay in float32. The compiled kernels leave their work to torch meanwhile.
    """
    if settings.precision == "float32":
        return nullcontext()
    found: AbstractContextManager[None] = torch.autocast(device.type, torch.bfloat16)
    return found


def check_precision(settings: TrainSettings, device: torch.device) -> None:
    """Refuse a device that does not compute in the precision that is asked for.

    Raises:
        TrainingError: Names the device.
    """
    if settings.precision == "float32" or device.type == "cpu":
        return
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return
    raise TrainingError(
        f"train.precision = bf16: {device} does not compute in bfloat16; leave it out, or train on "
        "the CPU or on a GPU of compute capability 8.0 or more"
    )
