"""Which dimensions a boundary can learn: those whose every option has an exact gradient.

Elastic layers give each option of what they are built with its gradient. What ``forward`` itself
makes of an architecture has none: a branch on ``arch``, a number computed from it, a function that
is called for some widths only. The policy of such a dimension would stay where it starts, or
follow a gradient that is not the loss's.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from boundnas.elastic import Shortcut
from boundnas.elastic.choice import Wholes
from boundnas.errors import SpaceError
from boundnas.guard.state import untouched
from boundnas.randomness import stream
from boundnas.space import Architecture, Dimension, followed
from boundnas.supernet.inputs import noise
from boundnas.supernet.modes import training
from boundnas.supernet.paths import Paths, paths
from boundnas.supernet.supernet import Supernet

_INSTEAD = (
    "let an elastic layer make the choice (elastic.Stage for depth, Choice, Resized, "
    "SqueezeExcite, a kernel size, an activation or a width), read widths off the shape of a map, "
    "or train with learn: none, where the choice is searched only"
)


def check_used(model: Supernet, others: Iterable[Dimension] = ()) -> None:
    """Refuse a dimension that changes nothing.

    Args:
        model: The supernet.
        others: Dimensions that a cost depends on.

    Raises:
        SpaceError: Names the dimensions that nothing looks up.
    """
    found = paths(model)
    used = set(others).union(*(found.trail(arch).used for arch in found.probes))
    unused = [d.name for d in _searched(model) if d not in used]
    if unused:
        raise SpaceError(
            f"nothing in {type(model).__name__} uses {', '.join(unused)}: neither the output nor "
            "the cost depends on it; build a layer with it, or remove it"
        )


def check_learnable(model: Supernet) -> None:
    """Refuse dimensions without an exact gradient.

    Raises:
        SpaceError: Names the dimensions, where ``forward`` looks them up, and what to do.
    """
    found = paths(model)
    _check_look_ups(model, found)
    _check_steps(model, found)
    _check_uses(model, found)
    _check_gates(model, found)


def _refuse(what: str) -> None:
    raise SpaceError(
        f"{what}; so its options have no exact gradient, and a boundary cannot learn them: "
        f"{_INSTEAD}"
    )


def _searched(model: Supernet) -> list[Dimension]:
    return [d for d in model.space.dimensions if len(d) > 1]


def _check_look_ups(model: Supernet, found: Paths) -> None:
    """What ``forward`` looks up by itself."""
    places: dict[Dimension, str] = {}
    for arch in found.probes:
        for dimension, place in found.trail(arch).looked_up.items():
            places.setdefault(dimension, place)
    named = [f"{d.name} ({places[d]})" for d in _searched(model) if d in places]
    if named:
        _refuse(f"forward itself looks up {', '.join(named)}")


def _check_steps(model: Supernet, found: Paths) -> None:
    """What changes the functions, their numbers, or the layers that ``forward`` calls."""
    largest = model.space.largest
    for arch in found.probes:
        places = found.differ(arch, largest)
        if places:
            names = ", ".join(d.name for d in found.between(largest, arch))
            where = ", ".join(type(model.get_submodule(place)).__name__ for place in places)
            _refuse(
                f"the forward of {where} calls other functions or layers, or with other numbers, "
                f"where {names} changes"
            )


def _check_uses(model: Supernet, found: Paths) -> None:
    """What changes the resolution, or the layers that an elastic module uses."""
    for name, use in found.uses.items():
        if not use.dimensions or name.endswith(")"):
            continue
        settled = _settled(model, name)
        if free := [d for d in use.dimensions if d not in settled]:
            names = ", ".join(d.name for d in free)
            _refuse(f"whether or at what resolution {name} is used follows {names}")


def _settled(model: Supernet, name: str) -> set[Dimension]:
    """The dimensions that a choice or a shortcut around a module learns, in any of its places."""
    modules = dict(model.named_modules(remove_duplicate=False))
    own = [place.split(".") for place, module in modules.items() if module is modules.get(name)]
    around = [modules[".".join(parts[:i])] for parts in own for i in range(len(parts))]
    return {d for m in around if isinstance(m, Wholes | Shortcut) for d in followed(m.setting)}


def _check_gates(model: Supernet, found: Paths) -> None:
    """Whose gate is not part of what a loss is computed from."""
    missing = dict.fromkeys(_searched(model))
    for arch in found.probes:
        if not missing:
            return
        gradients = _gradients(model, arch)
        for dimension, gradient in zip(model.space.dimensions, gradients, strict=True):
            if gradient is not None:
                missing.pop(dimension, None)
    if missing:
        _refuse(f"no gradient of the outputs reaches {', '.join(d.name for d in missing)}")


def _gradients(model: Supernet, arch: Architecture) -> list[Tensor | None]:
    """Gradients of the gates in a training pass on noise that leaves nothing behind."""
    weight = next(model.parameters())
    gates = tuple(
        torch.eye(len(d), dtype=weight.dtype, device=weight.device)[i].requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    images = noise(model, 4, stream(0, "check_learnable"))
    with untouched(model, weight.device), training(model):
        logits = model(images, arch.carrying(gates=gates))
    if not logits.requires_grad:
        return [None] * len(gates)
    return list(torch.autograd.grad(logits.sum(), gates, allow_unused=True))
