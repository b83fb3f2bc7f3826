"""Modules of well-known libraries, said in layers and functions that have rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from boundnas.convert.attention import Attention
from boundnas.convert.channelwise import (
    Bilinear,
    Gate,
    InstanceNorm,
    Leaky,
    OneGroup,
    Transposed,
)
from boundnas.convert.dropping import dropped
from boundnas.convert.normalizing import Norm, normalizing
from boundnas.convert.recurrent import recurrent
from boundnas.convert.transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    Transformer,
)

ROUNDING = (Attention, Bilinear, Gate, InstanceNorm, Norm, OneGroup, Transposed)
"""What computes the same as torch's module but for rounding."""


class DropBranch(nn.Module):
    """Drops all of a residual branch, per sample, while a network trains.

    Args:
        p: Probability.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Nothing, in evaluation."""
        return x


def known(module: nn.Module) -> nn.Module:
    """The same in layers that have rules; a module that needs no help is left alone."""
    kind = type(module)
    make = _KNOWN.get((kind.__module__.partition(".")[0], kind.__name__))
    return _by_what_it_does(module) if make is None else make(module)


def _by_what_it_does(module: nn.Module) -> nn.Module:
    """A module that drops branches or normalizes, whoever wrote it; any other as it is."""
    p = dropped(module)
    return (normalizing(module) or module) if p is None else DropBranch(p)


def _stochastic_depth(module: Any) -> nn.Module:
    return DropBranch(module.p) if module.mode == "row" else module


def _drop_path(module: Any) -> nn.Module:
    return DropBranch(module.drop_prob) if module.scale_by_keep else module


def _prelu(module: Any) -> nn.Module:
    return Leaky(module) if module.num_parameters > 1 else module


def _group_norm(module: Any) -> nn.Module:
    return OneGroup(module) if module.num_groups == 1 else module


def _instance_norm(module: Any) -> nn.Module:
    return module if module.track_running_stats else InstanceNorm(module)


_KNOWN: dict[tuple[str, str], Callable[[Any], nn.Module]] = {
    ("torchvision", "StochasticDepth"): _stochastic_depth,
    ("timm", "DropPath"): _drop_path,
    ("torch", "MultiheadAttention"): Attention,
    ("torch", "TransformerEncoderLayer"): EncoderLayer,
    ("torch", "TransformerEncoder"): Encoder,
    ("torch", "TransformerDecoderLayer"): DecoderLayer,
    ("torch", "TransformerDecoder"): Decoder,
    ("torch", "Transformer"): Transformer,
    ("transformers", "Conv1D"): Transposed,
    **{("torch", name): recurrent for name in ("LSTM", "GRU", "RNN")},
    ("torch", "GLU"): Gate,
    ("torch", "Bilinear"): Bilinear,
    ("torch", "PReLU"): _prelu,
    ("torch", "GroupNorm"): _group_norm,
    ("timm", "GroupNorm1"): _group_norm,
    **{("torch", f"InstanceNorm{d}d"): _instance_norm for d in (1, 2, 3)},
    ("torch", "OptimizedModule"): lambda module: known(module._orig_mod),
    ("torch", "DataParallel"): lambda module: known(module.module),
}
"""By the library and the name of the class."""
