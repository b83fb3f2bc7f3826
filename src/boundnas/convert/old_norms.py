"""Weight norms of ``torch.nn.utils.weight_norm``, which are hooks, said as parametrizations."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.weight_norm import WeightNorm


def parametrize(module: nn.Module) -> None:
    """Have a layer compute its weights by parametrizations, of the same parameters."""
    if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        return  # as recurrent ones, which do not ask parametrizations
    hooks = [(key, h) for key, h in module._forward_pre_hooks.items() if type(h) is WeightNorm]
    for key, hook in hooks:
        length, direction = (getattr(module, f"{hook.name}_{part}") for part in "gv")
        hook.remove(module)
        del module._forward_pre_hooks[key]
        parametrizations.weight_norm(module, hook.name, hook.dim)
        lists: Any = module.parametrizations
        lists[hook.name].original0, lists[hook.name].original1 = length, direction
