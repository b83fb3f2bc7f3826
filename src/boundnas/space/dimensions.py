"""Ordinal dimensions, and what follows them (Sec. 2)."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from boundnas.errors import SpaceError

Value = bool | int | float | str

Allowed = tuple[tuple[int, ...], ...]
"""Per dimension of a space, the indices of the options that may be drawn."""

TOO_LARGE = 1 << 31
"""No tensor of so many channels fits in memory."""


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
        if not (self.name and _is_text(self.name)):
            raise SpaceError(
                f"a dimension needs a name, a text of characters that can be seen, found "
                f"{self.name!r}"
            )
        if not _is_text(self.kind):
            raise SpaceError(f"{self.name}: a kind is a text that can be seen, found {self.kind!r}")
        given: object = self.choices
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise SpaceError(f"{self.name}: choices are a tuple or list, in order, found {given!r}")
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices:
            raise SpaceError(f"{self.name}: needs at least one choice, found none")
        shown = ", ".join(str(c) if _is_text(c) else repr(c) for c in self.choices)
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

    def map(self, function: Callable[..., Value], *others: Setting) -> Derived:
        """A quantity that follows this dimension, such as a squeeze width of a quarter.

        Args:
            function: From a choice, as it is, to the quantity; of several settings, from a value
                of each: ``width.map(lambda width, ratio: width * ratio, ratio)``.
            others: Further settings that it follows.

        Raises:
            SpaceError: A result is no number, switch or text.
        """
        return following(function, self, *others)


@dataclass(frozen=True)
class Derived:
    """A quantity fixed by dimensions: of their combination ``j`` its value is ``choices[j]``.

    Combinations are in the order of ``itertools.product``: the last dimension's options change
    first. Layers take it as they take a dimension whose options are the combinations.
    """

    dimensions: tuple[Dimension, ...]
    choices: tuple[Value, ...]

    def map(self, function: Callable[..., Value], *others: Setting) -> Derived:
        """A quantity that follows this one; see `Dimension.map`."""
        return following(function, self, *others)


def following(function: Callable[..., Any], *settings: Setting) -> Derived:
    """The quantity that is a function of the values of settings; see `Dimension.map`.

    It follows those of their dimensions that have something to choose.
    """
    every = tuple(dict.fromkeys(d for s in settings for d in followed(s)))
    dimensions = tuple(d for d in every if len(d) > 1) or every[:1]
    results = []
    for options in combinations(dimensions):
        try:
            found = function(*(_value_at(s, options) for s in settings))
        except Exception as error:  # of a user's function
            reason = f"{type(error).__name__}: {error}"
            raise SpaceError(f"{_shown(options)}: what follows it fails, {reason}") from error
        if not _is_value(found):
            raise SpaceError(
                f"{_shown(options)}: what follows it is a finite number, a switch or text, "
                f"found {found!r}"
            )
        results.append(found)
    return Derived(dimensions, tuple(results))


def combinations(dimensions: tuple[Dimension, ...]) -> Iterator[dict[Dimension, int]]:
    """All combinations of an option of each dimension, in the order of `Derived`."""
    for options in itertools.product(*(range(len(d)) for d in dimensions)):
        yield dict(zip(dimensions, options, strict=True))


def place(dimensions: tuple[Dimension, ...], options: Iterable[int]) -> int:
    """Where a combination, an option of each dimension, stands in that order."""
    found = 0
    for dimension, option in zip(dimensions, options, strict=True):
        found = found * len(dimension) + option
    return found


def _value_at(setting: Setting, options: Mapping[Dimension, int]) -> Value:
    if isinstance(setting, Dimension | Derived):
        dimensions = followed(setting)
        return setting.choices[place(dimensions, (options.get(d, 0) for d in dimensions))]
    return setting


def _shown(options: Mapping[Dimension, int]) -> str:
    return ", ".join(f"{d.name} = {d.choices[j]}" for d, j in options.items())


def _is_value(value: object) -> bool:
    return _is_text(value) or (isinstance(value, int | float) and math.isfinite(value))


def _is_text(value: object) -> bool:
    """Whether it is one line of text, as reports and cards have of it."""
    return isinstance(value, str) and value.isprintable()


Setting = int | str | bool | Dimension | Derived
"""What a layer is built with: a constant, a dimension, or something that follows dimensions."""


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
        given: object = self.parts
        if not isinstance(given, list | tuple):
            raise SpaceError(f"a joined width is made of a tuple of widths, found {given!r}")
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


def followed(setting: Setting) -> tuple[Dimension, ...]:
    """The dimensions that a setting is or follows: none of a constant."""
    if isinstance(setting, Derived):
        return setting.dimensions
    return (setting,) if isinstance(setting, Dimension) else ()


@cache
def searched(width: Width) -> tuple[tuple[Dimension, ...], ...]:
    """What the parts of a width follow that has more than one option, each once, in order."""
    found = dict.fromkeys(map(followed, parts_of(width)))
    return tuple(dimensions for dimensions in found if any(len(d) > 1 for d in dimensions))


def choices(setting: Setting) -> tuple[Value, ...]:
    """All values a setting can take, in the order of its dimension or their combinations."""
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
            if type(value) is int and smallest <= value < TOO_LARGE:
                continue
            where = ""
            if isinstance(setting, Dimension):
                where = f" (dimension {setting.name})"
            elif isinstance(setting, Derived):
                where = f" ({_shown([*combinations(setting.dimensions)][i])})"
            limit = f"of at least {smallest}"
            if type(value) is int and value >= TOO_LARGE:
                limit = f"below {TOO_LARGE:,}"
            raise SpaceError(
                f"{owner}: {name} must be a whole number {limit}, found {value!r}{where}"
            )


@cache
def largest(width: Width) -> int:
    """The largest number a setting can take; of maps side by side, the sum of theirs."""
    return sum(int(max(choices(part))) for part in parts_of(width))


def whole_numbers(indices: Any) -> tuple[int, ...]:
    """Whole numbers as those of Python, which are equal and hashed alike.

    Raises:
        SpaceError: They are none.
    """
    try:
        return tuple(map(operator.index, indices))
    except TypeError as error:
        raise SpaceError(
            f"an architecture has a tuple of whole numbers, an option of each dimension, found "
            f"{indices!r}; values by name are taken by space.architecture"
        ) from error


def difference(one: Sequence[Dimension], other: Sequence[Dimension]) -> str:
    """The first dimension in which a space differs from another one, in words."""
    for a, b in itertools.zip_longest(one, other):
        if a != b:
            return f"it has {_in_words(a)} where the other has {_in_words(b)}"
    return "they are of one form"


def _in_words(dimension: Dimension | None) -> str:
    if dimension is None:
        return "no further dimension"
    choices = ", ".join(map(str, dimension.choices))
    return f"{dimension.name} ({dimension.kind}) of {choices}"
