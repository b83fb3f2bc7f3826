"""Recurrent layers of ``torch.nn`` that drop between them, said so that the library draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """An ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` of several layers, one after the other.

    Args:
        module: It; its weights are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(module, i) for i in range(module.num_layers))
        self.drop, self.directions = nn.Dropout(module.dropout), 1 + module.bidirectional
        self.is_lstm = isinstance(module, nn.LSTM)

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """As of torch's, of batches."""
        states = []
        for i, layer in enumerate(self.layers):
            x = self.drop(x) if i else x
            x, state = layer(x, self._of_layer(hx, i))
            states.append(state)
        if not self.is_lstm:
            return x, torch.cat(states)
        return x, (torch.cat([h for h, _ in states]), torch.cat([c for _, c in states]))

    def _of_layer(self, hx: Any, i: int) -> Any:
        """The first state of a layer, which comes with those of the others."""
        place = slice(i * self.directions, (i + 1) * self.directions)
        if hx is None:
            return None
        return (hx[0][place], hx[1][place]) if self.is_lstm else hx[place]


def recurrent(module: Any) -> nn.Module:
    """The same where it drops; as it is where it does not."""
    return Recurrent(module) if module.dropout and module.num_layers > 1 else module


def _layer(module: Any, i: int) -> nn.Module:
    """One of the layers, with its weights."""
    options: dict[str, Any] = {
        "bias": module.bias, "batch_first": module.batch_first,
        "bidirectional": module.bidirectional,
    }  # fmt: skip
    if isinstance(module, nn.RNN):
        options["nonlinearity"] = module.nonlinearity
    if module.proj_size:
        options["proj_size"] = module.proj_size
    own = module.proj_size or module.hidden_size
    inputs = module.input_size if i == 0 else own * (1 + module.bidirectional)
    with torch.device("meta"):
        layer: Any = type(module)(inputs, module.hidden_size, **options)
    for name in list(layer._parameters):
        setattr(layer, name, getattr(module, name.replace("_l0", f"_l{i}")))
    return layer
