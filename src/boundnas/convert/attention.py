"""The attention of ``torch.nn``, said in layers that have rules.

It computes what torch's does but for rounding: torch multiplies in another order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """An ``nn.MultiheadAttention``.

    Args:
        module: It; weights are shared with it.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.heads, self.batch_first = module.num_heads, module.batch_first
        if module.in_proj_weight is None:
            weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        else:
            weights = module.in_proj_weight.chunk(3)
        biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        each = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        self.query, self.key, self.value = each
        self.project = _linear(module.out_proj.weight, module.out_proj.bias)
        self.drop = nn.Dropout(module.dropout) if module.dropout else None
        self.bias_k, self.bias_v = module.bias_k, module.bias_v
        self.zero = module.add_zero_attn

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As of torch's."""
        query, key, value = (self._batched(x) for x in (query, key, value))
        q = self._heads(query, self.query)
        k, v = self._heads(key, self.key, self.bias_k), self._heads(value, self.value, self.bias_v)
        mask = self._mask(attn_mask, key_padding_mask, q)
        if self.zero:
            k, v = (F.pad(y, (0, 0, 0, 1)) for y in (k, v))
        weights = self._weights(q, k, mask) if need_weights or self.drop is not None else None
        if self.drop is None or weights is None:
            y = F.scaled_dot_product_attention(q, k, v, mask)
        else:
            y = self.drop(weights) @ v
        y = self.project(y.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        return (y if self.batch_first else y.transpose(0, 1)), weights if need_weights else None

    def _batched(self, x: Tensor) -> Tensor:
        return x if self.batch_first else x.transpose(0, 1)

    def _heads(self, x: Tensor, layer: nn.Linear, beside: Tensor | None = None) -> Tensor:
        y, width = layer(x), layer.out_features // self.heads
        if beside is not None:  # a token more, the same for every sample
            y = torch.cat((y, beside.expand(x.shape[0], -1, -1)), 1)
        return y.unflatten(-1, (self.heads, width)).transpose(1, 2)

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        width = self.query.out_features // self.heads
        products = (q * width**-0.5) @ k.transpose(-2, -1)
        return torch.softmax(products if mask is None else products + mask, -1)

    def _mask(self, attn: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        """What is added to the products of queries and keys."""
        found = None
        if attn is not None:
            found = _added(attn, q)
            if attn.dim() == 3:
                found = found.unflatten(0, (-1, self.heads))
        if padding is not None:
            ignored = _added(padding, q)[:, None, None]
            found = ignored if found is None else found + ignored
        more = int(self.bias_k is not None) + int(self.zero)  # which all may see
        return found if found is None or not more else F.pad(found, (0, more))


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask to be added: of one that says what is left out, minus infinity there."""
    if mask.dtype != torch.bool:  # by value: of a mask that is computed the type is recorded too
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    layer.weight = nn.Parameter(weight.detach(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), bias.requires_grad)
    return layer
