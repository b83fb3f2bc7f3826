"""Training passes on a GPU, recorded once and replayed for every architecture.

A pass of a sub-network is many hundreds of small kernels, for whose launches a GPU waits, and new
shapes in every step are new plans of the libraries below. The masked form of a supernet
(`boundnas.space.Pass`) is the same for all architectures but for its gates: its forward and its
backward pass are recorded as CUDA graphs, and replayed with other gates.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from boundnas.elastic.regularization import Draw
from boundnas.engine.tuning import SWITCH
from boundnas.guard.masking import obstacle
from boundnas.nested import sent
from boundnas.space import Architecture
from boundnas.supernet.paths import presence_of
from boundnas.supernet.supernet import Supernet

TOLERANCE, FLOOR = 1e-2, 1e-6
"""Of a recording, relative to the norm of what was computed."""
CHANGE = 1.25
"""Factor of all weights when a recording is tried a second time."""

MOST = 8
"""Shapes of inputs, at most so many: each recording has memory of its own."""

Forward = Callable[[Any, Architecture], Tensor]
_log = logging.getLogger(__name__)


def replays(model: Supernet) -> AbstractContextManager[None]:
    """Within it the training passes of a supernet on a GPU are replayed, where they can be.

    They are where `boundnas.guard.masking.obstacle` finds nothing; else, on a CPU, and where the
    environment variable of `boundnas.engine.tuning` says so, every pass is computed by itself.
    """
    if _device(model).type != "cuda" or os.environ.get(SWITCH) == "0":
        return nullcontext()
    reason = obstacle(model)
    if reason is not None:
        _tell(model, reason)
        return nullcontext()
    return replayed(model)


@contextmanager
def replayed(model: Supernet) -> Iterator[None]:
    """Within it every training pass of inputs that are one tensor is recorded and replayed."""
    forward: Forward = model.forward
    held: dict[Any, Recording | None] = {}

    def of(x: Any, arch: Architecture) -> Tensor:
        if not (isinstance(x, Tensor) and torch.is_grad_enabled() and model.training):
            return forward(x, arch)
        again = arch.carried.recomputes
        key = x.shape, x.stride(), x.dtype, _precision(), _state(model), again
        if key not in held and len(held) < MOST:
            held[key] = _recorded(model, forward, x, again)
            if len(held) == MOST:
                _tell(model, f"inputs of other shapes than the {MOST} that were recorded")
        found = held.get(key)
        return forward(x, arch) if found is None else found(x, arch)

    model.forward = of
    try:
        yield
    finally:
        del model.forward


def _recorded(model: Supernet, forward: Forward, x: Tensor, again: bool) -> Recording | None:
    """A recording that was compared with what it stands for; none where that fails."""
    if name := _hooked(model):
        _tell(model, f"{name} has hooks, which a recording would not call")
        return None
    try:
        return Recording(model, forward, x, again)
    except RuntimeError as error:  # of memory, of what cannot be recorded, of the comparison
        _tell(model, str(error).splitlines()[0])
        return None


def _tell(model: Supernet, reason: str) -> None:
    name = type(model).__name__
    _log.warning("%s is trained by slices, which a GPU computes slowly: %s", name, reason)


def _device(model: Supernet) -> torch.device:
    return next(model.parameters()).device


def _precision() -> torch.dtype | None:
    """What products are computed in, where that is not the weights' own type."""
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None


def _hooked(model: Supernet) -> str | None:
    """A part or a weight of the model with hooks; those of the model itself are called as ever."""
    hooks = "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"
    parts = chain(model.named_modules(), model.named_parameters())
    found = (n for n, part in parts if n and any(getattr(part, h, None) for h in hooks))
    return next(found, None)


def _state(model: Supernet) -> tuple[Any, ...]:
    """What a recording would not notice: frozen weights, and modules in evaluation mode."""
    frozen = tuple(p.requires_grad for p in model.parameters())
    return frozen, tuple(module.training for module in model.modules())


class Recording:
    """A forward and a backward pass of the masked form, of inputs of one shape.

    Called with inputs and an architecture it gives the outputs; their backward pass adds to the
    gradients of the weights, and gives those of the gates.

    Args:
        model: The supernet, in training mode.
        forward: Its forward.
        x: Inputs of that shape.
        recomputes: See `boundnas.space.Pass`.

    Raises:
        RuntimeError: It cannot be recorded, or does not compute what was recorded.
    """

    def __init__(
        self, model: Supernet, forward: Forward, x: Tensor, recomputes: bool = False
    ) -> None:
        self.model, self.forward, self.x = model, forward, x.detach().clone()
        self.recomputes = recomputes
        self.parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.sizes = [len(d) for d in model.space.dimensions]
        self.gates = self._one_hot(model.space.largest).requires_grad_()
        self.draws = Draws(model, x.device)
        self.y, self.gradients = Tensor(), list[Tensor | None]()
        with _aside(x.device):
            self._answer()
            numbers = torch.linspace(-1, 1, self.y.numel(), dtype=torch.float32)
            self.dy = numbers.view(self.y.shape).to(self.y)
            self._differentiate()  # libraries choose and load what they compute with
            self.gates.data.copy_(self._one_hot(model.space.smallest))
            expected = self._trials(self._compute)
        self.y, self.gradients = Tensor(), []
        torch.cuda.empty_cache()
        pool = torch.cuda.graph_pool_handle() if x.is_cuda else None
        self._there = record(self._answer, pool)
        self._back = record(self._differentiate, pool)
        self._check(self._trials(self._replay), expected)

    def _answer(self) -> None:
        """The outputs, with a graph."""
        self.draws.begin()
        arch = self.model.space.largest.carrying(
            gates=self.gates.split(self.sizes),
            masked=True,
            drawn=self.draws.of,
            recomputes=self.recomputes,
        )
        with _uncached():
            self.y = self.forward(self.x, arch)

    def _differentiate(self) -> None:
        """The gradients of the gates and of the weights."""
        wanted = [self.gates, *self.parameters]
        found = torch.autograd.grad(self.y, wanted, self.dy, allow_unused=True)
        self.gradients = list(found)

    def _one_hot(self, arch: Architecture) -> Tensor:
        """Its choices as the gates of all dimensions, one after the other."""
        parameter = next(self.model.parameters())
        flat = torch.zeros(sum(self.sizes), dtype=parameter.dtype)
        ends = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        flat[[start + i for start, i in zip(ends, arch.indices, strict=True)]] = 1
        return sent(flat, parameter.device)

    def __call__(self, x: Tensor, arch: Architecture) -> Tensor:
        """The outputs of an architecture, with whatever gates and noise it carries."""
        gates = torch.cat(arch.gates) if arch.gates else self._one_hot(arch).requires_grad_()
        y: Tensor = _Replay.apply(gates, x, arch, self)
        return y

    def _check(self, found: list[list[Tensor]], expected: list[list[Tensor]]) -> None:
        """Refuse a recording that does not compute what was recorded, as with weights of then."""
        for one, other in zip(chain(*found), chain(*expected), strict=True):
            error = float((one - other).norm() / other.norm().clamp_min(FLOOR))
            if not error <= TOLERANCE:
                raise RuntimeError(
                    f"passes that were recorded differ from computed ones by {error:.1e}"
                )

    def _trials(self, computed: Callable[[], None]) -> list[list[Tensor]]:
        """What passes come to with the weights as they are, and with others."""
        before, found = [p.detach().clone() for p in self.parameters], list[list[Tensor]]()
        for factor in (1.0, CHANGE):
            with torch.no_grad():
                torch._foreach_mul_(self.parameters, factor)
            computed()
            found.append(_flat(self.y, self.gradients))
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, before)
        return found

    def _compute(self) -> None:
        self._answer()
        self._differentiate()

    def _replay(self) -> None:
        self._there()
        self._back()

    def there(self, x: Tensor, gates: Tensor, arch: Architecture) -> Tensor:
        """Replay the forward pass."""
        self.x.copy_(x)
        self.gates.data.copy_(gates)
        self.draws.draw(arch)
        self._there()
        return self.y.detach().clone()

    def back(self, gradient: Tensor) -> Tensor | None:
        """Replay the backward pass, and add to the gradients of the weights."""
        self.dy.copy_(gradient)
        self._back()
        of_gates, *of_weights = self.gradients
        pairs = [(p, g) for p, g in zip(self.parameters, of_weights, strict=True) if g is not None]
        for p, g in pairs:
            if p.grad is None:
                p.grad = torch.zeros_like(g)
        if pairs:
            sums = [p.grad for p, _ in pairs if p.grad is not None]
            torch._foreach_add_(sums, [g for _, g in pairs])
        return None if of_gates is None else of_gates.clone()


class _Replay(torch.autograd.Function):
    """A recorded pass as a function of the gates."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, x: Tensor, arch: Architecture, of: Recording) -> Tensor:
        ctx.of = of
        return of.there(x, gates, arch)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.of.back(gradient), None, None, None


class Drawn(NamedTuple):
    """Where a call of a layer finds its random numbers, and whether it uses them."""

    layer: Draw
    numbers: Tensor
    used: Tensor


class Draws:
    """The random numbers of a recorded pass, drawn anew for each.

    Args:
        model: The supernet.
        device: Where they are used.
    """

    def __init__(self, model: Supernet, device: torch.device) -> None:
        self.presence, self.device = presence_of(model), device
        self.calls: list[Drawn] = []
        self._next, self._used = 0, False

    def begin(self) -> None:
        """A pass begins, which calls the same layers in the same order."""
        self._next = 0

    def of(self, layer: Draw, shape: list[int]) -> tuple[Tensor, Tensor]:
        """The numbers of the call that comes next, and whether they are used."""
        if self._next == len(self.calls):
            numbers = torch.zeros(shape, dtype=torch.float32, device=self.device)
            used = torch.zeros((), dtype=torch.bool, device=self.device)
            self.calls.append(Drawn(layer, numbers, used))
        self._next += 1
        return self.calls[self._next - 1][1:]

    def draw(self, arch: Architecture) -> None:
        """Those of a pass: of layers that the architecture has, where it brings noise."""
        if not self.calls or (arch.noise is None and not self._used):
            return
        self._used = arch.noise is not None
        drawn, used = list[Tensor](), list[float]()
        for layer, numbers, _ in self.calls:
            there = all(condition.value(arch) for condition in self.presence[layer.name])
            used.append(float(arch.noise is not None and there))
            shape = numbers.shape if used[-1] else (0,)
            drawn.append(torch.rand(shape, generator=arch.noise, dtype=torch.float32).flatten())
        flat = sent(torch.cat([torch.tensor(used, dtype=torch.float32), *drawn]), self.device)
        flags, *values = flat.split([len(used), *map(len, drawn)])
        for (_, numbers, flag), own, value in zip(self.calls, flags.unbind(), values, strict=True):
            flag.copy_(own)
            if len(value):
                numbers.copy_(value.view(numbers.shape))


def _flat(y: Tensor, gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """Outputs, gradients of gates, and those of weights in one; in float32."""
    of_weights = [g.flatten().float() for g in gradients[1:] if g is not None]
    found = [y.detach(), gradients[0], torch.cat(of_weights)]
    return [x.detach().clone().float() for x in found if x is not None]


def record(work: Callable[[], None], pool: Any) -> Callable[[], None]:
    """What does all again that a work does on the device, in the memory that it took."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    replay: Callable[[], None] = graph.replay
    return replay


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On a stream of its own, as recordings ask for."""
    if device.type != "cuda":
        yield
        return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield
    torch.cuda.current_stream().wait_stream(side)


def _uncached() -> AbstractContextManager[Any]:
    """Autocast as it is, but for weights of half precision that it would keep from one pass."""
    precision = _precision()
    if precision is None:
        return nullcontext()
    return torch.autocast("cuda", precision, cache_enabled=False)
