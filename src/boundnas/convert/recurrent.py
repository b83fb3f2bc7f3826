"""Recurrent layers of ``torch.nn``, said so that each has a rule and the library draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence

from boundnas.convert.given import hooked


class Recurrent(nn.Module):
    """An ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` as its layers, one after the other.

    The last state is read off the states of all steps, so that it follows their width.

    Args:
        module: It; its weights are taken.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(module, i) for i in range(module.num_layers))
        self.drop = nn.Dropout(module.dropout)
        self._whole, self.directions = (module,), 1 + module.bidirectional
        self.is_lstm, self.batch_first = isinstance(module, nn.LSTM), module.batch_first

    def forward(self, x: Any, hx: Any = None) -> Any:
        """As of torch's."""
        if isinstance(x, PackedSequence) or x.dim() != 3:
            return self._whole[0](x, hx)
        x = x if self.batch_first else x.transpose(0, 1)
        last, cells = [], []
        for i, layer in enumerate(self.layers):
            x = self.drop(x) if i and self.drop.p else x
            x, state = layer(x, self._of_layer(hx, i))
            both = x.chunk(self.directions, -1) if self.directions > 1 else (x,)
            last += [
                y[:, -1 if forwards else 0]
                for y, forwards in zip(both, (True, False), strict=False)
            ]
            cells += [state[1]] if self.is_lstm else []
        x, state = x if self.batch_first else x.transpose(0, 1), torch.stack(last)
        return x, ((state, torch.cat(cells)) if self.is_lstm else state)

    def _of_layer(self, hx: Any, i: int) -> Any:
        """The first state of a layer, which comes with those of the others."""
        place = slice(i * self.directions, (i + 1) * self.directions)
        if hx is None:
            return None
        return (hx[0][place], hx[1][place]) if self.is_lstm else hx[place]


def recurrent(module: Any) -> nn.Module:
    """The same in single layers; as it is where something else computes its weights."""
    return module if is_parametrized(module) or hooked(module) else Recurrent(module)


def _layer(module: Any, i: int) -> nn.Module:
    """One of the layers, with its weights."""
    options: dict[str, Any] = {
        "bias": module.bias, "batch_first": True, "bidirectional": module.bidirectional,
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
