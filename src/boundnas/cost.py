"""Costs of sub-networks: exact for an architecture, differentiable for a relaxed one (Sec. 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from boundnas.elastic import ElasticLayer
from boundnas.errors import CostError
from boundnas.paths import paths
from boundnas.policy import SampledArchitecture
from boundnas.polynomial import Factor, Polynomial, amount
from boundnas.space import Architecture, SearchSpace
from boundnas.supernet import Supernet


class Cost(ABC):
    """A cost of every sub-network of a model, as a polynomial in its dimensions.

    ``cost(arch)`` is an exact integer. ``cost.relaxed(arch)`` has the same value as a tensor whose
    gradient reaches the gates of every option.
    """

    name: str
    unit: str

    def __init__(self, model: Supernet) -> None:
        self.space = model.space
        polynomial = self._polynomial(model)
        self.dimensions = {f.dimension for _, term in polynomial.terms for f in term}
        """What it depends on."""
        self._terms = _Terms(polynomial, self.space)

    @abstractmethod
    def _polynomial(self, model: Supernet) -> Polynomial:
        """The cost of the whole model."""

    def __call__(self, arch: Architecture) -> int:
        """The cost of ``arch``, exact."""
        return self._terms.exact(arch.indices)

    def relaxed(self, arch: SampledArchitecture) -> Tensor:
        """The cost of ``arch`` as a scalar tensor, differentiable in its gates if it has any."""
        if arch.gates is None:
            return torch.tensor(float(self(arch)), dtype=torch.float64)
        return self._terms.relaxed(torch.cat(arch.gates).double())

    @property
    def reach(self) -> tuple[int, int]:
        """The smallest and the largest cost in the space."""
        return self(self.space.smallest), self(self.space.largest)

    def check_range(self, lower: float, upper: float) -> None:
        """Refuse a cost range that cannot be met.

        Raises:
            CostError: Not ascending, or no architecture lies inside; names the reachable range.
        """
        smallest, largest = self.reach
        if not 0 < lower < upper:
            raise CostError(
                f"a cost range is 0 < lower < upper, found {lower / 1e6:.6g} to {upper / 1e6:.6g} "
                f"{self.unit}"
            )
        if lower > largest or upper < smallest:
            raise CostError(
                f"no network of this space costs {lower / 1e6:.6g} to {upper / 1e6:.6g} "
                f"{self.unit}: they reach from {smallest / 1e6:.6g} to {largest / 1e6:.6g} "
                f"{self.unit}; choose a range that overlaps this, or another width"
            )


class MACs(Cost):
    """Multiply-accumulates of convolutions and linear layers for one image."""

    name, unit = "macs", "MMACs"

    def _polynomial(self, model: Supernet) -> Polynomial:
        def own(name: str, module: nn.Module, positions: int) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.macs(positions)
            if isinstance(module, nn.Conv2d | nn.Linear):
                return amount(positions * module.weight.numel())
            products = any(p.dim() > 1 for p in module.parameters(recurse=False))
            if products:
                raise CostError(
                    f"{name}: the MACs of a {type(module).__name__} are not known; use elastic "
                    "layers, nn.Conv2d and nn.Linear, or the cost Parameters"
                )
            return amount(0)

        return _total(model, own)


class Parameters(Cost):
    """Trained parameters of the layers in use."""

    name, unit = "parameters", "million parameters"

    def _polynomial(self, model: Supernet) -> Polynomial:
        def own(name: str, module: nn.Module, positions: int) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.parameter_count()
            return amount(sum(p.numel() for p in module.parameters(recurse=False)))

        return _total(model, own)


Own = Callable[[str, nn.Module, int], Polynomial]
"""The cost of a module by itself, without its children, from its name, the module and the output
positions where it is used."""


def with_usual(model: Supernet, cost: Cost | None = None) -> dict[str, Cost]:
    """MACs and parameters, which are counted for every run, and its own cost, by name."""
    costs = {name: usual(model) for name, usual in COSTS.items()}
    return costs if cost is None else {**costs, cost.name: cost}


COSTS: dict[str, type[Cost]] = {cost.name: cost for cost in (MACs, Parameters)}


def _total(model: Supernet, own: Own) -> Polynomial:
    """The own costs of all modules, each where it is present and used."""
    found = paths(model)
    total = amount(0)
    for name, module in model.named_modules():
        if name not in found.uses:
            continue
        use = found.uses[name]
        cost = Polynomial(())
        for positions, condition in use.cases():
            cost += condition * own(name, module, positions)
        for condition in reversed(found.presence[name]):
            cost = condition * cost
        total += cost
    return total


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
