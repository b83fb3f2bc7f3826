"""What operators of ATen do with memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHAPES = {
    "view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze", "alias", "detach",
}  # fmt: skip
"""Operators that give another shape only."""

FUSED = {"_softmax", "_log_softmax", "_prelu_kernel"}
"""Operators that write in place beside those of single elements."""

GATED = {"silu", "gelu", "hardswish", "mish"}
"""Activations that a runtime computes as their input times a function of it."""

JOINS = {"cat", "stack"}
"""Operators that put tensors side by side."""

POOLS = {"max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "upsample_nearest2d"}
"""Operators on maps that keep blocks of channels, beside those of single elements."""


class Operators(TorchDispatchMode):
    """Notes the operators of ATen that are called on certain memory, or on what comes of it."""

    def __init__(self, memory: Any) -> None:
        super().__init__()
        self.memory = set(memory)
        self.called: list[Any] = []
        self.kept: list[Any] = []
        """All results, so that no address is used again."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.kept.append(result)
        given = (x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        if any(memory(x) in self.memory for x in given):
            self.called.append(func)
            self.memory |= {memory(x) for x in tree_leaves(result) if isinstance(x, Tensor)}
        return result

    @property
    def names(self) -> set[str]:
        """Their names."""
        return {func.overloadpacket.__name__ for func in self.called}

    @property
    def keeps(self) -> bool:
        """Whether what comes of it lies in the same memory, in another shape or overwritten."""
        return self.names <= SHAPES or any(func._schema.is_mutable for func in self.called)

    @property
    def within(self) -> bool:
        """Whether a runtime may write the result into what was taken."""
        return not self.names & GATED and self._are_of_elements(SHAPES | FUSED)

    @property
    def keeps_blocks(self) -> bool:
        """Whether maps come of maps with their channels in the same blocks."""
        return self._are_of_elements(POOLS)

    def _are_of_elements(self, others: set[str]) -> bool:
        """Whether all are functions of single elements, or one of the others."""
        return all(
            torch.Tag.pointwise in func.tags or func.overloadpacket.__name__ in others
            for func in self.called
        )


def memory(x: Tensor) -> int:
    """The address of what holds a tensor's numbers."""
    return x.untyped_storage()._cdata
