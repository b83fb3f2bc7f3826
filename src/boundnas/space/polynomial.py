"""Polynomials in the settings of layers: how costs stay exact and differentiable at once.

The cost of a layer is a product of amounts (``positions * c_in * c_out * kernel^2``). An amount is
read off a table by the chosen option of one dimension; with a relaxed architecture it is the sum
``sum_j z_j * table_j`` (the analytical formula of Sec. 3), whose gradient reaches every option.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import mul

import numpy as np
from numpy.typing import NDArray

from boundnas.errors import CostError
from boundnas.space import (
    Architecture,
    Derived,
    Dimension,
    Joined,
    Value,
    Width,
    choices,
    combinations,
)

PRIME = 2**61 - 1
"""What `value_hash` counts modulo."""


@dataclass(frozen=True)
class Factor:
    """A number that depends on one dimension: ``table[j]`` when option ``j`` is chosen."""

    dimension: Dimension
    table: tuple[int, ...]


@dataclass(frozen=True)
class Polynomial:
    """A sum of terms, each an integer coefficient times a product of factors."""

    terms: tuple[tuple[int, tuple[Factor, ...]], ...]

    @property
    def parts(self) -> tuple[Polynomial]:
        """Itself, as the largest of one; see `Largest`."""
        return (self,)

    def __add__(self, other: Polynomial | int) -> Polynomial:
        if _is_largest(other):
            return NotImplemented
        return Polynomial(self.terms + _polynomial(other).terms)

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        if _is_largest(other):
            return NotImplemented
        return Polynomial(
            tuple(
                (a * b, left + right)
                for a, left in self.terms
                for b, right in _polynomial(other).terms
                if a * b
            )
        )

    def given(self, condition: Polynomial) -> Polynomial:
        """This where a condition holds, which is one there and zero elsewhere.

        Of a dimension that both depend on, the factors become one: with ``p_j`` the condition and
        ``a_j`` the amount, ``sum_j z_j p_j a_j``, so that every option counts as itself.
        """
        return Polynomial(
            tuple(
                (a * b, _joint(left, right))
                for a, left in condition.terms
                for b, right in self.terms
                if a * b
            )
        )

    def value(self, arch: Architecture) -> int:
        """What it comes to in an architecture."""
        at = arch.space.position
        return sum(
            coefficient * math.prod(f.table[arch.indices[at(f.dimension)]] for f in term)
            for coefficient, term in self.terms
        )

    __radd__ = __add__
    __rmul__ = __mul__


@dataclass(frozen=True)
class Largest:
    """The largest of polynomials, as what is held at the widest of several moments.

    Added to a cost, the cost is added to each. Its gradient is that of the part that decides, of
    equal ones the first.

    Args:
        parts: The polynomials, at least one.

    Raises:
        CostError: No part, or it is multiplied by something other than a whole number above zero,
            after which another part might be the largest.
    """

    parts: tuple[Polynomial, ...]

    def __post_init__(self) -> None:
        given: object = self.parts
        if not isinstance(given, list | tuple):
            raise CostError(f"the largest is that of a tuple of polynomials, found {given!r:.60}")
        if not self.parts:
            raise CostError("the largest of several polynomials needs at least one, found none")

    def __add__(self, other: Polynomial | Largest | int) -> Largest:
        others = other.parts if isinstance(other, Largest) else (other,)
        return Largest(tuple(a + b for a in self.parts for b in others))

    def __mul__(self, factor: int) -> Largest:
        if type(factor) is not int or factor < 1:
            raise CostError(
                "the largest of several polynomials is multiplied by a whole number above zero, "
                f"found {factor if isinstance(factor, int | float) else type(factor).__name__}; "
                "multiply its parts"
            )
        return Largest(tuple(factor * part for part in self.parts))

    def value(self, arch: Architecture) -> int:
        """What it comes to in an architecture."""
        return max(part.value(arch) for part in self.parts)

    __radd__ = __add__
    __rmul__ = __mul__


def _joint(conditions: tuple[Factor, ...], factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
    found = []
    for condition in conditions:
        same = [f for f in factors if f.dimension == condition.dimension]
        table = tuple(map(math.prod, zip(condition.table, *(f.table for f in same), strict=True)))
        found.append(Factor(condition.dimension, table))
        factors = tuple(f for f in factors if f not in same)
    return (*found, *factors)


def _is_largest(value: object) -> bool:
    return isinstance(value, Largest)


def _polynomial(value: Polynomial | int) -> Polynomial:
    return value if isinstance(value, Polynomial) else Polynomial(((value, ()),))


def amount(setting: Width, function: Callable[[Value], int] = int) -> Polynomial:
    """``function`` of the value a setting takes, as a polynomial; of joined ones, the sum.

    Examples:
        >>> width = Dimension("width", (8, 16))
        >>> (3 * amount(width) * amount(5)).terms
        ((15, (Factor(dimension=Dimension(name='width', choices=(8, 16), kind='width'), \
table=(8, 16)),)),)
    """
    if isinstance(setting, Joined):
        return sum((amount(part, function) for part in setting.parts), Polynomial(()))
    numbers = tuple(_numbered(function, value) for value in choices(setting))
    if isinstance(setting, Dimension):
        return _from_table(setting, numbers)
    if isinstance(setting, Derived):
        return _of_combinations(setting.dimensions, numbers)
    return _polynomial(numbers[0])


def _numbered(function: Callable[[Value], int], value: Value) -> int:
    try:
        return function(value)
    except Exception as error:  # of a user's function
        raise CostError(
            f"an amount is a function of each value that a setting takes; of {value!r} it fails, "
            f"{type(error).__name__}: {error}"
        ) from error


def chosen(dimension: Dimension, indices: Collection[int]) -> Polynomial:
    """One where one of these options is chosen, else zero."""
    return _from_table(dimension, (int(j in indices) for j in range(len(dimension))))


def tabulated(dimensions: Sequence[Dimension], table: NDArray[np.int64]) -> Polynomial:
    """``table[i, j, ...]`` where options ``i``, ``j``, ... of dimensions are chosen.

    A term for each combination of options of all dimensions but the one that varies most; options
    that have the same numbers share terms.

    Examples:
        >>> a, b = Dimension("a", (1, 2, 3)), Dimension("b", (4, 8))
        >>> len(tabulated([a, b], np.array([[5, 6], [7, 7], [7, 7]])).terms)
        2
    """
    if not table.any():
        return Polynomial(())
    if not dimensions:
        return _polynomial(int(table))
    groups = [_alike(np.moveaxis(table, axis, 0)) for axis in range(table.ndim)]
    axis = min(range(table.ndim), key=lambda each: len(groups[each]))
    own = dimensions[axis]
    if table.ndim == 1 and len(groups[0]) > 1:
        return _from_table(own, table.tolist())
    others = [d for d in dimensions if d is not own]
    total = Polynomial(())
    for options in groups[axis]:
        part = tabulated(others, np.asarray(table.take(options[0], axis)))
        total += part if len(groups[axis]) == 1 else chosen(own, options) * part
    return total


def value_hash(polynomial: Polynomial) -> int:
    """A number that polynomials share which have equal values, however they are written.

    The multilinear form at weights that add up to one in every dimension, modulo a prime. Others
    have another one but for an accident of about one in 10^17.

    Examples:
        >>> width = Dimension("width", (8, 16))
        >>> twice, other = 2 * amount(width), amount(width, lambda value: value + 1)
        >>> value_hash(amount(width) + amount(width)) == value_hash(twice)
        True
        >>> value_hash(twice) == value_hash(other)
        False
    """
    weights: dict[Dimension, list[int]] = {}
    total = 0
    for coefficient, term in polynomial.terms:
        for dimension, table in _by_dimension(term).items():
            if dimension not in weights:
                weights[dimension] = _weights(dimension)
            coefficient = coefficient * sum(map(mul, table, weights[dimension])) % PRIME
        total += coefficient
    return total % PRIME


def _by_dimension(term: Iterable[Factor]) -> dict[Dimension, tuple[int, ...]]:
    """The product of a term's factors of each dimension."""
    found: dict[Dimension, tuple[int, ...]] = {}
    for factor in term:
        before = found.get(factor.dimension, (1,) * len(factor.table))
        found[factor.dimension] = tuple(map(mul, before, factor.table))
    return found


def _weights(dimension: Dimension) -> list[int]:
    """A number for each option that nothing else has anything to do with; they add up to one."""
    names = (f"{dimension.name} {j}".encode() for j in range(len(dimension) - 1))
    found = [int.from_bytes(hashlib.sha256(name).digest()[:8], "big") for name in names]
    return [*found, 1 - sum(found)]


def _alike(table: NDArray[np.int64]) -> list[list[int]]:
    """Options along the first axis that have the same numbers, together."""
    found: dict[bytes, list[int]] = {}
    for option, part in enumerate(table):
        found.setdefault(part.tobytes(), []).append(option)
    return list(found.values())


def _of_combinations(dimensions: tuple[Dimension, ...], table: tuple[int, ...]) -> Polynomial:
    """``table[j]`` of combination ``j``: a term for each of all but the last dimension's."""
    if not dimensions:
        return _polynomial(*table)
    *outer, last = dimensions
    total = Polynomial(())
    for i, options in enumerate(combinations(tuple(outer))):
        term = _from_table(last, table[i * len(last) : (i + 1) * len(last)])
        for dimension, j in options.items():
            term = chosen(dimension, {j}) * term
        total = total + term
    return total


def _from_table(dimension: Dimension, table: Iterable[int]) -> Polynomial:
    return Polynomial(((1, (Factor(dimension, tuple(table)),)),))
