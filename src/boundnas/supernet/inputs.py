"""What a model takes: one example says it, and gives inputs to look at the model with."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from boundnas.errors import SpaceError
from boundnas.nested import Inputs, described, leaves, mapped, structure

KINDS = (torch.float32, torch.int64, torch.bool)
"""Types that a tensor of an input may have."""


def as_example(given: Sequence[int] | Inputs) -> Inputs:
    """One sample, from a sample or from the shape of one of float32.

    Raises:
        SpaceError: It is neither, or of numbers that no model here takes.
    """
    if isinstance(given, Sequence) and not any(isinstance(n, Tensor | dict) for n in given):
        return torch.zeros(_shape(given), dtype=torch.float32)
    found = list(leaves(given))
    for name, part in found:
        if not isinstance(part, Tensor) or part.dtype not in KINDS or 0 in part.shape:
            kind = described(part)
            raise SpaceError(
                f"{_WANTED}; found {kind}{f' at {name}' if name else ''} (of float32, int64 or "
                "bool, not empty)"
            )
    if not found:
        raise SpaceError(f"{_WANTED}; found no tensor")
    return mapped(lambda x: x.detach().cpu().clone(), given)


def zeros(model: Any, number: int) -> Inputs:
    """So many samples of zeros; of whole numbers, which may be no zeros, the example's own."""
    weight = next(model.parameters())

    def made(x: Tensor) -> Tensor:
        if x.is_floating_point():
            return weight.new_zeros(number, *x.shape)
        return x.expand(number, *x.shape).to(weight.device)

    return mapped(made, model.example)


def noise(model: Any, number: int, generator: torch.Generator) -> Inputs:
    """So many samples of normal noise; of whole numbers, draws of those in the example."""
    return noise_like(model.example, number, generator, next(model.parameters()))


def padded(model: Any, generator: torch.Generator) -> Inputs:
    """Three samples such as masks are made of: zeros from the middle of the first axis on, of the
    last axis, and none. The rest is noise; of whole numbers, draws of 0 to the largest in the
    example; of truths, of both.
    """
    weight = next(model.parameters())

    def made(x: Tensor) -> Tensor:
        if x.is_floating_point():
            drawn = torch.randn(3, *x.shape, generator=generator, dtype=torch.float32).to(weight)
        else:
            least, most = min(0, int(x.min())), 1 if x.dtype == torch.bool else int(x.max())
            drawn = torch.randint(least, most + 1, (3, *x.shape), generator=generator)
            drawn = drawn.to(weight.device, x.dtype)
        if x.dim():
            drawn[0, x.shape[0] // 2 :] = 0
            drawn[1, ..., x.shape[-1] // 2 :] = 0
        return drawn

    return mapped(made, model.example)


def noise_like(example: Inputs, number: int, generator: torch.Generator, weight: Tensor) -> Inputs:
    """Likewise, of the precision and on the device of ``weight``."""

    def made(x: Tensor) -> Tensor:
        if x.is_floating_point():
            return torch.randn(number, *x.shape, generator=generator, dtype=torch.float32).to(
                weight
            )
        drawn = torch.randint(x.numel(), (number, *x.shape), generator=generator)
        return x.flatten()[drawn].to(weight.device)

    return mapped(made, example)


def check(model: nn.Module, example: Inputs, x: Inputs) -> None:
    """Refuse a batch that is none of this model's.

    Raises:
        SpaceError: Another structure, number of axes or type.
    """
    given = list(leaves(x))
    if any(isinstance(part, fx.Proxy) for _, part in given):
        return  # what traces forward is no tensor
    if structure(x) != structure(example):
        raise SpaceError(
            f"inputs of this model are, without the batch axis, {described(example)}; found "
            f"{described(x)}"
        )
    weight = next(model.parameters(), None)
    for (name, wanted), (_, part) in zip(leaves(example), given, strict=True):
        _check_leaf(name, wanted, part, None if weight is None else weight.dtype)


def _check_leaf(name: str, wanted: Tensor, x: Tensor, weights: torch.dtype | None) -> None:
    what = f"inputs{name}" if name or wanted.dim() != 3 else "images"
    sized = wanted.shape[:1] if wanted.dim() in (1, 3) and wanted.is_floating_point() else ()
    if x.dim() != wanted.dim() + 1 or x.shape[1 : 1 + len(sized)] != tuple(sized):
        raise SpaceError(
            f"{what} of this model have the shape (N, {', '.join(map(str, wanted.shape))}), found "
            f"{tuple(x.shape)}{_likely(wanted, x)}"
        )
    kind = weights if wanted.is_floating_point() and weights is not None else wanted.dtype
    if x.dtype != kind:
        if wanted.is_floating_point() and torch.is_autocast_enabled(x.device.type):
            return
        pixels = ", from pixels with boundnas.data.normalize" if what == "images" else ""
        held = f"and the model's weights {kind}" if wanted.is_floating_point() else f"not {kind}"
        raise SpaceError(f"{what} are {x.dtype} {held}; convert the {what} by x.to({kind}){pixels}")


def _likely(wanted: Tensor, x: Tensor) -> str:
    if x.shape == wanted.shape:
        return "; add the batch axis: x[None]"
    if wanted.dim() == 3 and x.dim() == 4 and x.shape[3] == wanted.shape[0]:
        return "; channels come first: x.permute(0, 3, 1, 2)"
    return ""


def _shape(given: Sequence[int]) -> tuple[int, ...]:
    try:
        whole = tuple(map(operator.index, given))
    except TypeError:
        whole = ()
    if not whole or min(whole) < 1:
        raise SpaceError(f"{_WANTED}; found {given}")
    return whole


_WANTED = (
    "input_shape is (channels, height, width) of an image or the shape of another sample, whole "
    "numbers of at least 1, or one sample as a tensor or as a tuple or dict of them"
)
