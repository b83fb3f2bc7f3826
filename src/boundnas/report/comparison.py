"""The raw numbers of a comparison, as ``comparison.json`` keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict, Field, FiniteFloat

from boundnas.errors import RunError
from boundnas.store.base import Record
from boundnas.store.records import CostRange, Metric, read_record
from boundnas.store.times import LATENCY

FrontRow = tuple[int | FiniteFloat, FiniteFloat, FiniteFloat]
"""Cost, validation score and test score of a network of a front."""


_NAMES = {"peak_memory": "bytes of peak memory"}
"""What costs are called whose names do not say what is counted."""


class Axis(NamedTuple):
    """How a cost is written: divided, with a mark behind it, and what it is called.

    Args:
        unit: What numbers are divided by.
        mark: What stands behind a number.
        label: Of an axis.
        word: What is said behind a range.
    """

    unit: float
    mark: str
    label: str
    word: str

    @classmethod
    def of(cls, cost: str, most: float) -> Axis:
        """MACs in millions, latency in milliseconds, other costs in millions from one on.

        Args:
            cost: Its name.
            most: The largest number, or the upper end of its range.

        Examples:
            >>> Axis.of("latency", 3e6)
            Axis(unit=1000000.0, mark=' ms', label='latency, ms', word=' ms')
            >>> Axis.of("peak_memory", 5e4).label, Axis.of("parameters", 2e6).label
            ('bytes of peak memory', 'million parameters')
        """
        if cost == "macs":
            return cls(1e6, " M", "MMACs", " million")
        if cost == LATENCY:
            return cls(1e6, " ms", "latency, ms", " ms")
        cost = _NAMES.get(cost, cost)
        if most >= 1e6:
            return cls(1e6, " M", f"million {cost}", f" million {cost}")
        return cls(1.0, "", cost, f" {cost}")


class RawRecord(Record):
    """Raw numbers, beside which there is what was computed from them."""

    model_config = ConfigDict(extra="ignore")


class SeedRecord(RawRecord):
    """What one run found."""

    front: list[FrontRow]


class GroupRecord(RawRecord):
    """Runs that differ in their seed only."""

    label: str
    seeds: dict[str, SeedRecord] = Field(min_length=1)


class Comparison(RawRecord):
    """The part of ``comparison.json`` that all the rest of it is computed from.

    Args:
        metric: What networks are measured by.
        cost: What they are compared along.
        cost_range: Its range.
        others: The other costs of the runs with their ranges, which all networks lie inside.
        warnings: What should be known of the costs.
        groups: The runs.
    """

    metric: Metric
    cost: str = "macs"
    cost_range: CostRange
    others: dict[str, CostRange] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    groups: list[GroupRecord] = Field(min_length=1)

    @property
    def axis(self) -> Axis:
        """How its cost is written."""
        return Axis.of(self.cost, self.cost_range[1])

    @classmethod
    def read(cls, path: Path) -> Comparison:
        """The raw numbers of an earlier comparison.

        Raises:
            RunError: The file is missing, damaged or no comparison.
        """
        found = read_record(path, cls)
        if found is None:
            raise RunError(f"{path}: is missing; give the comparison.json of a comparison")
        return found
