"""Whole networks, timed: those of a table's validation, and those that are deployed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from boundnas.errors import CostError
from boundnas.latency.runtimes import Runtime, runtime_of
from boundnas.latency.timing import Times, in_turn
from boundnas.nested import Inputs, leaves, mapped
from boundnas.randomness import stream
from boundnas.store.files import read_bytes
from boundnas.supernet.inputs import noise_like

ROUNDS = 50
"""Times that are taken of every network, if nothing else is asked for."""


def whole(
    networks: Sequence[nn.Module | Path | str | bytes],
    runtime: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    rounds: int = ROUNDS,
) -> list[Times]:
    """How long whole networks and files take, timed in turn.

    Args:
        networks: What `boundnas.extract` gave, and files in the runtime's own format, as paths or
            as their content: ONNX, with floats or 8 bits, for ``"onnxruntime"``.
        runtime: Where they run: ``"onnxruntime"``, ``"torch"``, ``"compile"``, or one of your own.
        threads: So many threads compute.
        batch: Samples in a pass.
        rounds: Times that are taken of each.

    Returns:
        Median and quartiles of each, in nanoseconds a pass.

    Raises:
        CostError: A network that does not say what it takes, or that the runtime cannot run.
        RunError: A file cannot be read.
    """
    used = runtime_of(runtime, threads)
    with used.in_use():
        calls = [loaded(network, used, batch) for network in networks]
        return in_turn(calls, rounds, used.clock)


def loaded(
    network: nn.Module | Path | str | bytes, runtime: Runtime, batch: int
) -> Callable[[], object]:
    """A function that runs a network, or a file, once; see `whole`."""
    if isinstance(network, bytes):
        return runtime.load_file(network, batch)
    if not isinstance(network, nn.Module):
        return runtime.load_file(read_bytes(Path(network)), batch)
    return runtime.load(*flattened(network, batch))


def flattened(network: nn.Module, batch: int) -> tuple[nn.Module, list[Tensor]]:
    """A network that takes tensors one by one, and such tensors.

    Raises:
        CostError: It does not say what it takes.
    """
    example = getattr(network, "meta", {}).get("example")
    if example is None:
        raise CostError(
            f"{type(network).__name__}: it does not say what it takes; give what extract returned, "
            "or an ONNX file of it"
        )
    weight = next(network.parameters(), torch.empty(0))
    inputs = noise_like(example, batch, stream(0, "latency"), weight)
    return _Flat(network, example).eval(), [x for _, x in leaves(inputs)]


class _Flat(nn.Module):
    """A network that takes the tensors of a nested input one by one."""

    def __init__(self, net: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.net, self.example = net, example

    def forward(self, *parts: Tensor) -> object:
        """What the network gives."""
        each = iter(parts)
        return self.net(mapped(lambda _: next(each), self.example))
