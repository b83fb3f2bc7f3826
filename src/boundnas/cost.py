"""Costs of sub-networks: exact for an architecture, differentiable for a relaxed one (Sec. 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from boundnas.calibrate import observing
from boundnas.elastic import ElasticLayer, ElasticModule
from boundnas.errors import CostError
from boundnas.modes import evaluating
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
        self._terms = _Terms(self._polynomial(model), self.space)

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
        positions = _output_positions(model)

        def own(name: str, module: nn.Module) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.macs(positions[name])
            if isinstance(module, nn.Conv2d | nn.Linear):
                return amount(positions[name] * module.weight.numel())
            products = any(p.dim() > 1 for p in module.parameters(recurse=False))
            if products:
                raise CostError(
                    f"{name}: the MACs of a {type(module).__name__} are not known; use elastic "
                    "layers, nn.Conv2d and nn.Linear, or the cost Parameters"
                )
            return amount(0)

        return _total("", model, own)


class Parameters(Cost):
    """Trained parameters."""

    name, unit = "parameters", "million parameters"

    def _polynomial(self, model: Supernet) -> Polynomial:
        def own(name: str, module: nn.Module) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.parameter_count()
            return amount(sum(p.numel() for p in module.parameters(recurse=False)))

        return _total("", model, own)


Own = Callable[[str, nn.Module], Polynomial]
"""The cost of a module by itself, without its children, from its name and the module."""


def with_usual(model: Supernet, cost: Cost | None = None) -> dict[str, Cost]:
    """MACs and parameters, which are counted for every run, and its own cost, by name."""
    costs = {name: usual(model) for name, usual in COSTS.items()}
    return costs if cost is None else {**costs, cost.name: cost}


COSTS: dict[str, type[Cost]] = {cost.name: cost for cost in (MACs, Parameters)}


def _total(name: str, module: nn.Module, own: Own) -> Polynomial:
    """Own cost plus that of the children, each counted where it is present."""
    total = own(name, module)
    for child_name, child in module.named_children():
        presence = module.presence(child_name) if isinstance(module, ElasticModule) else amount(1)
        total += presence * _total(f"{name}.{child_name}".lstrip("."), child, own)
    return total


@torch.no_grad()
def _output_positions(model: Supernet) -> dict[str, int]:
    """Output pixels of every layer with MACs, summed over its calls, from one pass.

    The resolution does not depend on the architecture, so the largest one, which uses every
    layer, tells it for all.

    Raises:
        CostError: A layer is not used by the largest architecture.
    """
    positions: dict[str, int] = {}
    kinds = (ElasticLayer, nn.Conv2d, nn.Linear)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, kinds)}
    space = model.space

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            pixels = output.shape[1:-1] if isinstance(module, nn.Linear) else output.shape[2:]
            positions[name] = positions.get(name, 0) + pixels.numel()

        return hook

    hooks = [m.register_forward_hook(record(name)) for name, m in layers.items()]
    try:
        images = next(model.parameters()).new_zeros(2, *model.input_shape)
        with evaluating(model):
            model(images, observing(space.largest))
    finally:
        for hook in hooks:
            hook.remove()
    unused = sorted(set(layers) - set(positions))
    if unused:
        raise CostError(
            f"the largest architecture does not use {', '.join(unused)}, so its cost is not known; "
            "every layer must be in use there"
        )
    return positions


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
