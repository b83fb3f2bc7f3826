"""Ordinal dimensions, and what follows them (Sec. 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
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


@dataclass(frozen=True)
class Joined:
    """The width of maps side by side, as ``torch.cat`` along their channels gives them.

    Of each part the leading channels are active. A dimension may lead several parts.

    Args:
        parts: The widths of the maps, in order; joined ones count by their own parts.

    Raises:
        SpaceError: No part, or one that is no number of channels.

    Examples:
        >>> width = Dimension("width", (4, 8))
        >>> Joined((3, Joined((width, width.map(lambda c: 2 * c))))).parts == (
        ...     3, width, width.map(lambda c: 2 * c))
        True
    """

    parts: tuple[Setting, ...]

    def __post_init__(self) -> None:
        flat = tuple(p for part in self.parts for p in parts_of(part))
        if not flat:
            raise SpaceError("a joined width needs at least one part, found none")
        for i, part in enumerate(flat):
            check_sizes(f"part {i} of a joined width", channels=part)
        object.__setattr__(self, "parts", flat)

    def map(self, function: Callable[[Any], int]) -> Joined:
        """Every part mapped by itself, as where each channel becomes several features."""
        return Joined(
            tuple(
                part.map(function) if isinstance(part, Dimension | Derived) else function(part)
                for part in self.parts
            )
        )


Width = Setting | Joined
"""A number of channels or features: a setting, or those of several maps side by side."""


def parts_of(width: Width) -> tuple[Setting, ...]:
    """The widths of the maps that lie side by side; of one map its own."""
    return width.parts if isinstance(width, Joined) else (width,)


def dimension_of(setting: Setting) -> Dimension | None:
    """The dimension that a setting is or follows, if any."""
    if isinstance(setting, Derived):
        return setting.dimension
    return setting if isinstance(setting, Dimension) else None


@cache
def searched(width: Width) -> tuple[Dimension, ...]:
    """The dimensions of more than one option that a width follows, each once, in order."""
    found = (dimension_of(part) for part in parts_of(width))
    return tuple(dict.fromkeys(d for d in found if d is not None and len(d) > 1))


def choices(setting: Setting) -> tuple[Value, ...]:
    """All values a setting can take, in the dimension's order."""
    return setting.choices if isinstance(setting, Dimension | Derived) else (setting,)


def check_sizes(owner: str, smallest: int = 1, **settings: Any) -> None:
    """Refuse what cannot count channels, pixels or layers.

    Args:
        owner: Who says so.
        smallest: The least allowed.
        settings: By the name that the user gave them under.

    Raises:
        SpaceError: Names the setting, and the choice of a dimension that leads to it.
    """
    each = ((name, part) for name, width in settings.items() for part in parts_of(width))
    for name, setting in each:
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


@cache
def largest(width: Width) -> int:
    """The largest number a setting can take; of maps side by side, the sum of theirs."""
    return sum(int(max(choices(part))) for part in parts_of(width))
