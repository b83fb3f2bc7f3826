"""Recorded values: what a ``forward`` is called with while it is read."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from boundnas.convert import assigning


class Recorded(fx.Proxy):
    """A recorded value that knows what it is in the example."""

    def __index__(self) -> int:
        return self._number(int)

    def __int__(self) -> int:
        return self._number(int)

    def __float__(self) -> float:
        return self._number(float)

    def __len__(self) -> int:
        return len(self.node.meta["value"])

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __setitem__(self, key: Any, value: Any) -> None:
        if assigning.by_mask(self.node.meta["value"], value_of(key), value):
            self.tracer.create_proxy("call_method", "masked_fill_", (self, key, value), {})
            return
        assigning.check(self.node.meta["value"], map_aggregate(key, value_of), value_of(value))
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def __getattr__(self, name: str) -> Any:
        value = self.node.meta.get("value")
        if name == "ndim" and isinstance(value, Tensor):
            return value.dim()
        if name == "type" and isinstance(value, torch.device):  # as autocast is told
            return value.type
        if name == "dtype" and self.node.op == "get_attr":  # that of a weight, which stays
            return self.node.meta["value"].dtype
        if name == "copy_":
            return self._copy
        if name == "requires_grad_":
            return lambda on=True: self if on else self.detach()
        return _Read(self, name)

    def _copy(self, value: Any, non_blocking: bool = False) -> Any:
        """Take other values, as ``x[...] = value`` does."""
        self[...] = value
        return self

    def _number(self, kind: Callable[[Any], Any]) -> Any:
        value = self.node.meta["value"]
        if isinstance(value, Tensor):
            raise fx.proxy.TraceError("it computes with the value of a tensor")
        tracer: Any = self.tracer
        tracer.found.read.append(self.node)
        return kind(value)


class _Read(fx.proxy.Attribute, Recorded):
    """An attribute of a recorded value, such as its shape."""


def is_of_tensor(x: Any) -> bool:
    """Whether an object is the record of a tensor."""
    return type(x) in (Recorded, _Read) and type(x.node.meta.get("value")) in (Tensor, nn.Parameter)


def value_of(x: Any) -> Any:
    """What stands behind a recorded value; anything else as it is."""
    return x.node.meta["value"] if isinstance(x, fx.Proxy) else x
