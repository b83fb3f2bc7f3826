"""Elastic recurrent layers: LSTM, GRU and the plain one."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx, nn

from boundnas.elastic.exact import exact, summing
from boundnas.elastic.ghost import join, part, split
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.masks import masked_weight
from boundnas.elastic.width import active, ghosts_of, membership, others
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Joined, Width, check_sizes, largest, parts_of
from boundnas.space.polynomial import Polynomial, amount

_KINDS: dict[str, tuple[int, Any, dict[str, str]]] = {
    "lstm": (4, nn.LSTM, {}),
    "gru": (3, nn.GRU, {}),
    "tanh": (1, nn.RNN, {"nonlinearity": "tanh"}),
    "relu": (1, nn.RNN, {"nonlinearity": "relu"}),
}
"""Of each kind how many products of a width it takes a step, and torch's module."""


class Recurrent(ElasticLayer):
    """One layer of an LSTM, a GRU or a plain recurrent network, from a state of zeros.

    Channels of a state meet those of the next step in a product, whose weights their gates sit at,
    beside those of the layers that take what it gives. It computes in float32 at least.

    Args:
        kind: ``"lstm"``, ``"gru"``, or the function of a plain one, ``"tanh"`` or ``"relu"``.
        in_features: Width of what it takes.
        features: Width of its state, in each direction.
        bias: Whether its products add one.
        both_ways: Whether a second one goes from the last step to the first; its states stand
            behind those of the first.

    Shape:
        ``(N, T, active inputs)`` to ``(N, T, active features)``, twice as many both ways.
    """

    takes, axis = "(N, T, features)", -1

    def __init__(
        self,
        kind: str,
        in_features: Width,
        features: Width,
        bias: bool = True,
        both_ways: bool = False,
    ) -> None:
        super().__init__()
        check_sizes("Recurrent", in_features=in_features, features=features)
        if kind not in _KINDS:
            raise SpaceError(f"Recurrent: the kind is one of {', '.join(_KINDS)}, found {kind!r}")
        self.kind, self.in_features, self.features = kind, in_features, features
        self.directions = 1 + both_ways
        self.out_features: Width = Joined(parts_of(features) * 2) if both_ways else features
        inputs, own, parts = largest(in_features), largest(features), _KINDS[kind][0]
        rows = self.directions, parts, own
        self.of_input = nn.Parameter(own**-0.5 * (2 * torch.rand(*rows, inputs) - 1))
        self.of_state = nn.Parameter(own**-0.5 * (2 * torch.rand(*rows, own) - 1))
        self.bias = nn.Parameter(torch.zeros(*rows)) if bias else None
        self.state_bias = nn.Parameter(torch.zeros(*rows)) if bias else None

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """The states of all steps; see the class for shapes."""
        x, ghost = split(x)
        self.check_width(x, arch.size(self.in_features))
        gates = arch.gate(self.in_features), arch.gate(self.features)
        if gates[0] is not None:
            self.check_ghost(ghost, self.in_features, arch)
        weights = self._weights(arch, active)
        if arch.masked:
            return self._run(x, self._masked(weights, arch, *gates))
        y = self._run(x, weights)
        if gates == (None, None):
            return y
        few = part(x, arch.ghost_fraction)
        few = few if ghost is None else torch.cat((few, ghost), -1)
        whole = [w.detach() for w in self._weights(arch, _in_turn)]

        def again(*gates: Tensor | None) -> tuple[Tensor, Tensor]:
            """The part of the batch that serves ghosts, in all channels, by the gates."""
            each = self._run(few, self._masked(whole, arch, *gates)).chunk(self.directions, -1)
            size = y.shape[-1] // self.directions
            chosen, rest = zip(*(z.tensor_split([size], -1) for z in each), strict=True)
            return torch.cat(chosen, -1), torch.cat(rest, -1)

        y = _Gated.apply(y, *gates, again)
        if not ghosts_of(self.features, arch):
            return y
        with torch.no_grad():
            return join(y, again(*gates)[1])

    def _weights(self, arch: Architecture, of: Callable[..., Tensor]) -> list[Tensor]:
        """What it multiplies with and adds, of the channels that a function takes."""
        rows = [
            of(self.of_input, self.features, arch, 2),
            of(self.of_state, self.features, arch, 2),
        ]
        found = [of(rows[0], self.in_features, arch, 3), of(rows[1], self.features, arch, 3)]
        biases = (b for b in (self.bias, self.state_bias) if b is not None)
        return [*found, *(of(bias, self.features, arch, 2) for bias in biases)]

    def _masked(
        self, weights: list[Tensor], arch: Architecture, *gates: Tensor | None
    ) -> list[Tensor]:
        """With the gates of inputs and of states multiplied in, where there are any."""
        found = list(weights)
        for i, (width, gate) in enumerate(
            zip((self.in_features, self.features), gates, strict=True)
        ):
            if gate is not None:
                table = torch.cat(membership(width, arch, gate.device), 1)
                found[i] = masked_weight(weights[i], gate, table, (3,))
        return found

    def _run(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        own = weights[1].shape[3]
        flat = [w[i].flatten(0, 1).contiguous() for i in range(self.directions) for w in weights]
        if not torch.is_grad_enabled():  # as the weights of a plain layer do; see `Linear`
            flat = [w.detach().requires_grad_() for w in flat]
        numbers = self.bias is not None, 1, 0.0, False, self.directions > 1, True
        function: Any = getattr(torch._VF, self._function)
        with summing(x):  # in half precision not every processor has one
            x = exact(x)
            state = x.new_zeros(self.directions, len(x), own)
            first = (state, state) if self.kind == "lstm" else state
            return function(x, first, flat, *numbers)[0]

    @property
    def _function(self) -> str:
        return self.kind if self.kind in ("lstm", "gru") else f"rnn_{self.kind}"

    def macs(self, positions: int) -> Polynomial:
        """``steps * products * states * (inputs + states)``, in each direction."""
        own, times = amount(self.features), positions * self.directions * _KINDS[self.kind][0]
        return times * own * (amount(self.in_features) + own)

    def parameter_count(self) -> Polynomial:
        """``products * states * (inputs + states + 2 biases)``, in each direction."""
        own, times = amount(self.features), self.directions * _KINDS[self.kind][0]
        return times * own * (amount(self.in_features) + own + 2 * (self.bias is not None))

    def plain(self, arch: Architecture) -> nn.Module:
        """An ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` of the active slice, which gives its states."""
        weights = self._weights(arch, active)
        _, kind, options = _KINDS[self.kind]
        own, inputs = weights[1].shape[3], weights[0].shape[3]
        with torch.device("meta"):
            layer: Any = kind(
                inputs, own, bias=self.bias is not None, batch_first=True,
                bidirectional=self.directions > 1, **options,
            )  # fmt: skip
        for i, names in enumerate(layer._all_weights):
            for name, weight in zip(names, weights, strict=True):
                setattr(layer, name, frozen(weight[i].flatten(0, 1)))
        graph = fx.Graph()
        graph.output(
            graph.call_function(getitem, (graph.call_module("layer", (graph.placeholder("x"),)), 0))
        )
        return fx.GraphModule({"layer": layer}, graph, class_name=kind.__name__)


def _in_turn(weight: Tensor, width: Width, arch: Architecture, axis: int) -> Tensor:
    """The entries of active channels, and behind them those that were not chosen."""
    return torch.cat((active(weight, width, arch, axis), others(weight, width, arch, axis)), axis)


class _Gated(torch.autograd.Function):
    """Identity on what a layer gives; backward adds what its own gates get."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        inputs: Tensor | None,
        features: Tensor | None,
        again: Callable[..., tuple[Tensor, Tensor]],
    ) -> Tensor:
        ctx.save_for_backward(inputs, features)
        ctx.again = again
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gates = [None if g is None else g.detach().requires_grad_() for g in ctx.saved_tensors]
        with torch.enable_grad():
            y, _ = ctx.again(*gates)
        wanted = [g for g in gates if g is not None]
        shared = gradient[: len(y)] * (len(gradient) / len(y))
        found = iter(torch.autograd.grad(y, wanted, shared))
        return gradient, *(None if g is None else next(found) for g in gates), None
