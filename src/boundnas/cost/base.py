"""Costs of sub-networks: exact for an architecture, differentiable for a relaxed one (Sec. 3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from boundnas.cost.terms import Amounts, Terms
from boundnas.errors import CostError
from boundnas.space import Allowed, Architecture
from boundnas.space.polynomial import Largest, Polynomial
from boundnas.supernet.supernet import Supernet
from boundnas.typed import check_argument

_log = logging.getLogger(__name__)


class Cost:
    """A cost of every sub-network of a model, as a polynomial in its dimensions, or several.

    Of several, `boundnas.cost.Largest`, the largest counts.

    ``cost(arch)`` is an exact integer. ``cost.relaxed(arch)`` has the same value as a tensor whose
    gradient reaches the gates of every option, by the polynomial that decides. A cost of one's own
    derives from this class and says ``name``, ``unit`` and ``_polynomial``.

    Raises:
        CostError: One of them is missing, a number is not whole, or a cost is below zero.
        SpaceError: An architecture is of another space.
    """

    name: str
    unit: str
    per_unit: int = 1
    """What numbers are divided by where they are shown in ``unit``."""

    counts: str = ""
    """What its whole numbers are, in words, as ranges from Python; by default its name."""

    def __init__(self, model: Supernet) -> None:
        check_argument(type(self).__name__, "model", model, Supernet)
        self.space = model.space
        _check_texts(self)
        self.polynomial = self._polynomial(model)
        """The cost of the whole model, which costs of one's own may add up and multiply."""
        _check_whole(self, self.polynomial)
        parts = self.polynomial.parts
        self.dimensions = {f.dimension for p in parts for _, term in p.terms for f in term}
        """What it depends on."""
        self._terms = Terms(parts, self.space)

    def _polynomial(self, model: Supernet) -> Polynomial | Largest:
        """The cost of the whole model; see `boundnas.cost.amount` and `boundnas.cost.Largest`."""
        raise CostError(
            f"{type(self).__name__} does not say what it costs: define _polynomial(self, model), "
            "which gives a sum of products of boundnas.cost.amount(dimension, function)"
        )

    def __call__(self, arch: Architecture) -> int:
        """The cost of ``arch``, exact.

        Raises:
            CostError: It is below zero.
        """
        self.space.check(arch, self.name)
        found = self._terms.exact(arch.indices)
        if found < 0:
            raise CostError(f"{self.name}: a cost is zero or more, found {found} for {arch}")
        return found

    def relaxed(self, arch: Architecture) -> Tensor:
        """The cost of ``arch`` as a scalar tensor, differentiable in its gates if it has any."""
        self.space.check(arch, self.name)
        if arch.gates is None:
            return torch.tensor(float(self(arch)), dtype=torch.float64)
        return self._terms.relaxed(torch.cat(arch.gates).double())

    @property
    def terms(self) -> tuple[Amounts, ...]:
        """All that it is made of: tables of amounts, which of them each term has, coefficients.

        Of the largest of several polynomials also which one each term is of; of a long one the
        dimension of each table.
        """
        held = self._terms
        of_each = (held.owners,) if held.number > 1 else ()
        of_tables = (held.dimensions,) if held.is_long else ()
        return held.tables, held.rows, held.coefficients, *of_each, *of_tables

    @cached_property
    def reach(self) -> tuple[int, int]:
        """The smallest and the largest cost found by changing one dimension at a time.

        Where a larger option never costs less these are the space's smallest and largest network.
        """
        return self.reach_of(self.space.whole)

    def reach_of(self, allowed: Allowed) -> tuple[int, int]:
        """Likewise of a part of the space.

        Args:
            allowed: The options of each dimension, in ascending order.
        """
        return self._extreme(allowed, 0, min), self._extreme(allowed, -1, max)

    def _extreme(self, allowed: Allowed, start: int, best: Callable[..., Architecture]) -> int:
        arch = Architecture(self.space, tuple(options[start] for options in allowed))
        while True:
            before = arch
            for i, options in enumerate(allowed):
                others = (
                    Architecture(self.space, (*arch.indices[:i], j, *arch.indices[i + 1 :]))
                    for j in options
                )
                arch = best((arch, *others), key=self)  # of equal ones the first
            if arch == before:
                return self(arch)

    def _shown(self, value: float) -> str:
        return f"{value / self.per_unit:.6g}"

    def check_range(self, lower: float, upper: float) -> None:
        """Refuse a cost range that cannot be met.

        Raises:
            CostError: Not ascending, or no architecture lies inside; names the reachable range.
        """
        if not all(type(v) in (int, float) and 0 < v < math.inf for v in (lower, upper)) or (
            lower >= upper
        ):
            raise CostError(
                f"a cost range is 0 < lower < upper, two finite numbers, found {lower} to {upper} "
                f"{self.counts or self.name}"
            )
        smallest, largest = self.reach
        asked = f"{self._shown(lower)} to {self._shown(upper)} {self.unit}"
        reach = f"from {self._shown(smallest)} to {self._shown(largest)} {self.unit}"
        if lower > largest or upper < smallest:
            raise CostError(
                f"no network of this space costs {asked}: they reach {reach}; choose a range that "
                f"overlaps this, or another width{self._likely(lower, upper)}"
            )
        for beyond, what in ((lower < smallest, "lower"), (upper > largest, "upper")):
            if beyond:
                _log.warning(
                    "the %s limit of %s is beyond what this space reaches, %s%s",
                    what, asked, reach, "; the smallest counts instead" * (what == "lower"),
                )  # fmt: skip

    def _likely(self, lower: float, upper: float) -> str:
        """What a range was likely meant as that is off by a million: other units than are taken."""
        smallest, largest = self.reach
        for factor in (1e6, 1e-6):
            ends = lower * factor, upper * factor
            if ends[0] <= largest and ends[1] >= smallest:
                a, b = map(self._shown, ends)
                return (
                    f"; if {a} to {b} {self.unit} was meant, that is lower: {a}, upper: {b} in a "
                    f"configuration, and cost_range=({ends[0]:.10g}, {ends[1]:.10g}) from Python, "
                    f"in {self.counts or self.name}"
                )
        return ""


COSTS: dict[str, type[Cost]] = {}
"""Those that come with BoundNAS, by name."""

BY_TABLE: dict[str, type[Cost]] = {}
"""Likewise those that need a table; where amounts are shown their names stand for their units."""


def _check_texts(cost: Cost) -> None:
    """Refuse a cost without a name and a unit, or with the name of another."""
    for what in ("name", "unit"):
        text = getattr(cost, what, None)
        if not (isinstance(text, str) and text):
            raise CostError(
                f"{type(cost).__name__}: a cost has a {what}, a text such as "
                f"{'energy' if what == 'name' else 'mJ'!r}, found {text!r}"
            )
    if not isinstance(cost, {**COSTS, **BY_TABLE}.get(cost.name, Cost)):
        raise CostError(f"{type(cost).__name__}: the name {cost.name!r} is taken; choose another")


def _check_whole(cost: Cost, found: object) -> None:
    """Refuse what is no polynomial of whole numbers, or the largest of several."""
    if not isinstance(found, Polynomial | Largest):
        raise CostError(
            f"{cost.name}: _polynomial gives sums and products of boundnas.cost.amount, or the "
            f"boundnas.cost.Largest of several, found a {type(found).__name__}"
        )
    for polynomial in found.parts:
        _check_numbers(cost, polynomial)


def _check_numbers(cost: Cost, polynomial: Polynomial) -> None:
    for coefficient, term in polynomial.terms:
        for number in (coefficient, *(n for factor in term for n in factor.table)):
            if not isinstance(number, int | np.integer):
                raise CostError(
                    f"{cost.name}: costs are whole numbers, found {number!r}; choose a smaller "
                    "unit, such as microseconds instead of milliseconds, and round"
                )
    most = sum(
        math.prod((abs(int(c)), *(max(abs(int(n)) for n in factor.table) for factor in term)))
        for c, term in polynomial.terms
    )
    if most >= 2**63:
        raise CostError(
            f"{cost.name}: a cost fits in a whole number of 64 bits, and this one may reach "
            f"{most:.3g}; choose a larger unit"
        )
