"""The exact gradient of every option at little more than the price of the chosen slice.

With a relaxed architecture a searched quantity means ``y = sum_j z_j y_j``, ``z`` one-hot, so
``dL/dz_j = <dL/dy, y_j>`` for *all* ``j``, the ones not chosen included. Where ``z_j = 0`` nothing
flows back through ``y_j``, so it is computed without a graph, from active inputs only.

- Channels that were not chosen travel beside the active ones as a **ghost** (`Ghosted`) until a
  layer that mixes channels would have consumed them; there ``<dL/dy, W_c * x_c>`` is the gradient
  of their gate (`ghost_inputs`). So gates sit at the consuming weights, after normalization and
  activation: BatchNorm would undo a gate before it.
- Whole alternatives (deeper layers, the other activation, squeeze-and-excite while it is off,
  a larger kernel) are computed in the backward pass, when ``dL/dy`` is known, and dropped again:
  by `mix`, or where a layer's own backward pass has what they need.

The reference all of this equals is a full-width pass with masks; it lives in ``tests/oracle.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from boundnas.elastic.masks import masked_weight
from boundnas.elastic.pointwise import inner_product, weight_products
from boundnas.errors import SpaceError


class Ghosted(Tensor):
    """A feature map of the active channels that carries the inactive ones as ``ghost``.

    Functions between elastic layers (activations, sums, poolings) act on both parts, on the ghost
    without a graph; they may do anything that treats channels alike and separately.
    """

    active: Tensor
    """The same map as a plain tensor."""
    ghost: Tensor

    def beside(self, active: Tensor) -> Tensor:
        """Another tensor of the active channels with the same ghost."""
        return join(active, self.ghost)

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Apply ``func`` to the active part and, without a graph, to the ghost."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*replaced(args, alone), **replaced(kwargs, alone))
            if not isinstance(result, PARTS) or isinstance(result, torch.Size):
                return result  # what is read off: sizes, types
            first = next(maps(args, kwargs))
            with torch.no_grad():
                args, kwargs = _for_ghosts(func, first, args, kwargs)
                if func in SIZED and isinstance(result, Tensor) and _same_type(result, first):
                    shapes = first.active.shape, first.ghost.shape, result.shape
                    sizes = resized(*shapes, left_open(args))
                    return join(result, first.ghost.reshape(sizes))
                of_ghost = partial(_of_ghost, first)
                ghost = func(*replaced(args, of_ghost), **replaced(kwargs, of_ghost))
            return _joined(result, ghost, func)


PARTS = (Tensor, list, tuple, type(None))
"""What a function gives that has two parts; none stands for one that works in place."""

SIZED = {Tensor.reshape, torch.reshape, Tensor.view, Tensor.unflatten, torch.unflatten}
"""Functions that are told sizes, which users write from those of the active part."""


CATS = {torch.cat, torch.concat, torch.concatenate}
"""Functions that put maps side by side; a plain one has no channels that were not chosen."""

SPLITS = {torch.split, Tensor.split}
"""Functions that take them apart by sizes, which users write from those of the active part."""


def _for_ghosts(func: Callable, first: Ghosted, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments as they are for the ghosts, where these are other maps or sizes."""
    if func in CATS:
        return tuple(map(_searched, args)), {k: _searched(v) for k, v in kwargs.items()}
    if func in SPLITS:
        axis = kwargs.get("dim", 0)
        old, new = first.active.shape[axis], first.ghost.shape[axis]
        return (args[0], _in_proportion(args[1], old, new), *args[2:]), kwargs
    return args, kwargs


def _searched(argument: Any) -> Any:
    """A list of maps without those that have no ghost."""
    if not isinstance(argument, list | tuple):
        return argument
    return [x for x in argument if isinstance(x, Ghosted)]


def _in_proportion(sizes: Any, old: int, new: int) -> Any:
    """The sizes that ghost channels are split into, where all parts are alike in proportion."""
    if isinstance(sizes, list | tuple):
        return [_in_proportion(size, old, new) for size in sizes]
    if old == 0 or sizes * new % old:
        raise SpaceError(
            f"split of a searched map into {sizes} of {old} channels: those not chosen, {new}, "
            "cannot be split likewise; take its maps apart with elastic.Split"
        )
    return int(sizes) * new // old


def replaced(argument: Any, part: Callable[[Any], Any]) -> Any:
    """An argument of a function, or all of them, with ``part`` of every tensor in its place."""
    if isinstance(argument, Tensor):
        return part(argument)
    if isinstance(argument, list | tuple) and not isinstance(argument, torch.Size):
        return type(argument)(replaced(each, part) for each in argument)
    if isinstance(argument, dict):
        return {name: replaced(each, part) for name, each in argument.items()}
    return argument


def maps(*arguments: Any) -> Iterator[Ghosted]:
    """The maps with a ghost among the arguments of a function."""
    for argument in arguments:
        if isinstance(argument, Ghosted):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from maps(*argument)
        elif isinstance(argument, dict):
            yield from maps(*argument.values())


def _same_type(x: Tensor, y: Ghosted) -> bool:
    """Whether a view is one of another shape, not of the same memory as another type."""
    return x.dtype is y.active.dtype


def alone(x: Tensor) -> Tensor:
    """The active part as a plain tensor."""
    return x.active if isinstance(x, Ghosted) else x


def _of_ghost(first: Ghosted, x: Tensor) -> Tensor:
    """The ghost of a map, and of a plain one of the same samples those that serve ghosts."""
    if isinstance(x, Ghosted):
        return x.ghost
    return leading(x, first.active, len(first.ghost))


def leading(x: Tensor, map_: Tensor, few: int) -> Tensor:
    """The ``few`` leading samples of ``x`` where it has the axes and the samples of a map."""
    alike = x.dim() == map_.dim() > 0 and few < len(map_) == len(x)
    return x[:few] if alike else x


def left_open(args: Sequence[Any]) -> int | None:
    """The axis whose size a reshape is not told, but ``-1``; none if there is none."""
    told = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
    return next((i for i, size in enumerate(told) if isinstance(size, int) and size == -1), None)


def resized(
    shape: Sequence[int], other: Sequence[int], sizes: Sequence[int], open_: int | None = None
) -> list[int]:
    """``sizes`` that a map of ``shape`` takes, for a map of the shape ``other``.

    What lies along an axis in which the two differ goes to the first of the axes that it comes to
    lie in: sizes are in memory's order, so that only there other channels follow the former. Beside
    axes of one entry that may be several; then it is the one that was left open, ``open_``.

    Raises:
        SpaceError: Channels or samples do not stay in one piece.
    """
    found = list(sizes)
    for axis, (old, new) in enumerate(zip(shape, other, strict=True)):
        if old == new:
            continue
        before = math.prod(shape[:axis])
        firsts = [j for j in range(min(axis, 1), len(sizes)) if math.prod(sizes[:j]) == before]
        ones = next((i for i in range(axis) if shape[axis - 1 - i] != 1), axis)  # right before it
        j = firsts[min(ones, len(firsts) - 1)] if firsts else None
        j = open_ if open_ in firsts and j is not None and sizes[j] != old else j
        if j is None or found[j] * new % old:
            raise SpaceError(
                f"reshape of a searched map from {tuple(shape)} to {tuple(sizes)}: it is not clear "
                "where the channels go; keep them on an axis of their own, or flatten(1)"
            )
        found[j] = found[j] * new // old
    return found


def _joined(active: Any, ghost: Any, func: Callable) -> Any:
    """Both parts of what a function gave."""
    if isinstance(active, Tensor):
        if not isinstance(ghost, Tensor) or active.dim() != ghost.dim():
            raise _treats_otherwise(func)
        return join(active, ghost)
    if isinstance(active, list | tuple):
        if len(active) != len(ghost):
            raise _treats_otherwise(func)
        return type(active)(_joined(a, g, func) for a, g in zip(active, ghost, strict=True))
    return active


def _treats_otherwise(func: Callable) -> SpaceError:
    name = getattr(func, "__name__", str(func))
    return SpaceError(
        f"{name} of a searched map gives another shape for its active channels than for those "
        "not chosen; name the axes it works on, none of them that of the channels"
    )


def split(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The active part as a plain tensor, and the ghost if there is one."""
    return (x.active, x.ghost) if isinstance(x, Ghosted) else (x, None)


def join(active: Tensor, ghost: Tensor | None) -> Tensor:
    """Attach a ghost, which has no graph, to the active channels; without one they stay plain."""
    if ghost is None:
        return active
    joined: Ghosted = active.as_subclass(Ghosted)
    joined.active, joined.ghost = active, ghost
    return joined


def part(x: Tensor, fraction: float) -> Tensor:
    """The leading part of the batch that serves the ghosts, at least two samples, detached.

    One would have no variance to be normalized by where a map has a single pixel. Where a sample
    is several rows, as in windows, a fraction of whole samples is one of rows but for rounding.
    """
    size = max(2, math.ceil(fraction * x.size(0) - 1e-6))
    return x.detach()[:size] if x.requires_grad else x[:size]


class _GateWeight(torch.autograd.Function):
    """Identity on a weight slice; backward adds ``dL/dz_j = <W_j, dL/dW_j>``.

    ``W_j`` are the entries of the slice that option ``j`` contains: ``table[j]`` over ``axes``.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, gate: Tensor, table: Tensor, axes: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(weight, table)
        ctx.axes = axes
        return weight.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weight, table = ctx.saved_tensors
        return gradient, weight_products(weight, gradient, table, ctx.axes), None, None


def gate_weight(
    weight: Tensor,
    gate: Tensor | None,
    table: Tensor,
    axes: tuple[int, ...],
    masked: bool = False,
) -> Tensor:
    """Let the options of ``gate`` see the gradient of the weights they contain.

    Args:
        weight: The active slice of a layer's weight.
        gate: One-hot sample, shape ``(d,)``, or none.
        table: Which option contains which entries along ``axes``, shape ``(d, entries)``.
        axes: The axes of ``weight`` that the options range over.
        masked: Whether the gates are multiplied in, ``sum_j z_j table_j``.
    """
    if gate is None:
        return weight
    if masked:
        return masked_weight(weight, gate, table, axes)
    weighted: Tensor = _GateWeight.apply(weight, gate, table, axes)
    return weighted


class _GhostInputs(torch.autograd.Function):
    """Identity on a layer's output; backward adds ``<dL/dy, W_c * x_c>`` of its ghost inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        gate: Tensor,
        ghost: Tensor,
        weight: Tensor,
        table: Tensor,
        products: Any,
    ) -> Tensor:
        ctx.save_for_backward(ghost, weight, table)
        ctx.products = products
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ghost, weight, table = ctx.saved_tensors
        shared = ghost.size(0)
        scale = gradient.size(0) / shared
        products = ctx.products(gradient[:shared], ghost, weight, table, scale)
        return gradient, products, None, None, None, None


def ghost_inputs(
    y: Tensor,
    gate: Tensor,
    ghost: Tensor,
    weight: Tensor,
    table: Tensor,
    products: Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor],
) -> Tensor:
    """Let the options of an input width see the channels that were not chosen.

    Args:
        y: Output of the layer, from its active inputs.
        gate: One-hot sample of the input width, shape ``(d,)``.
        ghost: Inputs that were not chosen; their batch may be a leading part of ``y``'s.
        weight: The weights they would have met; axis 1 ranges over the ghost channels.
        table: Which option contains which ghost channel, shape ``(d, ghost channels)``.
        products: ``(dL/dy, ghost, weight, table, scale)`` to ``scale * <dL/dy, W_c * x_c>`` summed
            over the channels of every option, shape ``(d,)``; see `input_products`.
    """
    return _GhostInputs.apply(y, gate, ghost, weight.detach(), table, products)


class _Mix(torch.autograd.Function):
    """Identity on the chosen alternative; backward adds ``dL/dz_j = <dL/dy, y_j>``."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        gate: Tensor,
        alternatives: Mapping[int, Callable[..., Tensor] | None],
        fraction: float,
        inputs: Sequence[Tensor],
    ) -> Tensor:
        chosen = None in alternatives.values()
        ctx.save_for_backward(gate, y if chosen else None, *inputs)
        ctx.alternatives, ctx.fraction = alternatives, fraction
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gate, chosen, *inputs = ctx.saved_tensors
        products = torch.zeros_like(gate)
        shared = part(gradient, ctx.fraction)
        scale = gradient.size(0) / shared.size(0)
        for option, alternative in ctx.alternatives.items():
            y = part(chosen, ctx.fraction) if alternative is None else alternative(*inputs)
            inner_product(shared, y, scale, products[option])
        return gradient, products, None, None, None


def mix(
    y: Tensor,
    gate: Tensor | None,
    alternatives: Mapping[int, Callable[..., Tensor] | None],
    fraction: float,
    inputs: Sequence[Tensor],
) -> Tensor:
    """``y = sum_j z_j y_j``, ``z`` one-hot: the value of the chosen one, everyone's gradient.

    Args:
        y: The chosen alternative; its ghost, if any, passes through.
        gate: One-hot sample, shape ``(d,)``; none makes this the identity.
        alternatives: Option to a function of the inputs that computes it on the leading part of the
            batch, run without a graph in the backward pass; none stands for ``y`` itself. Options
            left out get no gradient here.
        fraction: The part of the batch the alternatives are computed on.
        inputs: What they are computed from; changed in place since, it is an error.
    """
    if gate is None or not alternatives:
        return y
    mixed: Tensor = _Mix.apply(alone(y), gate, alternatives, fraction, inputs)
    return y.beside(mixed) if isinstance(y, Ghosted) else mixed
