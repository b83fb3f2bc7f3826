"""Costs of sub-networks: exact for an architecture, differentiable for a relaxed one (Sec. 3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boundnas.elastic import ElasticLayer
from boundnas.errors import CostError
from boundnas.paths import paths
from boundnas.policy import SampledArchitecture
from boundnas.polynomial import Factor, Polynomial, amount
from boundnas.space import Architecture, SearchSpace
from boundnas.supernet import Supernet

_log = logging.getLogger(__name__)

Amounts = NDArray[np.int64]


class Cost:
    """A cost of every sub-network of a model, as a polynomial in its dimensions.

    ``cost(arch)`` is an exact integer. ``cost.relaxed(arch)`` has the same value as a tensor whose
    gradient reaches the gates of every option. A cost of one's own derives from this class and
    says ``name``, ``unit`` and ``_polynomial``.

    Raises:
        CostError: One of them is missing, a number is not whole, or a cost is below zero.
    """

    name: str
    unit: str
    per_unit: int = 1
    """What numbers are divided by where they are shown in ``unit``."""

    def __init__(self, model: Supernet) -> None:
        self.space = model.space
        _check_texts(self)
        polynomial = self._polynomial(model)
        _check_whole(self, polynomial)
        self.dimensions = {f.dimension for _, term in polynomial.terms for f in term}
        """What it depends on."""
        self._terms = _Terms(polynomial, self.space)

    def _polynomial(self, model: Supernet) -> Polynomial:
        """The cost of the whole model; see `boundnas.polynomial.amount`."""
        raise CostError(
            f"{type(self).__name__} does not say what it costs: define _polynomial(self, model), "
            "which gives a sum of products of boundnas.polynomial.amount(dimension, function)"
        )

    def __call__(self, arch: Architecture) -> int:
        """The cost of ``arch``, exact.

        Raises:
            CostError: It is below zero.
        """
        found = self._terms.exact(arch.indices)
        if found < 0:
            raise CostError(f"{self.name}: a cost is zero or more, found {found} for {arch}")
        return found

    def relaxed(self, arch: SampledArchitecture) -> Tensor:
        """The cost of ``arch`` as a scalar tensor, differentiable in its gates if it has any."""
        if arch.gates is None:
            return torch.tensor(float(self(arch)), dtype=torch.float64)
        return self._terms.relaxed(torch.cat(arch.gates).double())

    @property
    def terms(self) -> tuple[Amounts, Amounts, Amounts]:
        """All that it is made of: tables of amounts, which of them each term has, coefficients."""
        return self._terms.tables, self._terms.rows, self._terms.coefficients

    @cached_property
    def reach(self) -> tuple[int, int]:
        """The smallest and the largest cost found by changing one dimension at a time.

        Where a larger option never costs less these are the space's smallest and largest network.
        """
        return self._extreme(self.space.smallest, min), self._extreme(self.space.largest, max)

    def _extreme(self, arch: Architecture, best: Callable[..., Architecture]) -> int:
        while True:
            before = arch
            for i, dimension in enumerate(self.space.dimensions):
                others = (
                    Architecture(self.space, (*arch.indices[:i], j, *arch.indices[i + 1 :]))
                    for j in range(len(dimension))
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
                f"{self.name}"
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
        """What a range may have been meant as that is off by a million."""
        smallest, largest = self.reach
        for factor, what in ((1e6, "itself, not in millions"), (1e-6, "once, not times a million")):
            if lower * factor <= largest and upper * factor >= smallest:
                return (
                    f". {lower:,.10g} to {upper:,.10g} was found, and {lower * factor:,.10g} to "
                    f"{upper * factor:,.10g} would overlap: a cost_range is in {self.name} {what}"
                )
        return ""


class MACs(Cost):
    """Multiply-accumulates for one image: of layers, and of what `forward` multiplies itself."""

    name, unit, per_unit = "macs", "MMACs", 10**6

    def _polynomial(self, model: Supernet) -> Polynomial:
        def own(module: nn.Module | None, positions: int) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.macs(positions)
            return amount(positions if module is None else 0)

        return _total(model, own)


class Parameters(Cost):
    """Trained parameters of the layers in use."""

    name, unit, per_unit = "parameters", "million parameters", 10**6

    def _polynomial(self, model: Supernet) -> Polynomial:
        def own(module: nn.Module | None, positions: int) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.parameter_count()
            held = () if module is None else module.parameters(recurse=False)
            return amount(sum(p.numel() for p in held))

        return _total(model, own)


Own = Callable[[nn.Module | None, int], Polynomial]
"""The cost of a module by itself, without its children, from the module and the output positions
where it is used; of the functions that a module calls, from none and their multiply-accumulates."""


def with_usual(model: Supernet, cost: Cost | None = None) -> dict[str, Cost]:
    """MACs and parameters, which are counted for every run, and its own cost, by name."""
    costs = {name: usual(model) for name, usual in COSTS.items()}
    return costs if cost is None else {**costs, cost.name: cost}


COSTS: dict[str, type[Cost]] = {cost.name: cost for cost in (MACs, Parameters)}


def _total(model: Supernet, own: Own) -> Polynomial:
    """The own costs of all modules, each where it is present and used."""
    found = paths(model)
    total, modules = amount(0), dict(model.named_modules())
    for name, use in found.uses.items():
        cost = Polynomial(())
        for positions, condition in use.cases():
            cost += condition * own(modules.get(name), positions)
        for condition in reversed(found.presence[name]):
            cost = condition * cost
        total += cost
    return total


def _check_texts(cost: Cost) -> None:
    """Refuse a cost without a name and a unit, or with the name of another."""
    for what in ("name", "unit"):
        text = getattr(cost, what, None)
        if not (isinstance(text, str) and text):
            raise CostError(
                f"{type(cost).__name__}: a cost has a {what}, a text such as "
                f"{'latency' if what == 'name' else 'ms'!r}, found {text!r}"
            )
    if cost.name in COSTS and not isinstance(cost, COSTS[cost.name]):
        raise CostError(f"{type(cost).__name__}: the name {cost.name!r} is taken; choose another")


def _check_whole(cost: Cost, polynomial: object) -> None:
    """Refuse what is no polynomial of whole numbers."""
    if not isinstance(polynomial, Polynomial):
        raise CostError(
            f"{cost.name}: _polynomial gives sums and products of boundnas.polynomial.amount, "
            f"found a {type(polynomial).__name__}"
        )
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


class _Terms:
    """A polynomial laid out for fast evaluation: terms as rows of factor indices."""

    def __init__(self, polynomial: Polynomial, space: SearchSpace) -> None:
        factors: dict[Factor | None, int] = {None: 0}  # the constant one pads shorter terms
        for _, term in polynomial.terms:
            for factor in term:
                factors.setdefault(factor, len(factors))
        degree = max((len(term) for _, term in polynomial.terms), default=0)
        self.rows = np.array(
            [
                [factors[f] for f in (*term, *[None] * (degree - len(term)))]
                for _, term in polynomial.terms
            ],
            dtype=np.int64,
        ).reshape(len(polynomial.terms), degree)
        self.coefficients = np.array([c for c, _ in polynomial.terms], dtype=np.int64)
        starts = np.cumsum([0, *(len(d) for d in space.dimensions)])
        self.starts = starts[:-1]
        self.tables = np.zeros((len(factors), starts[-1]), dtype=np.int64)
        for known, row in factors.items():
            if known is not None:
                start = starts[space.position(known.dimension)]
                self.tables[row, start : start + len(known.table)] = known.table
        self.tensors: tuple[Tensor, Tensor, Tensor] | None = None

    def exact(self, indices: tuple[int, ...]) -> int:
        values = self.tables[:, self.starts + np.array(indices)].sum(1)
        values[0] = 1
        return int((self.coefficients * values[self.rows].prod(1)).sum())

    def relaxed(self, gates: Tensor) -> Tensor:
        if self.tensors is None or self.tensors[0].device != gates.device:
            arrays = (self.tables.astype(np.float64), self.rows, self.coefficients.astype(float))
            self.tensors = tuple(torch.from_numpy(a).to(gates.device) for a in arrays)  # type: ignore[assignment]
        assert self.tensors is not None
        tables, rows, coefficients = self.tensors
        values = tables @ gates
        values = values + torch.eye(1, len(values), dtype=values.dtype, device=values.device)[0]
        return (coefficients * values[rows].prod(1)).sum()
