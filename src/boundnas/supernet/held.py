"""What a ``forward`` does with tensors that a model holds, while it is followed.

``self.table[self.index]`` is a parameter of the plain network and a function of it, as in the
supernet: what is computed from parameters has its value and a place in the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import wraps
from threading import RLock
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import Function
from torch.overrides import TorchFunctionMode


class NotFollowedError(Exception):
    """Why a ``forward`` cannot be followed."""


def reads(function: Any, result: Any) -> bool:
    """Whether a function that gave ``result`` computes with its tensors, not their shape alone."""
    return function is Tensor.__setitem__ or holds(Tensor, result)


def holds(kind: type, value: Any) -> bool:
    """Whether something of a type is among values, however nested."""
    return any(isinstance(part, kind) for part in parts(value))


def parts(value: Any) -> Iterator[Any]:
    """What is in tuples, lists, dicts and slices, however nested."""
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for each in value:
            yield from parts(each)
    else:
        yield value


class Computed(TorchFunctionMode):
    """Within it what is computed from parameters alone is recorded, and computed.

    Args:
        tracer: Whose graph it is recorded in.
        parameters: The identities of the parameters.
    """

    def __init__(self, tracer: fx.Tracer, parameters: Set[int]) -> None:
        super().__init__()
        self._tracer, self._parameters = tracer, parameters
        self._made: dict[int, tuple[Tensor, fx.Node]] = {}

    def node(self, tensor: Tensor) -> fx.Node | None:
        """Where a tensor is computed, if it is computed from parameters."""
        return self._made[id(tensor)][1] if id(tensor) in self._made else None

    def __enter__(self) -> Computed:
        apply = vars(Function)["apply"]

        def checked(function: Any, *args: Any, **kwargs: Any) -> Any:
            if any(map(self._is_followed, args)) and not holds(fx.Proxy, args):
                raise NotFollowedError(
                    f"it hands a parameter to {function.__name__}.apply, which does not tell what "
                    "it computes"
                )
            return apply.__func__(function, *args, **kwargs)

        self._restore = lambda: setattr(Function, "apply", apply)
        setattr(Function, "apply", classmethod(checked))  # noqa: B010
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._restore()
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func, kwargs = _ORIGINAL.get(func, func), kwargs or {}
        given = list(parts((args, kwargs)))
        if holds(fx.Proxy, given) or not any(self._is_followed(x) for x in given):
            return func(*args, **kwargs)
        if _writes(func) and not self._is_followed(args[0]):
            self._hold(args[0])
        before = {id(x): x._version for x in given if isinstance(x, Tensor)}
        result = func(*args, **kwargs)
        is_given = isinstance(result, Tensor) and before.get(id(result)) == result._version
        if reads(func, result) and not is_given:
            self._record(result, self._called(func, args, kwargs))
        return result

    def _is_followed(self, x: Any) -> bool:
        return isinstance(x, Tensor) and (id(x) in self._parameters or id(x) in self._made)

    def _hold(self, tensor: Tensor) -> None:
        """A tensor that ``forward`` made, before it is changed: a constant, copied in the graph."""
        if tensor._is_view():
            raise NotFollowedError(
                "it writes what it computes from a parameter into a part of a tensor that it made "
                "under another name"
            )
        copied = self._tracer.create_proxy("call_method", "clone", (tensor.clone(),), {})
        self._record(tensor, copied)

    def _called(self, func: Any, args: Any, kwargs: Any) -> fx.Proxy:
        name, create = func.__name__, self._tracer.create_proxy
        if name == "__get__":  # of a property
            return create("call_function", getattr, (args[0], func.__self__.__name__), {})
        if name in ("__getitem__", "__setitem__"):
            return create("call_function", getattr(operator, name.strip("_")), args, kwargs)
        if getattr(func, "__qualname__", "").startswith(("Tensor.", "TensorBase.")):
            return create("call_method", name, args, kwargs)
        return create("call_function", func, args, kwargs)

    def _record(self, result: Any, proxy: Any) -> None:
        if isinstance(result, Tensor):
            self._made[id(result)] = result, proxy.node  # which keeps its identity its own
        elif isinstance(result, tuple | list):
            for i, part in enumerate(result):
                self._record(part, proxy[i])


def _writes(function: Any) -> bool:
    """Whether a function changes its first argument."""
    name = str(function.__name__)
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


_TOLD = [
    *((Tensor, name) for name in ("expand", "repeat", "tile", "view", "reshape", "__getitem__")),
    *((Tensor, name) for name in ("new_zeros", "new_ones", "new_full", "new_empty")),
    *((torch, name) for name in ("arange", "zeros", "ones", "full")),
]
"""What is told sizes in a way that torch.fx does not see."""

_ORIGINAL: dict[Any, Any] = {}
"""Of what stands in the place of a function, that function."""


@contextmanager
def told_sizes(tracer: fx.Tracer) -> Iterator[None]:
    """Within it tensors that are held or made may be told sizes that were read off the images.

    ``self.token.expand(len(x), -1, -1)`` is a method of a tensor that is none of the traced ones.
    """
    with _ONE_AT_A_TIME:
        own = {(owner, name): vars(owner).get(name) for owner, name in _TOLD}
        try:
            for owner, name in _TOLD:
                setattr(owner, name, _followed(tracer, owner, name, getattr(owner, name)))
            yield
        finally:
            _ORIGINAL.clear()
            for (owner, name), function in own.items():
                if function is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, function)


_ONE_AT_A_TIME = RLock()


def _followed(tracer: fx.Tracer, owner: Any, name: str, function: Any) -> Callable[..., Any]:
    @wraps(function)
    def follow(*args: Any, **kwargs: Any) -> Any:
        held = owner is Tensor and not isinstance(args[0], fx.Proxy)
        if not holds(fx.Proxy, (args, kwargs)) or not (held or owner is torch):
            return function(*args, **kwargs)
        if owner is torch:
            return tracer.create_proxy("call_function", function, args, kwargs)
        if name == "__getitem__":
            return tracer.create_proxy("call_function", operator.getitem, args, kwargs)
        return tracer.create_proxy("call_method", name, args, kwargs)

    _ORIGINAL[follow] = function
    return follow
