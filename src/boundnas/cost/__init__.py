"""What networks cost: exact for an architecture, differentiable for a relaxed one."""

from boundnas.cost.base import COSTS, Cost
from boundnas.cost.budget import Budget, check_budgets, paired
from boundnas.cost.counts import MACs, Parameters, with_usual
from boundnas.cost.file_size import Bytes
from boundnas.cost.latency import Latency
from boundnas.cost.peak_memory import PeakMemory
from boundnas.cost.table import LatencyTable
from boundnas.space.polynomial import Largest, amount

__all__ = [
    "COSTS",
    "Budget",
    "Bytes",
    "Cost",
    "Largest",
    "Latency",
    "LatencyTable",
    "MACs",
    "Parameters",
    "PeakMemory",
    "amount",
    "check_budgets",
    "paired",
    "with_usual",
]
