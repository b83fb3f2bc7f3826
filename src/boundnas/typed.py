"""Arguments of the public functions, checked against what their annotations allow."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from reprlib import repr as shortened
from types import UnionType
from typing import (
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import torch

from boundnas.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)


@overload
def checked(function: Class, but: type | None = None) -> Class: ...
@overload
def checked(function: Callable[P, R], but: type | None = None) -> Callable[P, R]: ...
def checked(function: Any, but: type | None = None) -> Any:
    """Have a function, or a class when it is made, refuse what its annotations do not allow.

    A decorator for what users call, since there a slip would else come to light deep inside, as
    an error that names nothing of theirs.

    Args:
        function: What users call. Of a class, its subclasses check the arguments too.
        but: Arguments that may be of this type are left to the function itself.

    Raises:
        ArgumentError: When the function is called with an argument of another type, with one that
            it does not have, or without one that it needs; or while PyTorch makes new tensors
            elsewhere than on the CPU by default, or its autocast is on.

    Examples:
        >>> @checked
        ... def double(number: float) -> float:
        ...     return 2 * number
        >>> double("5M")
        Traceback (most recent call last):
        boundnas.errors.ArgumentError: double: number must be float, found str '5M'
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__, but)  # type: ignore[misc]
        return function
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        made = function.__name__ == "__init__"  # of a class that may be another's base
        caller = type(args[0]).__name__ if made else function.__qualname__
        if not made:
            _check_surroundings(caller)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ArgumentError(
                f"{caller}: {error}; it is called as "
                f"{caller}({', '.join(name for name in signature.parameters if name != 'self')})"
            ) from None
        hints = _hints(function)
        for name, value in given.items():
            if name not in hints or but in get_args(hints[name]):
                continue
            every = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            for each, found in (value if every else {name: value}).items():
                check_argument(caller, each, found, hints[name])
        return function(*args, **kwargs)

    return call


def check_argument(function: str, name: str, value: object, allowed: Any) -> None:
    """Refuse a value that is not of the type that is allowed.

    Args:
        function: Who refuses it.
        name: The argument.
        value: What was given for it.
        allowed: An annotation.

    Raises:
        ArgumentError: It is of another type.
    """
    if not _fits(value, allowed):
        raise ArgumentError(
            f"{function}: {name} must be {_words(allowed)}, found {type(value).__name__} "
            f"{shortened(value).splitlines()[0]}"
        )


def _check_surroundings(caller: str) -> None:
    if (device := torch.get_default_device()).type != "cpu":
        raise ArgumentError(
            f"{caller}: new tensors are made on {device} by default, random numbers and data too, "
            "which belong on the CPU; call torch.set_default_device('cpu'), and leave "
            "torch.device blocks, before BoundNAS is called, and move the model to where it shall "
            "be trained, as by model.to('cuda')"
        )
    if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        raise ArgumentError(
            f"{caller}: PyTorch's autocast is on, which rounds all numbers; call it outside "
            "torch.autocast; a GPU trains in half precision by train.precision, "
            "TrainSettings(precision='bf16')"
        )


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function)


def _fits(value: object, allowed: Any) -> bool:
    origin, args = get_origin(allowed), get_args(allowed)
    if allowed is Any or isinstance(allowed, TypeVar):
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple | list) and _fit_each(value, args)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return (
            isinstance(value, origin)
            and not isinstance(value, str)
            and _fit_each(value, (args[0], ...))
        )
    if allowed in (int, float):
        kind = Integral if allowed is int else Real
        return isinstance(value, kind) and not isinstance(value, bool)
    return isinstance(value, origin or allowed or type(None))


def _fit_each(values: Sequence[object], kinds: tuple[Any, ...]) -> bool:
    if kinds[1:] == (...,):
        kinds = kinds[:1] * len(values)
    return len(values) == len(kinds) and all(map(_fits, values, kinds))


def _words(allowed: Any) -> str:
    """An annotation as a user would write it, without the modules that types come from."""
    if get_origin(allowed) is Literal:
        return " or ".join(map(repr, get_args(allowed)))
    text = allowed.__name__ if isinstance(allowed, type) else str(allowed)
    return re.sub(r"\b\w+\.(?=\w)", "", text).replace(" | ", " or ")
