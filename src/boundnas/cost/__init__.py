"""What networks cost: exact for an architecture, differentiable for a relaxed one."""

from boundnas.cost.base import COSTS, Cost
from boundnas.cost.counts import MACs, Parameters, with_usual
from boundnas.space.polynomial import amount

__all__ = ["COSTS", "Cost", "MACs", "Parameters", "amount", "with_usual"]
