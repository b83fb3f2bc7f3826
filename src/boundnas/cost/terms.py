"""A polynomial laid out for fast evaluation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boundnas.space import SearchSpace
from boundnas.space.polynomial import Factor, Polynomial

Amounts = NDArray[np.int64]


class Terms:
    """Terms as rows of factor indices; each factor a table over the options of its dimension."""

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
        """The value at an option of each dimension."""
        values = self.tables[:, self.starts + np.array(indices)].sum(1)
        values[0] = 1
        return int((self.coefficients * values[self.rows].prod(1)).sum())

    def relaxed(self, gates: Tensor) -> Tensor:
        """The value at weights of all options, one after the other, shape ``(sum of d_i,)``."""
        if self.tensors is None or self.tensors[0].device != gates.device:
            arrays = (self.tables.astype(np.float64), self.rows, self.coefficients.astype(float))
            self.tensors = tuple(torch.from_numpy(a).to(gates.device) for a in arrays)  # type: ignore[assignment]
        assert self.tensors is not None
        tables, rows, coefficients = self.tensors
        values = tables @ gates
        values = values + torch.eye(1, len(values), dtype=values.dtype, device=values.device)[0]
        return (coefficients * values[rows].prod(1)).sum()
