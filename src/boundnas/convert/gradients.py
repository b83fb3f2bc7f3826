"""Gradients of a network, which reading what it computes does not show.

A ``forward`` may switch gradients off for a part, or say what the gradient of something is. Neither
is a call that a graph holds, so a module that does stays as it is, in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.utils.checkpoint import CheckpointFunction

from boundnas.convert.calling import called_with
from boundnas.errors import ConvertError
from boundnas.nested import leaves, mapped
from boundnas.randomness import stream
from boundnas.space import Architecture
from boundnas.supernet.inputs import noise
from boundnas.supernet.supernet import Supernet

CLOSE = 0.1
"""Part of its norm by which a gradient may differ: rounding may turn a ReLU, and so much of one."""

TURNED = 0.5
"""Part of its sum likewise, where that is as large a part of the norm."""

NOTHING = 1e-4
"""Part of the norm of all gradients below which one is rounding."""

_OFF = (
    "it switches gradients off (torch.no_grad); freeze the weights instead, by "
    "requires_grad_(False)"
)


class Switch:
    """Whether a network that is being read has gradients switched on.

    Args:
        is_recording: Whether what is called now is being recorded.
    """

    def __init__(self, is_recording: Callable[[], bool]) -> None:
        self.is_on, self._is_recording = True, is_recording

    def check(self) -> None:
        """Refuse to record what has no gradient.

        Raises:
            TraceError: Says what to do instead.
        """
        if not self.is_on or torch.is_inference_mode_enabled():
            raise fx.proxy.TraceError(_OFF)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it a network takes gradients to be on, and its own ones are refused."""
        switch, ask = torch._C._set_grad_enabled, torch.is_grad_enabled
        apply = vars(torch.autograd.Function)["apply"]

        def switched(mode: bool) -> None:
            if self._is_recording():
                self.is_on = mode
            else:
                switch(mode)

        def applied(kind: Any, *args: Any, **kwargs: Any) -> Any:
            if self._is_recording() and holds_proxy((args, kwargs)):
                if kind is CheckpointFunction:  # which has the gradient of what it calls
                    return args[0](*args[2:])
                raise fx.proxy.TraceError(f"{kind.__name__} computes a gradient of its own")
            return apply.__get__(None, kind)(*args, **kwargs)

        torch._C._set_grad_enabled = switched  # type: ignore[assignment]
        torch.is_grad_enabled = lambda: self.is_on if self._is_recording() else ask()
        setattr(torch.autograd.Function, "apply", classmethod(applied))  # noqa: B010
        try:
            yield
        finally:
            torch._C._set_grad_enabled, torch.is_grad_enabled = switch, ask
            setattr(torch.autograd.Function, "apply", apply)  # noqa: B010


def holds_proxy(arguments: Any) -> bool:
    """Whether a recorded value is among arguments, however nested."""
    found: list[bool] = []
    map_aggregate(arguments, lambda a: found.append(isinstance(a, fx.Proxy)))
    return any(found)


def check_gradient(model: nn.Module, made: Supernet, arch: Architecture) -> None:
    """Compare the gradient of the largest network with that of the one it was made of.

    Each parameter's is compared by its sum and its norm, which do not follow the order of channels;
    those that were given other names all together. What has none is left alone: a network may keep
    in evaluation what it computed without gradients.

    Args:
        model: The one it was made of, in evaluation mode.
        made: The supernet, likewise.
        arch: Its largest architecture, with the statistics that the network came with.

    Raises:
        ConvertError: A gradient differs; names the parameter.
    """
    inputs = noise(made, 2, stream(0, "gradient"))
    with torch.enable_grad():
        try:
            expected = _gradients(model, lambda x: called_with(model, x), inputs, "")
        except Exception:
            return  # as of what cannot be differentiated, or works in place
        found = _gradients(made, lambda x: made(x, arch), inputs, "net.")
    shared = {n for n in expected.keys() & found.keys() if _alike(expected[n], found[n])}
    whole = _measured(expected, None, set())[1]
    for name in (*sorted(shared), None):
        one, other = (_measured(g, name, shared) for g in (expected, found))
        if not _close(one, other, whole):
            raise ConvertError(
                f"{name or 'weights'}: the gradient in the largest network is another than in "
                f"{type(model).__name__}, with a norm of {other[1]:.3g} in place of {one[1]:.3g} "
                f"and a sum of {other[0]:.3g} in place of {one[0]:.3g}: forward changes it in a "
                "way that is not recorded, as by a hook of a tensor; put that into a module of its "
                "own with a converter, or leave it out"
            )


def _gradients(
    model: nn.Module, call: Callable[[Any], Any], inputs: Any, prefix: str
) -> dict[str, Tensor]:
    """Of parameters and inputs, by name."""
    given = mapped(lambda x: x.requires_grad_() if x.is_floating_point() else x, inputs)
    outputs = [y for _, y in leaves(call(mapped(Tensor.clone, given))) if _has_gradient(y)]
    wanted = {f"input{name}": x for name, x in leaves(given) if x.requires_grad}
    trained = ((n.removeprefix(prefix), p) for n, p in model.named_parameters() if p.requires_grad)
    wanted |= dict(trained)
    if not outputs:
        return {name: torch.zeros_like(x) for name, x in wanted.items()}
    weights = [
        torch.linspace(1, 2, y.numel(), dtype=torch.float32).view(y.shape).to(y) for y in outputs
    ]
    loss = sum((y * w).sum() for y, w in zip(outputs, weights, strict=True))
    found = torch.autograd.grad(loss, [*wanted.values()], allow_unused=True, materialize_grads=True)
    return dict(zip(wanted, found, strict=True))


def _has_gradient(y: Any) -> bool:
    return isinstance(y, Tensor) and y.requires_grad and y.is_floating_point()


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.numel() == other.numel()


def _measured(
    gradients: dict[str, Tensor], name: str | None, shared: set[str]
) -> tuple[float, float]:
    """Sum and norm of a gradient, or of all that have no name in common."""
    others = [g for n, g in gradients.items() if n not in shared]
    parts = others if name is None else [gradients[name]]
    total = sum(float(g.sum(dtype=torch.float64)) for g in parts)
    squares = (float(torch.linalg.vector_norm(g, dtype=torch.float64)) ** 2 for g in parts)
    return total, sum(squares) ** 0.5


def _close(one: tuple[float, float], other: tuple[float, float], whole: float) -> bool:
    """Whether sum and norm agree; what is not finite is not compared.

    Args:
        one: Those of the network.
        other: Those of the supernet.
        whole: The norm of all gradients, beside which small ones are rounding.
    """
    (total, norm), (other_total, other_norm) = one, other
    if not norm or not all(map(math.isfinite, (*one, *other))):
        return True
    size = max(norm, other_norm, NOTHING * whole)
    if abs(norm - other_norm) > CLOSE * size:
        return False
    largest = max(abs(total), abs(other_total))
    return largest < TURNED * size or abs(total - other_total) <= TURNED * largest
