"""What cannot be right is refused by name before anything is trained.

A few passes of tiny batches tell: every function between elastic layers is checked as it is called
(`boundnas.guard.functions`), and the model must be afterwards what it was before.
"""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.elastic import BatchNorm, ElasticLayer, Stage
from boundnas.elastic.choice import Wholes
from boundnas.elastic.ghost import Ghosted
from boundnas.errors import SpaceError
from boundnas.guard.call import SAMPLES, near, trace_of
from boundnas.guard.counts import Choice, counted
from boundnas.guard.functions import Watch
from boundnas.guard.state import State, marks, python_states, random_states, untouched
from boundnas.randomness import stream
from boundnas.space import Architecture, Derived, Dimension, Pass, Setting, Value, followed
from boundnas.supernet import modes, place
from boundnas.supernet.inputs import noise
from boundnas.supernet.supernet import Supernet

MOST = 32
"""Architectures that differ in what `forward` itself reads from them, at most so many."""


def check(model: Supernet, ghost_fraction: float = 0.5) -> None:
    """Refuse a network that would train wrongly or otherwise than it says.

    Runs it with every kind of choice, on noise, in training mode. It is left as it is, and no
    random numbers are drawn from global generators.

    Args:
        model: The supernet.
        ghost_fraction: That of the training. Below 1 a pass on part of the samples is tried, too.

    Raises:
        SpaceError: A function mixes channels or samples of a searched map; something keeps
            statistics, changes in `forward` or draws random numbers of its own; a searched map ends
            without a layer that takes it; `forward` fails. Names what, where, and what to do.
    """
    device = next(model.parameters()).device
    with untouched(model, device) as state:
        modes.train(model)
        _check_layers(model)
        reads: set[Dimension] = set()
        done: set[Architecture] = set()
        for arch in itertools.chain(_corners(model), _branches(model, reads)):
            if arch not in done:
                done.add(arch)
                _check_pass(model, _gated(model, arch, reads), state)
        if ghost_fraction < 1:
            deep = _gated(model, _deep(model, 0), reads)
            _check_pass(model, deep.carrying(ghost_fraction=2 / SAMPLES), state)


def _check_layers(model: Supernet) -> None:
    for name, module in model.named_modules():
        if isinstance(module, ElasticLayer) and module._modules:
            raise SpaceError(
                f"{name} ({type(module).__name__}): an elastic layer has no modules inside, found "
                f"{', '.join(module._modules)}; its weights are sliced and counted as they are, so "
                "parametrize plain layers only"
            )
        if isinstance(module, BatchNorm) and not module.training:
            raise SpaceError(
                f"{name} ({type(module).__name__}) is in evaluation mode while the model trains; "
                "it keeps no statistics to evaluate with. To freeze its weights use "
                "requires_grad_(False)"
            )


@dataclass(frozen=True, eq=False, repr=False)
class _Asked(Architecture):
    """An architecture that notes which dimensions `forward` itself asks it for."""

    reads: set[Dimension] = field(default_factory=set)

    def __getitem__(self, dimension: Dimension) -> Value:
        chosen = super().__getitem__(dimension)
        return self._told(chosen, dimension) if _users() else chosen

    def value(self, setting: Setting) -> Value:
        """As of any architecture; what `forward` asks for remembers that it was chosen."""
        chosen = super().value(setting)
        if isinstance(setting, Derived) and _users():
            return self._told(chosen, setting)
        return chosen

    def _told(self, chosen: Value, setting: Dimension | Derived) -> Value:
        self.reads.update(followed(setting))
        remembering: Value = counted(chosen, setting.choices[-1], Choice)
        return remembering

    @property
    def values(self) -> dict[str, Value]:
        """As of any architecture; notes all dimensions."""
        if _users():
            self.reads.update(self.space.dimensions)
        return super().values


_ARCHITECTURES = (__name__, Architecture.__module__)


def _users() -> bool:
    """Whether what was called here was called by a user's `forward`, not by an elastic layer."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _ARCHITECTURES:
        frame = frame.f_back
    return frame is not None and place.is_users(frame)


def _gated(model: Supernet, arch: Architecture, reads: set[Dimension]) -> _Asked:
    weight = next(p for p in model.parameters() if p.is_floating_point())
    gates = tuple(
        torch.eye(len(d), dtype=weight.dtype, device=weight.device)[i].requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    return _Asked(arch.space, arch.indices, Pass(gates=gates), reads)


def _deep(model: Supernet, width: int) -> Architecture:
    """The smallest options, or the largest but ``-width``, of everything but stages' depths."""
    depths = [m.depth for m in model.modules() if isinstance(m, Stage)]
    indices = (
        len(d) - 1 if d in depths else max(0, len(d) + width if width else 0)
        for d in model.space.dimensions
    )
    return Architecture(model.space, tuple(indices))


def _corners(model: Supernet) -> Iterator[Architecture]:
    """Architectures in which searched maps differ in what is active, each layer used by some."""
    space = model.space
    yield space.smallest
    yield space.largest
    yield _deep(model, 0)
    yield _deep(model, -2)
    yield Architecture(space, tuple(i % len(d) for i, d in enumerate(space.dimensions)))
    for number in range(2):
        yield space.sample(stream(0, "guard", number))


def _branches(model: Supernet, reads: set[Dimension]) -> Iterator[Architecture]:
    """Architectures that take every branch of `forward`, or many; it was run before."""
    wholes = {d for m in model.modules() if isinstance(m, Wholes) for d in followed(m.setting)}
    asked = [d for d in model.space.dimensions if d in reads | wholes]
    deep = _deep(model, 0)
    options: Any = itertools.product(*(range(len(d)) for d in asked))
    if math.prod(len(d) for d in asked) > MOST:
        generator = stream(0, "guard branches")
        alone = [{d: j} for d in asked for j in range(len(d))]
        drawn = [model.space.sample(generator) for _ in range(MOST)]
        yield from (_with(deep, choice) for choice in alone)
        yield from drawn
        return
    yield from (_with(deep, dict(zip(asked, each, strict=True))) for each in options)


def _with(arch: Architecture, indices: dict[Dimension, int]) -> Architecture:
    pairs = zip(arch.space.dimensions, arch.indices, strict=True)
    return Architecture(arch.space, tuple(indices.get(d, i) for d, i in pairs))


def _check_pass(model: Supernet, arch: _Asked, state: State, draws: bool = False) -> None:
    """Run a network forward and back, and look at what it left behind."""
    weight = next(p for p in model.parameters() if p.is_floating_point())
    images = noise(model, SAMPLES, stream(0, "guard images"))
    watch = Watch(model, arch, draws)
    python, before = python_states(), random_states(weight.device)
    try:
        with place.failing(model, arch), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of functions that are called here to compare
            # A ghost of a part of the samples cannot be joined to the active channels.
            with watch if arch.ghost_fraction == 1 else nullcontext():
                first = _checked_output(model, model(images, arch), arch)
            attributes = marks(model)
            second = model(images, arch)
            _check_gradient(model, second, arch)
    finally:
        watch.close()
    _check_state(model, state, attributes)
    if random_states(weight.device) != before and not draws:
        _check_pass(model, arch, state, draws=True)  # slower; it names who drew
    _check_generators(model, python, before, weight.device)
    _check_repeats(model, first, second)


def _check_repeats(model: Supernet, first: Tensor, second: Tensor) -> None:
    """Refuse two outputs of the same images that differ, which is all that some states show."""
    first, second = first.detach().nan_to_num(), second.detach().nan_to_num()
    if not (torch.equal(first, second) if first.is_cpu else near(first, second)):
        raise SpaceError(
            f"{place.of(model)}: {type(model).__name__}.forward gives something else every time "
            "that it is called in training: it draws random numbers, reads the time or keeps a "
            "state; what a network computes may follow from weights, images and architecture only, "
            "as runs are resumed. elastic.Dropout and elastic.DropConnect draw by seed and step"
        )


def _checked_output(model: Supernet, output: Any, arch: Architecture) -> Tensor:
    found = output if isinstance(output, Tensor) else None
    if isinstance(output, Ghosted):
        raise SpaceError(
            f"{place.of(model)}: {type(model).__name__}.forward returns the output of "
            f"{trace_of(output).source}, whose width is searched; let the last layer give a fixed "
            "number of features"
        )
    if found is None or found.dim() == 0 or len(found) != SAMPLES:
        shape = type(output).__name__ if found is None else f"shape {tuple(found.shape)}"
        raise SpaceError(
            f"{place.of(model)}: {type(model).__name__}.forward must return one tensor with a row "
            f"for every sample, as logits (N, classes); found, of {SAMPLES} samples in the "
            f"architecture {arch}, {shape}. Several outputs go side by side into one tensor "
            "(torch.cat), which the functions of a task of your own take apart"
        )
    return found


def _check_gradient(model: nn.Module, output: Tensor, arch: _Asked) -> None:
    assert arch.gates is not None
    inputs = [p for p in (*model.parameters(), *arch.gates) if p.requires_grad]
    if output.requires_grad:
        _check_registered(model, output, inputs)
        torch.autograd.grad(output.square().sum(), inputs, allow_unused=True)


def _check_registered(model: nn.Module, output: Tensor, inputs: list[Tensor]) -> None:
    """Refuse weights that nobody trains, as of layers in a plain list.

    Raises:
        SpaceError: Names the shape of such a weight.
    """
    known, seen, todo = {id(x) for x in inputs}, set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        weight = getattr(node, "variable", None)
        if isinstance(weight, nn.Parameter) and id(weight) not in known:
            raise SpaceError(
                f"{place.of(model)}: {type(model).__name__}.forward computes with a weight of the "
                f"shape {tuple(weight.shape)} that is no parameter of the model, so that it would "
                "never be trained, saved or counted; hold layers in attributes of the module, "
                "nn.ModuleList or nn.ModuleDict, not in plain lists, dicts or functions"
            )


def _check_state(model: Supernet, state: State, attributes: dict[tuple[str, str], object]) -> None:
    """Refuse what changes in a forward pass.

    Raises:
        SpaceError: Names the module and what of it changes.
    """
    if (found := state.changed_tensors()) is not None:
        name, module, keys = found
        raise SpaceError(
            f"{name or 'the model'} ({type(module).__name__}): forward changes {', '.join(keys)}, "
            "which all networks of the space would share, and which belong to none of them. "
            f"Instead use {_instead(module)}"
            + (
                f", or freeze it: put it, and it alone, into evaluation mode, model.{name}.eval()"
                if name
                else ""
            )
        )
    now = marks(model)
    changed = [key for key in now if attributes.get(key, now) != now[key]]
    if changed:
        name, attribute = changed[0]
        raise SpaceError(
            f"{name or 'the model'} ({type(model.get_submodule(name)).__name__}): forward changes "
            f"its attribute {attribute}; what a network computes may follow from weights, images "
            "and architecture only, as several are measured at a time and runs are resumed"
        )


def _instead(module: nn.Module) -> str:
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        name = type(module).__name__
        return f"elastic.{name}({module.num_features}), which takes fixed numbers too"
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return "elastic.BatchNorm2d, or a normalization without running statistics"
    return "one that keeps nothing"


def _check_generators(
    model: Supernet, python: dict[str, Any], before: list[bytes], device: torch.device
) -> None:
    drawn = [name for name, state in python_states().items() if python.get(name, state) != state]
    if random_states(device) != before:
        drawn.append("torch")
    if drawn:
        raise SpaceError(
            f"{place.of(model)}: {type(model).__name__}.forward draws random numbers of "
            f"{drawn[0]}, so that resumed runs would train another network; use elastic.Dropout "
            "or elastic.DropConnect"
        )
