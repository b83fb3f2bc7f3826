"""The plain forms of a model's modules, without values, and what they make of a tensor."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from boundnas.elastic import BatchNorm, ElasticLayer, Recurrent
from boundnas.elastic.width import active
from boundnas.errors import CostError
from boundnas.space import Architecture, Dimension, Pass, Setting, Statistics, followed
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.trail import Watched


class Plains:
    """Plain forms on the meta device: of architectures that a module cannot tell apart, one.

    Args:
        model: The supernet.
    """

    def __init__(self, model: Supernet) -> None:
        self.modules = {f"model.{name}": module for name, module in model.named_modules()}
        self._made: dict[str, list[tuple[dict[Dimension, int], nn.Module | None]]] = {}
        """Of every module its forms, each with all that was asked of an architecture to make it."""
        self._ran: dict[tuple[object, ...], tuple[Tensor, list[Any]]] = {}

    def of(self, target: str, arch: Architecture) -> nn.Module | None:
        """The plain form of a module, named as in a graph; none where it does nothing.

        Raises:
            CostError: A module of torch does many things at once.
        """
        made = self._made.setdefault(target, [])
        for known, plain in made:
            if all(arch.option(d) == option for d, option in known.items()):
                return plain
        asked: dict[Dimension, int] = {}

        def tell(settings: Sequence[Setting]) -> None:
            asked.update((d, arch.option(d)) for each in settings for d in followed(each))

        sized = _Sized(self)
        sized.arch = Watched(arch.space, arch.indices, Pass(statistics=sized), tell=tell)
        plain = self._plain(target, sized.arch)
        made.append((asked, plain))
        return plain

    def _plain(self, target: str, arch: Architecture) -> nn.Module | None:
        module = self.modules[target]
        unknown = nn.MultiheadAttention | nn.RNNBase | Recurrent
        if any(isinstance(m, unknown) for m in module.modules()):
            raise CostError(
                f"{target.removeprefix('model.')} ({type(module).__name__}): what it holds while "
                "it runs is not known; use elastic.MultiheadAttention, functions of torch, or "
                "another cost"
            )
        elastic = isinstance(module, ElasticLayer)
        plain = module.plain(arch) if elastic else copy.deepcopy(module)
        return None if plain is None else _light(plain).to("meta").eval()

    def known(self, plain: nn.Module, x: Tensor) -> tuple[Tensor, list[Any]] | None:
        """What a form made of another tensor like this one, anew, and by which operators."""
        found = self._ran.get(_key(plain, x))
        if found is None:
            return None
        y, called = found
        return torch.empty_strided(y.shape, y.stride(), dtype=y.dtype, device="meta"), called

    def note(self, plain: nn.Module, x: Tensor, y: Tensor, called: list[Any]) -> None:
        """Keep what a form made in memory of its own."""
        self._ran[_key(plain, x)] = y, called


def _key(plain: nn.Module, x: Tensor) -> tuple[object, ...]:
    return plain, x.shape, x.stride(), x.dtype


class _Sized(Statistics):
    """Statistics of the right sizes, whatever they are."""

    arch: Architecture

    def __init__(self, plains: Plains) -> None:
        self._modules = plains.modules

    def of(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """As many as there are channels."""
        found = self._modules[f"model.{layer}"]
        assert isinstance(found, BatchNorm)
        sized = active(x.detach(), found.channels, self.arch)
        return sized, sized


class Affine(nn.Module):
    """BatchNorm with its statistics: a function of single elements."""

    def forward(self, x: Tensor) -> Tensor:
        """As large as ``x``."""
        return x * 1


def _light(module: nn.Module) -> nn.Module:
    """A module without BatchNorm, which takes long on the meta device."""
    if isinstance(module, _BatchNorm):
        return Affine()
    for name, child in module.named_children():
        setattr(module, name, _light(child))
    return module
