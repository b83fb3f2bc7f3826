"""Ordinal dimensions, and what follows them (Sec. 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from boundnas.errors import SpaceError

Value = bool | int | float | str


@dataclass(frozen=True)
class Dimension:
    """One searched quantity and its candidate values in ascending order.

    Args:
        name: Unique within a space, by convention dotted: ``"stage2.layer1.width"``.
        choices: The options ``o_1 < ... < o_d``, at least one. Strings and switches count as
            ascending in the order given (``("relu", "swish")``, ``(False, True)``).
        kind: What sort of quantity it is, for reports: ``"width"``, ``"depth"``, ``"kernel"``,
            ``"se"``, ``"activation"`` or a word of your own.

    Raises:
        SpaceError: Empty name or choices, a repeated choice, or numbers that do not ascend.
    """

    name: str
    choices: tuple[Value, ...]
    kind: str = "width"

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.name:
            raise SpaceError("a dimension needs a name, found an empty string")
        if not self.choices:
            raise SpaceError(f"{self.name}: needs at least one choice, found none")
        shown = ", ".join(map(str, self.choices))
        if not all(map(_is_value, self.choices)):
            raise SpaceError(
                f"{self.name}: choices are finite numbers, switches or text, found {shown}"
            )
        if len(set(self.choices)) != len(self.choices):
            raise SpaceError(f"{self.name}: every choice must differ, found {shown}")
        numbers = [c for c in self.choices if not isinstance(c, str)]
        if numbers and (len(numbers) != len(self.choices) or numbers != sorted(numbers)):
            raise SpaceError(
                f"{self.name}: choices must be all text or ascending numbers, found {shown}"
            )

    def __len__(self) -> int:
        return len(self.choices)

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """The choices as numbers; text counts by its position, switches as 0 and 1."""
        return tuple(float(i if isinstance(c, str) else c) for i, c in enumerate(self.choices))

    def index(self, value: Value) -> int:
        """Position of ``value`` among the choices.

        Raises:
            SpaceError: ``value`` is not a choice.
        """
        for i, choice in enumerate(self.choices):
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return i
        allowed = ", ".join(map(str, self.choices))
        raise SpaceError(f"{self.name}: {value!r} is not a choice; allowed are {allowed}")

    def map(self, function: Callable[[Any], Value]) -> Derived:
        """A quantity that follows this dimension, such as a squeeze width of a quarter.

        Args:
            function: From a choice, as it is, to the quantity.

        Raises:
            SpaceError: A result is no number, switch or text.
        """
        return Derived(self, _mapped(self, self.choices, function))


@dataclass(frozen=True)
class Derived:
    """A quantity fixed by a dimension: when option ``j`` is chosen its value is ``choices[j]``."""

    dimension: Dimension
    choices: tuple[Value, ...]

    def map(self, function: Callable[[Any], Value]) -> Derived:
        """A quantity that follows this one; see `Dimension.map`."""
        return Derived(self.dimension, _mapped(self.dimension, self.choices, function))


def _mapped(
    dimension: Dimension, given: Sequence[Value], function: Callable[[Any], Value]
) -> tuple[Value, ...]:
    results = tuple(map(function, given))
    for choice, result in zip(dimension.choices, results, strict=True):
        if not _is_value(result):
            raise SpaceError(
                f"{dimension.name} = {choice}: what follows it is a finite number, a switch or "
                f"text, found {result!r}"
            )
    return results


def _is_value(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))


Setting = int | str | bool | Dimension | Derived
"""What a layer is built with: a constant, a dimension, or something that follows a dimension."""


def choices(setting: Setting) -> tuple[Value, ...]:
    """All values a setting can take, in the dimension's order."""
    return setting.choices if isinstance(setting, Dimension | Derived) else (setting,)


def check_sizes(owner: str, smallest: int = 1, **settings: object) -> None:
    """Refuse what cannot count channels, pixels or layers.

    Args:
        owner: Who says so.
        smallest: The least allowed.
        settings: By the name that the user gave them under.

    Raises:
        SpaceError: Names the setting, and the choice of a dimension that leads to it.
    """
    for name, setting in settings.items():
        given = setting.choices if isinstance(setting, Dimension | Derived) else (setting,)
        for i, value in enumerate(given):
            if type(value) is int and value >= smallest:
                continue
            where = ""
            if isinstance(setting, Dimension):
                where = f" (dimension {setting.name})"
            elif isinstance(setting, Derived):
                where = f" ({setting.dimension.name} = {setting.dimension.choices[i]})"
            raise SpaceError(
                f"{owner}: {name} must be a whole number of at least {smallest}, "
                f"found {value!r}{where}"
            )


def largest(setting: Setting) -> int:
    """The largest number a setting can take."""
    return int(max(choices(setting)))
