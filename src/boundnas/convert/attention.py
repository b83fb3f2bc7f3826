"""The attention and transformer layers of ``torch.nn``, said in layers that have rules.

They compute what torch's do but for rounding: torch multiplies in another order.
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
        q, k, v = self._heads(query, self.query), self._heads(key, self.key), None
        v = self._heads(value, self.value)
        mask = self._mask(attn_mask, key_padding_mask, q)
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

    def _heads(self, x: Tensor, layer: nn.Linear) -> Tensor:
        width = layer.out_features // self.heads
        return layer(x).unflatten(-1, (self.heads, width)).transpose(1, 2)

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
        return found


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


class EncoderLayer(nn.Module):
    """An ``nn.TransformerEncoderLayer``.

    Args:
        module: It; its layers are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.self_attn = module.self_attn
        self.linear1, self.dropout, self.linear2 = module.linear1, module.dropout, module.linear2
        self.norm1, self.norm2, self.norm_first = module.norm1, module.norm2, module.norm_first
        self.dropout1, self.dropout2 = module.dropout1, module.dropout2
        self.activation = module.activation

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """As of torch's."""
        x = src
        if self.norm_first:
            x = x + self._attended(self.norm1(x), src_mask, src_key_padding_mask)
            return x + self._fed(self.norm2(x))
        x = self.norm1(x + self._attended(x, src_mask, src_key_padding_mask))
        return self.norm2(x + self._fed(x))

    def _attended(self, x: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
        y = self.self_attn(x, x, x, key_padding_mask=padding, need_weights=False, attn_mask=mask)
        return self.dropout1(y[0])

    def _fed(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class Encoder(nn.Module):
    """An ``nn.TransformerEncoder``.

    Args:
        module: It; its layers are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.layers, self.norm = module.layers, module.norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """As of torch's."""
        x = src
        for layer in self.layers:
            x = layer(x, mask, src_key_padding_mask)
        return x if self.norm is None else self.norm(x)
