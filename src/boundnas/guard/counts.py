"""Sizes of a searched map that remember what they are for all of its channels.

While `forward` is watched, what it reads off a map's shape counts its active channels as ever, and
its arithmetic goes on with the count of all channels beside it. So a function that was told sizes
can be called on all channels with the sizes that its user meant.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Self

import torch

from boundnas.errors import SpaceError
from boundnas.supernet import place


class Count(int):
    """A number of channels, or computed from one.

    Args:
        active: Of the active channels: the value.
        whole: Of all of them.
    """

    whole: int

    def __new__(cls, active: int, whole: int) -> Self:
        """A number that remembers another; see the class."""
        count = super().__new__(cls, active)
        count.whole = whole
        return count

    def __hash__(self) -> int:
        return int.__hash__(self)


class Choice(Count):
    """What `forward` was told of a searched number by its architecture.

    It may decide what is done, and means all channels only where a map is given another shape.
    """


def counted(active: Any, whole: Any, kind: type[Count] = Count) -> Any:
    """A number of the active channels, or several, remembering what it is for all."""
    if isinstance(active, torch.Size):
        return torch.Size(map(counted, active, whole))
    return kind(active, whole) if type(active) is int and active != whole else active


def wholes(argument: Any, sized: bool = True) -> Any:
    """An argument of a function, or all of them, as it is for all channels.

    Args:
        argument: Of any type.
        sized: Whether the function gives a map another shape.
    """
    if isinstance(argument, Count):
        return argument.whole if sized or type(argument) is Count else int(argument)
    if isinstance(argument, slice):
        return slice(*(wholes(each, sized) for each in _ends(argument)))
    if isinstance(argument, dict):
        return {name: wholes(each, sized) for name, each in argument.items()}
    if isinstance(argument, torch.Size):
        return torch.Size(wholes(each, sized) for each in argument)
    if isinstance(argument, list | tuple):
        return type(argument)(wholes(each, sized) for each in argument)
    return argument


def counts(argument: Any) -> set[type[Count]]:
    """Which kinds of numbers of channels are among the arguments of a function."""
    if isinstance(argument, slice):
        return counts(_ends(argument))
    if isinstance(argument, dict):
        return counts(tuple(argument.values()))
    if isinstance(argument, list | tuple):
        return {kind for each in argument for kind in counts(each)}
    return {type(argument)} if isinstance(argument, Count) else set()


def _ends(argument: slice) -> tuple[Any, ...]:
    return argument.start, argument.stop, argument.step


def _both(function: Callable[..., Any], goes_on: bool) -> Callable[..., Any]:
    """A method of `Count` that computes for both numbers.

    Args:
        function: Of plain numbers.
        goes_on: Whether the result may be a count again; else it must be the same for both.
    """

    def method(*terms: Any) -> Any:
        if any(isinstance(term, torch.Tensor) for term in terms):
            return NotImplemented
        plain = [int(term) if isinstance(term, Count) else term for term in terms]
        active, whole = function(*plain), function(*wholes(list(terms)))
        chosen = any(isinstance(term, Choice) for term in terms)
        if goes_on and isinstance(whole, int):
            return counted(active, whole, Choice if chosen else Count)
        if active is not NotImplemented and active != whole and not chosen:
            raise SpaceError(
                f"{place.here()}: the number of active channels is computed with, or decides what "
                "is done: with another number of them it would be another function. Instead "
                "branch on arch, or let a weight learn the factor"
            )
        return active

    return method


def _turned(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: function(b, a)


for _name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "pow"):
    _function = getattr(operator, _name)
    setattr(Count, f"__{_name}__", _both(_function, goes_on=True))
    setattr(Count, f"__r{_name}__", _both(_turned(_function), goes_on=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Count, f"__{_name}__", _both(getattr(operator, _name), goes_on=False))
setattr(Count, "__neg__", _both(operator.neg, goes_on=True))  # noqa: B010
setattr(Count, "__float__", _both(float, goes_on=False))  # noqa: B010
