"""The largest of polynomials, most often of one, laid out for fast evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boundnas.space import SearchSpace
from boundnas.space.polynomial import Factor, Polynomial

Amounts = NDArray[np.int64]


LONG = 1 << 21
"""From so many entries of a table of all factors over all options each is kept by itself."""


class Terms:
    """Terms as rows of factor indices; each factor a table over the options of its dimension."""

    def __init__(self, parts: Sequence[Polynomial], space: SearchSpace) -> None:
        terms = [(i, *term) for i, part in enumerate(parts) for term in part.terms]
        factors: dict[Factor | None, int] = {None: 0}  # the constant one pads shorter terms
        for _, _, term in terms:
            for factor in term:
                factors.setdefault(factor, len(factors))
        degree = max((len(term) for _, _, term in terms), default=0)
        self.rows = np.array(
            [[factors[f] for f in (*term, *[None] * (degree - len(term)))] for _, _, term in terms],
            dtype=np.int64,
        ).reshape(len(terms), degree)
        self.coefficients = np.array([c for _, c, _ in terms], dtype=np.int64)
        self.number, self.owners = len(parts), np.array([i for i, *_ in terms], dtype=np.int64)
        """How many polynomials there are, and which one each term is of."""
        starts = np.cumsum([0, *(len(d) for d in space.dimensions)])
        self.starts = starts[:-1]
        self.is_long = len(factors) * starts[-1] > LONG
        width = max(map(len, space.dimensions)) if self.is_long else starts[-1]
        self.tables = np.zeros((len(factors), width), dtype=np.int64)
        self.dimensions = np.zeros(len(factors), dtype=np.int64)
        """Of a long one the dimension of each factor; its options stand first in its row."""
        for known, row in factors.items():
            if known is not None:
                self.dimensions[row] = space.position(known.dimension)
                start = 0 if self.is_long else starts[self.dimensions[row]]
                self.tables[row, start : start + len(known.table)] = known.table
        self.tensors: tuple[Tensor, ...] | None = None

    def exact(self, indices: tuple[int, ...]) -> int:
        """The value at an option of each dimension."""
        if self.is_long:
            options = np.array(indices)[self.dimensions]
            values = self.tables[np.arange(len(options)), options]
        else:
            values = self.tables[:, self.starts + np.array(indices)].sum(1)
        values[0] = 1
        totals = np.zeros(self.number, dtype=np.int64)
        np.add.at(totals, self.owners, self.coefficients * values[self.rows].prod(1))
        return int(totals.max())

    def _places(self, number: int) -> Amounts:
        """Where the gate of each entry of a long one stands; behind the last option, anywhere."""
        if not self.is_long:
            return np.zeros(0, dtype=np.int64)
        columns = np.arange(self.tables.shape[1])
        return np.minimum(self.starts[self.dimensions][:, None] + columns, number - 1)

    def relaxed(self, gates: Tensor) -> Tensor:
        """The value at weights of all options, one after the other, shape ``(sum of d_i,)``."""
        if self.tensors is None or self.tensors[0].device != gates.device:
            floats = (a.astype(np.float64) for a in (self.tables, self.coefficients))
            arrays = (*floats, self.rows, self.owners, self._places(len(gates)))
            self.tensors = tuple(torch.from_numpy(a).to(gates.device) for a in arrays)
        tables, coefficients, rows, owners, places = self.tensors
        values = (tables * gates[places]).sum(1) if self.is_long else tables @ gates
        values = values + torch.eye(1, len(values), dtype=values.dtype, device=values.device)[0]
        products = coefficients * values[rows].prod(1)
        totals = products.new_zeros(self.number).index_add(0, owners, products)
        # Of equal ones the first; its place is no value that the device is asked for.
        return totals.gather(0, totals.argmax(0, keepdim=True))[0]
