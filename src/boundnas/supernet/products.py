"""Multiply-accumulates of the functions that a ``forward`` calls by itself.

Elastic layers say what they cost. What else multiplies, ``torch.matmul``, ``F.conv2d`` with a
buffer, attention on a fixed width, a plain layer, is counted as PyTorch's own counter does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from boundnas.errors import CostError

_UNKNOWN = ("_trilinear", "rnn", "lstm", "gru", "multi_head", "transformer", "addmv")
"""Parts of the names of operators that multiply in ways that are not counted here."""

_RECURRENT = "aten.mkldnn_rnn_layer"
"""One direction of a layer of an LSTM, as oneDNN computes it; others are products of matrices."""


class Products(TorchDispatchMode):
    """Within it every operator is counted.

    Args:
        add: Called with each operator's multiply-accumulates, if there are any.
        where: Says in whose ``forward``, or none where these are counted otherwise.
    """

    def __init__(self, add: Callable[[str, int], None], where: Callable[[], str | None]) -> None:
        super().__init__()
        self.add, self.where = add, where

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = self.where()
        if name is not None:
            packet = func.overloadpacket
            if str(packet) != _RECURRENT and any(part in str(packet) for part in _UNKNOWN):
                raise CostError(
                    f"{name or 'forward'}: the MACs of {packet} are not known; use elastic layers, "
                    "nn.Conv2d, nn.Linear or torch.matmul"
                )
            if macs := multiplications(packet, args, kwargs or {}, result):
                self.add(name, macs)
        return result


def multiplications(packet: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Multiply-accumulates of one operator of ATen; zero of one that has none, or is not known."""
    aten = torch.ops.aten
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=result)) // 2
    if packet is aten._scaled_dot_product_flash_attention_for_cpu:
        return int(sdpa_flop_count(*(x.shape for x in args[:3]))) // 2
    if str(packet) == _RECURRENT:  # of each step, input and state with their weights
        return int(args[0].shape[:2].numel() * (args[1].numel() + args[2].numel()))
    if packet in (
        aten._cdist_forward,
        aten._euclidean_dist,
    ):  # each row's numbers with each other's
        return int(result.numel() * args[0].shape[-1])
    return int(args[0].numel()) if packet in (aten.mv, aten.dot, aten.vdot) else 0
