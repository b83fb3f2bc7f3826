"""The transformer layers of ``torch.nn``, said in layers that have rules.

PyTorch's own take a path of their own in evaluation, one fused operator; these never do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


class _OfBatches(nn.Module):
    """What takes batches first within, whatever it is given.

    Args:
        layers: Layers of torch, which are made to take them so.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        super().__init__()
        attentions = [m for x in layers for m in x.modules() if type(m) is nn.MultiheadAttention]
        self.turned = any(not attention.batch_first for attention in attentions)
        for attention in attentions:
            attention.batch_first = True

    def _turn(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1) if self.turned else x


class EncoderLayer(_OfBatches):
    """An ``nn.TransformerEncoderLayer``.

    Args:
        module: It; its layers are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__([module])
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
        x, first = self._turn(src), self.norm_first
        x = x + self._attended(self.norm1(x) if first else x, src_mask, src_key_padding_mask)
        x = x if first else self.norm1(x)
        x = x + self.dropout2(self._hidden(self.norm2(x) if first else x))
        return self._turn(x if first else self.norm2(x))

    def _attended(self, x: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
        y = self.self_attn(x, x, x, key_padding_mask=padding, need_weights=False, attn_mask=mask)
        return self.dropout1(y[0])

    def _hidden(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class Encoder(_OfBatches):
    """An ``nn.TransformerEncoder``.

    Args:
        module: It; its layers are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module.layers)
        self.layers, self.norm = module.layers, module.norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """As of torch's."""
        x = self._turn(src)
        for layer in self.layers:
            x = layer(x, mask, src_key_padding_mask)
        return self._turn(x if self.norm is None else self.norm(x))


class DecoderLayer(EncoderLayer):
    """An ``nn.TransformerDecoderLayer``.

    Args:
        module: It; its layers are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.multihead_attn, self.norm3 = module.multihead_attn, module.norm3
        self.dropout3 = module.dropout3

    def forward(  # type: ignore[override]
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """As of torch's."""
        x, memory, first = self._turn(tgt), self._turn(memory), self.norm_first
        x = x + self._attended(self.norm1(x) if first else x, tgt_mask, tgt_key_padding_mask)
        x = x if first else self.norm1(x)
        y = self.norm2(x) if first else x
        x = x + self._looked_up(y, memory, memory_mask, memory_key_padding_mask)
        x = x if first else self.norm2(x)
        x = x + self.dropout3(self._hidden(self.norm3(x) if first else x))
        return self._turn(x if first else self.norm3(x))

    def _looked_up(
        self, x: Tensor, memory: Tensor, mask: Tensor | None, padding: Tensor | None
    ) -> Tensor:
        y = self.multihead_attn(
            x, memory, memory, key_padding_mask=padding, need_weights=False, attn_mask=mask
        )
        return self.dropout2(y[0])


class Decoder(Encoder):
    """An ``nn.TransformerDecoder``, which holds what an encoder does.

    Args:
        module: It; its layers are taken.
    """

    def forward(  # type: ignore[override]
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """As of torch's."""
        x, memory = self._turn(tgt), self._turn(memory)
        for layer in self.layers:
            x = layer(
                x, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
            )
        return self._turn(x if self.norm is None else self.norm(x))


class Transformer(nn.Module):
    """An ``nn.Transformer``.

    Args:
        module: It; its encoder and decoder are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = module.encoder, module.decoder

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """As of torch's."""
        memory = self.encoder(src, src_mask, src_key_padding_mask)
        y: Tensor = self.decoder(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        )
        return y
