"""A network whose answer for a sample follows from others is refused, with the line that does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn

from boundnas.convert.calling import called_with
from boundnas.convert.given import copied
from boundnas.convert.record import Counter
from boundnas.convert.trace import trace
from boundnas.errors import ConvertError
from boundnas.nested import Inputs, count, mapped
from boundnas.supernet.alone import FOLLOWS, SAME, is_judged_alone
from boundnas.supernet.place import first_line


def check_alone(model: nn.Module, inputs: Inputs) -> None:
    """Refuse a network that treats samples together: their answers, or their products.

    Args:
        model: It; it is run, in evaluation mode.
        inputs: Three samples.

    Raises:
        ConvertError: It gives something else for a sample alone than beside others, multiplies
            samples with one another, or fails on one sample; names the call, if it can.
    """
    name, macs = type(model).__name__, dict[int, int]()

    def counted(net: nn.Module, x: Inputs) -> Any:
        with Counter() as counter:
            output = called_with(net, x)
        macs[count(x)] = counter.macs
        return output

    try:
        same = is_judged_alone(model, inputs, counted)
        counted(model, _part(inputs, 0))
    except MemoryError:
        raise
    except Exception as error:  # whatever a forward may raise
        raise ConvertError(
            f"{name} fails on a single sample: {first_line(error)}; networks are called with any "
            "number of them, which lie on the first axis"
        ) from error
    if not same:
        place = _first(model, inputs, _mixes)
        raise ConvertError(
            f"{name} gives something else for a sample alone than beside others"
            f"{place and f', from {place} on'}; {FOLLOWS}"
        )
    if macs[3] - macs[2] != macs[2] - macs[1] and (place := _first(model, inputs, _squares)):
        raise ConvertError(f"{name} multiplies samples with one another, by {place}; {FOLLOWS}")


def _part(inputs: Inputs, start: int) -> Inputs:
    """The first two samples, or the second of them."""
    return mapped(lambda x: x[start:2].clone(), inputs)


def _first(model: nn.Module, inputs: Inputs, fits: Callable[[Any, Any], bool]) -> str:
    """The first call, and its line, of whose results this holds; as far as it is found.

    Args:
        model: The network.
        inputs: At least two samples.
        fits: Called with what a call gives of both samples, and of the second alone.
    """
    try:
        traced = trace(copied(model).eval(), _part(inputs, 0))
        for name, tensor in traced.constants.items():
            setattr(traced.model, name, tensor)
        net = fx.GraphModule(traced.model, traced.graph)
        several, alone = (_Kept(net).values(_part(inputs, start)) for start in (0, 1))
    except Exception:  # it is only told less
        return ""
    for node in traced.graph.nodes:
        each = several.get(node), alone.get(node)
        if all(isinstance(x, Tensor) for x in each) and fits(*each):
            function = getattr(node.target, "__name__", node.target)
            return f"{function} in {node.meta.get('source')}"
    return ""


class _Kept(fx.Interpreter):
    """Keeps what every node gives."""

    def __init__(self, net: fx.GraphModule) -> None:
        super().__init__(net, garbage_collect_values=False)

    @torch.no_grad()
    def values(self, inputs: Inputs) -> dict[fx.Node, Any]:
        """What every node gives, as far as it comes."""
        with suppress(Exception):
            self.run(inputs)
        return self.env


def _apart(several: Tensor, alone: Tensor) -> list[int]:
    """The axes along which two results of as many axes have other sizes."""
    sizes = zip(several.shape, alone.shape, strict=True)
    return [i for i, (a, b) in enumerate(sizes) if a != b]


def _squares(several: Tensor, alone: Tensor) -> bool:
    """Whether samples lie along two axes of a result."""
    return several.dim() == alone.dim() and len(_apart(several, alone)) > 1


def _mixes(several: Tensor, alone: Tensor) -> bool:
    """Whether what two samples give is not, for the second, what that gives alone."""
    if several.dim() != alone.dim() or _squares(several, alone):
        return True
    for i in _apart(several, alone):
        several = several.narrow(i, several.shape[i] - alone.shape[i], alone.shape[i])
    scale = float(alone.abs().max()) if alone.numel() else 0.0
    return not torch.allclose(several, alone, 0, SAME * scale, equal_nan=True)
